"""Why a candidate scores as it does: its score and rank by each method, and the reasons that one method gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from nait_assets.corpora.eligibility import reason_of
from nait_assets.errors import NotFoundError, WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.projection import NETWORK
from nait_assets.recipe import ACTIVATIONS, POOL, Pooling, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.inputs import gathered
from nait_assets.scoring.method import Explanation, Method, Reason
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.reasons import explained
from nait_assets.shown import one_line
from nait_assets.tables import CANDIDATE_POOL


@dataclass(frozen=True)
class Explained:
    """Explanations of some candidates.

    Attributes:
        explanations: By `sample_id`, of those that every output of the method has.
        versions: Versions of what was read for them.
    """

    explanations: Mapping[str, Explanation]
    versions: Mapping[str, str]


def explanations(
    recipe: Recipe, warehouse: Warehouse, method: str, target: str, sample_ids: Sequence[str], n: int
) -> Explained:
    """Why candidates score as they do by a method for a target.

    Of a projection, whose numbers mean nothing by themselves, the strongest neurons that were kept beside it are named.

    Args:
        recipe: The recipe.
        warehouse: Where its outputs are.
        method: The method's name.
        target: A capability, or `all`.
        sample_ids: The candidates.
        n: Most reasons for each.

    Raises:
        WarehouseError: Something has not been made, or with a projection where the recipe has none, or the reverse.
    """
    declared = method_of(recipe, method)
    if ACTIVATIONS in declared.reads:
        with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
            _require(snapshot, projected=recipe.extraction.projection is not None)
        if recipe.extraction.projection:
            return _strongest(recipe, warehouse, recipe.pooling_of(method), target, sample_ids, n)
    fitted = None
    if declared.fit is not None and declared.explains_by_fit:
        with gathered(recipe, warehouse, method, target) as found:
            fitted = declared.fit(found.inputs)
    with gathered(recipe, warehouse, method, target, stream_only=sample_ids) as found:
        inputs = replace(found.inputs, blocks=list(found.inputs.blocks), fitted=fitted)
        known = set(inputs.sample_ids)
        return Explained(
            {name: explained(declared, inputs, name, target, n) for name in sample_ids if name in known},
            dict(found.versions),
        )


def explained_by(recipe: Recipe, method: Method) -> list[str]:
    """Keys of what `explanations` reads; empty for a method that says no more than the numbers that were read."""
    if ACTIVATIONS in method.reads and recipe.extraction.projection:
        return [ACTIVATIONS, *([IN_DOMAIN_ACTIVATIONS] if recipe.reads_activations_of_examples else [])]
    return list(recipe.reads_of(method.name)) if method.explain else []


def find_candidate(snapshot: Snapshot, sample_id: str) -> dict[str, Any]:
    """A candidate by a unique beginning of its id, columns of `tables.EXAMPLE`.

    Raises:
        NotFoundError: No candidate has it, or several begin so.
        WarehouseError: The pool has not been materialized.
    """
    pool = snapshot.read(CANDIDATE_POOL).filter(pl.col("sample_id").str.starts_with(sample_id))
    if len(pool) != 1:
        found = f"{len(pool)} samples begin so" if len(pool) else "no candidate has it"
        raise NotFoundError(
            f"sample id {sample_id!r}: {found} in {snapshot.path}. "
            "Ids are in scoring.scores and in every subset's train.jsonl."
        )
    return pool.row(0, named=True)


def explain(
    recipe: Recipe, warehouse: Warehouse, sample_id: str, target: str, n: int, method: str | None = None
) -> str:
    """The text that `nait explain` prints.

    Args:
        recipe: The recipe.
        warehouse: Where its outputs are.
        sample_id: A candidate's id, or the beginning of one.
        target: A capability, or `all`.
        n: Most reasons.
        method: Method whose score is explained; by default the recipe's recommended one.

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
        scores = _scores_of(snapshot, sample["sample_id"], target)
        reason = reason_of(recipe, snapshot, sample["sample_id"])
    lines = [
        f"sample {sample['sample_id']}, row {sample['source_row']} of {one_line(sample['source'])}, topic "
        f"{one_line(sample['topic'])}",
        *([] if reason is None else [f"may not be chosen: {one_line(reason)}"]),
        "",
        f"target {target}",
    ]
    lines += [
        f"  {name:<20} score {score:>12.5f}   rank {rank:>6,} of {n_candidates:,}"
        if unscored is None
        else f"  {name:<20} no score: {unscored}"
        for name, score, rank, n_candidates, unscored in scores
        if name in recipe.methods
    ]
    found = explanations(recipe, warehouse, method, target, [sample["sample_id"]], n).explanations
    lines += ["", *_lines(method, found.get(sample["sample_id"]))]
    return "\n".join([*lines, "", *(_quoted(message) for message in sample["messages"])])


