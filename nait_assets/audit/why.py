"""Why a candidate is chosen or not, and why it scores as it does: what `nait explain` says, as data.

Belongs here: putting together what scoring and selection say of one row. Does not belong here: the sentences of the
command (`why_text`), and how a score is taken apart (`scoring.explanation`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nait_assets.corpora.eligibility import reason_of
from nait_assets.errors import NotFoundError
from nait_assets.extraction import activation_table
from nait_assets.recipe import ACTIVATIONS, POOL, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.catalogue import thresholds_of
from nait_assets.scoring.explanation import explanations, find_candidate
from nait_assets.scoring.faces import Neuron, faces
from nait_assets.scoring.method import Explanation, Face
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.texts import Shown, shown_texts, texts_of_examples
from nait_assets.selection.held_against import standing
from nait_assets.selection.placing import Placing, placings
from nait_assets.selection.turns import takes_turns
from nait_assets.tables import CANDIDATE_POOL, scores_table

N_FACES = 3


@dataclass(frozen=True)
class Scored:
    """A candidate's score by one method.

    Attributes:
        method: The method.
        score: Higher is better; None without a score.
        rank: 1 is the best; None without a score.
        n_candidates: Candidates of the ranking, with those without a score.
        reason: Why it has no score; None where it has one.
    """

    method: str
    score: float | None
    rank: int | None
    n_candidates: int
    reason: str | None


@dataclass(frozen=True)
class Why:
    """What is known of a candidate's score for a target, and of its place.

    Attributes:
        sample: The candidate, columns of `tables.EXAMPLE`.
        ineligible: Why no subset may take it, whatever its score; None if one may.
        target: A capability, or `all`.
        scores: Its score by every method of the recipe that has been run.
        method: The method whose score is explained.
        description: What puts a candidate first by this method, in a sentence.
        held_against: Scores that chance and the examples reach, and whether it does; "" where none is defined.
        placings: Where it stands against the subset of each ratio.
        explanation: Why it scores as it does; None where nothing was read of it.
        faces: By neuron of the explanation's reasons, the pool's rows that drive it most, and the candidate.
        texts: Texts of the in-domain examples and of the pool's rows that are named, by `sample_id`.
    """

    sample: Mapping[str, Any]
    ineligible: str | None
    target: str
    scores: tuple[Scored, ...]
    method: str
    description: str
    held_against: str
    placings: tuple[Placing, ...]
    explanation: Explanation | None
    faces: Mapping[Neuron, list[Face]]
    texts: Mapping[str, Shown]

    @property
    def score(self) -> float | None:
        """Its stored score by the method that is explained."""
        return next((scored.score for scored in self.scores if scored.method == self.method), None)


def why(recipe: Recipe, warehouse: Warehouse, sample_id: str, target: str, n: int, method: str | None = None) -> Why:
    """Why a candidate scores as it does for a target, and whether it is chosen.

    Args:
        recipe: The recipe.
        warehouse: Where its outputs are.
        sample_id: A candidate's id, or the beginning of one.
        target: A capability, or `all`.
        n: Most reasons, and most nearest examples.
        method: Method whose score is explained; by default the recipe's leading one.

    Raises:
        NotFoundError: There is no such target, method or sample, or several samples begin so.
        WarehouseError: Nothing has been materialized, or with a projection where the recipe has none, or the reverse.
    """
    if target not in recipe.targets:
        raise NotFoundError(f"{recipe.path}: {recipe.not_a_target(target)}.")
    if method is not None and method not in recipe.methods:
        raise NotFoundError(f"{recipe.path} has no method {method!r}; its methods are {', '.join(recipe.methods)}.")
    method = method or recipe.leading_method
    with warehouse.tables.snapshot() as snapshot:
        sample = find_candidate(snapshot, sample_id)
        scores = _scores_of(snapshot, recipe, sample["sample_id"], target)
        reason = reason_of(recipe, snapshot, sample["sample_id"])
        held = _held_against(snapshot, recipe, method, target, sample["sample_id"])
    name = sample["sample_id"]
    found = explanations(recipe, warehouse, method, {target: [name]}, n).explanations.get((target, name))
    stands = tuple(placings(recipe, warehouse, method, target, name))
    drivers = _faces(recipe, warehouse, method, found, name)
    of_parts = found.faces.values() if found else ()
    named = [face.sample_id for driving in (*drivers.values(), *of_parts) for face in driving]
    named += [one.last for one in stands if one.last]
    with warehouse.tables.snapshot() as snapshot:
        texts = shown_texts(snapshot.rows_of(CANDIDATE_POOL.only("sample_id", "messages"), named))
        texts |= texts_of_examples(snapshot, found.near if found else ())
    description = method_of(recipe, method).description
    return Why(sample, reason, target, scores, method, description, held, stands, found, drivers, texts)


def _scores_of(snapshot: Snapshot, recipe: Recipe, sample_id: str, target: str) -> tuple[Scored, ...]:
    query = """
        SELECT method, score, rank, n_candidates, reason FROM (
            SELECT *, count(*) OVER (PARTITION BY method) AS n_candidates FROM scoring.scores WHERE target = ?
        ) WHERE sample_id = ? ORDER BY method
    """
    if not snapshot.has_table("scoring.scores"):
        return ()
    rows = snapshot.connection.execute(query, [target, sample_id]).fetchall()
    return tuple(Scored(*row) for row in rows if row[0] in recipe.methods)


def _held_against(snapshot: Snapshot, recipe: Recipe, method: str, target: str, sample_id: str) -> str:
    """Whether a score is what chance or the examples reach: for `all`, the one of the capability whose turn it is."""
    table, whose = scores_table(method), ""
    if not snapshot.has_table(table.name):
        return ""
    own = snapshot.rows(table, target=target, sample_id=sample_id)
    if takes_turns(recipe, method, target) and len(own) and own["whose_turn"][0] is not None:
        whose = own["whose_turn"][0]
        own = snapshot.rows(table, target=whose, sample_id=sample_id)
    if own["score"].null_count() or own.is_empty():
        return ""
    found = standing(thresholds_of(snapshot, method, whose or target), own["score"]).of_one_row
    of = f" for {whose}, in whose turn it is," if whose else ""
    said = [f"its score{of} {own['score'][0]:.4g} is {found}"] if found else []
    said += [f"what its score for {whose} is made of, `--target {whose}` says"] if whose else []
    return "; ".join(said)


def _faces(
    recipe: Recipe, warehouse: Warehouse, method: str, explanation: Explanation | None, sample_id: str
) -> dict[Neuron, list[Face]]:
    reasons = explanation.reasons if explanation else ()
    neurons = {reason.neuron: reason.inverted for reason in reasons if reason.neuron is not None}
    if not neurons or ACTIVATIONS not in method_of(recipe, method).reads:
        return {}
    with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
        return faces(snapshot, neurons, sample_id, N_FACES, recipe.pooling_of(method))