def _quoted(message: dict[str, str]) -> str:
    """A message whose lines cannot be taken for lines of the explanation."""
    return f"[{message['role']}] {message['content']}".replace("\n", "\n  | ")


def _scores_of(snapshot: Snapshot, sample_id: str, target: str) -> list[tuple[Any, ...]]:
    query = """
        SELECT method, score, rank, n_candidates, reason FROM (
            SELECT *, count(*) OVER (PARTITION BY method) AS n_candidates FROM scoring.scores WHERE target = ?
        ) WHERE sample_id = ? ORDER BY method
    """
    if not snapshot.has_table("scoring.scores"):
        return []
    return snapshot.connection.execute(query, [target, sample_id]).fetchall()


def _lines(method: str, explanation: Explanation | None) -> list[str]:
    if explanation is None:
        return [f"{method}: nothing was read of it"]
    width = max((len(reason.label) for reason in explanation.reasons), default=0)
    return [
        f"{method}: {explanation.heading}",
        *(f"  {reason.label:<{width}}  {reason.detail}" for reason in explanation.reasons),
    ]


def _require(snapshot: Snapshot, projected: bool) -> None:
    if (activation_table.layers_of(snapshot) == [NETWORK]) != projected:
        raise WarehouseError(
            f"{snapshot.path} holds {'neurons' if projected else 'projections'}, and the recipe's "
            f"`extraction.projection` asks for {'projections' if projected else 'neurons'}. `nait run` makes them."
        )


def shared_strength(sample: pl.DataFrame, examples: pl.DataFrame, n: int) -> pl.DataFrame:
    """A sample's strongest neurons, those first that are strong in the target's examples in the same direction.

    Args:
        sample: Columns `layer`, `neuron`, `value`.
        examples: The strongest neurons of the target's in-domain examples, with `sample_id`.
        n: How many neurons.

    Returns:
        Columns `layer`, `neuron`, `value`, `n_examples` that have it among their strongest, `mean_value` there (0
        where it is not), ordered by the product of `value` and the sum over examples.
    """
    among = examples.group_by("layer", "neuron").agg(
        n_examples=pl.col("sample_id").n_unique(), mean_value=pl.col("value").mean(), total=pl.col("value").sum()
    )
    joined = sample.join(among, on=["layer", "neuron"], how="left").with_columns(
        pl.col("n_examples", "mean_value", "total").fill_null(0)
    )
    ordered = joined.sort(
        [pl.col("value") * pl.col("total"), pl.col("value").abs(), "layer", "neuron"],
        descending=[True, True, False, False],
    )
    return ordered.select("layer", "neuron", "value", "n_examples", "mean_value").head(n)


def _strongest(
    recipe: Recipe, warehouse: Warehouse, pooling: Pooling, target: str, sample_ids: Sequence[str], n: int
) -> Explained:
    """The strongest neurons of candidates, those first that the target's examples share."""
    parts: list[pl.DataFrame] = []
    versions: dict[str, str] = {}
    for capability in recipe.capabilities_of(target):
        if recipe.capability_named(capability).examples:  # a feature file has no examples
            with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
                _require(snapshot, projected=True)
                snapshot.note(IN_DOMAIN_ACTIVATIONS, capability)
                parts.append(activation_table.strongest_neurons(snapshot, pooling=pooling))
                versions |= snapshot.inputs
    with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
        snapshot.note(ACTIVATIONS)
        versions |= snapshot.inputs
        samples = {name: activation_table.strongest_neurons(snapshot, name, pooling) for name in sample_ids}
    found = {
        name: _strongest_reasons(sample, pl.concat([sample.clear(), *parts]), n)
        for name, sample in samples.items()
        if not sample.is_empty()
    }
    return Explained(found, versions)


def _strongest_reasons(sample: pl.DataFrame, examples: pl.DataFrame, n: int) -> Explanation:
    n_examples = examples["sample_id"].n_unique()
    among = f"{n_examples} examples" if n_examples else "no examples: the target comes from a feature file"
    reasons = [
        Reason(
            f"{row['layer']}:{row['neuron']}",
            f"{row['value']:+.2f} sd here, among the strongest of {row['n_examples']} of {among}"
            + (f", {row['mean_value']:+.2f} sd there" if row["n_examples"] else ""),
        )
        for row in shared_strength(sample, examples, n).iter_rows(named=True)
    ]
    return Explanation("its strongest neurons (layer:neuron, against the calibration sample)", reasons)
