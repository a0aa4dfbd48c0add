"""Where a candidate stands against a subset: chosen or not, by how much, and which row came in its place.

Belongs here: a stored subset, and the ranking that it was taken from, looked at for one candidate. Does not belong
here: how rows are chosen (`choice`), and what their scores are made of (`scoring.explanation`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from nait_assets.corpora.eligibility import ineligible_query
from nait_assets.extraction import activation_table
from nait_assets.lineage import reference
from nait_assets.recipe import POOL, Recipe, Strategy, rounded_up
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.latest import Latest
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import ORDERS, Material, gather
from nait_assets.selection.chosen import beside
from nait_assets.selection.strategies.diversity import diverse
from nait_assets.selection.strategies.lengths import bins_of
from nait_assets.selection.strategies.similarity import ONE
from nait_assets.selection.turns import takes_turns
from nait_assets.tables import CANDIDATE_POOL, SUBSETS, scores_table

OUTDATED = "the subset is older than these scores: `nait run`"
FILLED_UP = "it fills up the subset, as the strategy takes no more"


@dataclass(frozen=True)
class Placing:
    """Where a candidate stands against the subset of one ratio.

    Attributes:
        ratio: Share of the pool.
        chosen: Whether the subset has it.
        n_chosen: Rows of the subset.
        says: Why it was chosen or not, in words.
        last: `sample_id` of the last row that was taken, by what decided: for a candidate that was not chosen, the row
            that came in its place. None where nothing decided between them.
        margin: Its score less that of `last`, in units of the score; None where there is no such row.
        deviations: The margin in standard deviations of the scores that were chosen from.
        scored_for: Target of these scores where it is not the subset's: the capability in whose turns both stand.
    """

    ratio: str
    chosen: bool
    n_chosen: int
    says: str
    last: str | None = None
    margin: float | None = None
    deviations: float | None = None
    scored_for: str = ""

    @property
    def sentence(self) -> str:
        """All of it but the last row's id."""
        begin = "chosen" if self.chosen else "not chosen"
        if self.margin is None:
            return f"{begin}: {self.says}"
        of = f" for {self.scored_for}" if self.scored_for else ""
        if not self.margin:
            return f"{begin}: {self.says}, and the same score{of}"
        how = f"{abs(self.margin):.5g} {'lower' if self.margin > 0 else 'higher'}"
        scale = f" ({abs(self.deviations):.2f} sd of all scores)" if self.deviations is not None else ""
        return f"{begin}: {self.says}, and a score{of} {how}{scale}"


def placings(recipe: Recipe, warehouse: Warehouse, method: str, target: str, sample_id: str) -> list[Placing]:
    """Where a candidate stands against every subset of a method and target that has been made.

    Raises:
        WarehouseError: The pool has not been made.
    """
    strategy = recipe.strategy_of(method, target)
    with warehouse.tables.snapshot() as tables:
        table = scores_table(method)
        if not (tables.has_table(table.name) and tables.has_table(SUBSETS.name)):
            return []
        tables.note(CANDIDATE_POOL.asset)
        scores = tables.rows(table, target=target)
        left_out = {} if scores.is_empty() else _left_out(tables, recipe, target)
        subsets = {
            ratio: rows.sort("rank")["sample_id"].to_list()
            for ratio in recipe.ratios
            if len(rows := tables.rows(SUBSETS, method=method, target=target, ratio=ratio))
            or reference(subset_output(method).key, f"{target}|{ratio}") in tables.records()
        }
        by_turns = recipe.capability_names if takes_turns(recipe, method, target) else ()
        by_capability = {name: tables.rows(table, target=name) for name in by_turns}
    barred = left_out | _too_low(scores, strategy, target) | _uncounted(recipe, warehouse, scores)
    own = scores.filter(pl.col("sample_id") == sample_id)
    why = barred.get(sample_id) or (_why_without_score(own) if own["rank"].null_count() or own.is_empty() else "")
    if why:
        return [Placing(ratio, False, len(chosen), why) for ratio, chosen in subsets.items()]
    ranking = scores.filter(pl.col("rank").is_not_null() & ~pl.col("sample_id").is_in(list(barred))).sort("rank")
    material = gather(strategy, warehouse, tables.inputs[CANDIDATE_POOL.asset], Latest())
    n_eligible = len(scores.filter(~pl.col("sample_id").is_in(list(left_out))))
    found = []
    for ratio, chosen in subsets.items():
        size = min(rounded_up(ratio, n_eligible), len(ranking))
        if len(chosen) < size and recipe.selection.tokens is None:
            found.append(Placing(ratio, sample_id in chosen, len(chosen), OUTDATED))
        else:
            found.append(placing(ranking, ratio, chosen, strategy, material, sample_id, size, by_capability))
    return found


def _why_without_score(own: pl.DataFrame) -> str:
    return "it came into the pool after these scores were made" if own.is_empty() else f"no score: {own['reason'][0]}"


def _left_out(tables: Snapshot, recipe: Recipe, target: str) -> dict[str, str]:
    """Candidates that no subset may take and no ratio counts, and why."""
    barred: dict[str, str] = {}
    for other in beside(recipe):
        if tables.has_table(scores_table(other).name):
            unscored = tables.rows(scores_table(other), target=target).filter(pl.col("rank").is_null())
            why = f"{other} has no score for it, and `selection.of` is judged"
            barred |= dict.fromkeys(unscored["sample_id"].to_list(), why)
    return barred | dict(tables.connection.execute(ineligible_query(recipe, tables)).fetchall())


def _too_low(scores: pl.DataFrame, strategy: Strategy, target: str) -> dict[str, str]:
    """Candidates with a score that is too low to be chosen."""
    if strategy.min_score is None:
        return {}
    low = scores.filter(pl.col("score") < strategy.min_score).select("sample_id", "score")
    bound = f"is below `min_score` {strategy.min_score:g}"
    return {name: f"its score {score:.5g} for {target} {bound}" for name, score in low.iter_rows()}


def _uncounted(recipe: Recipe, warehouse: Warehouse, scores: pl.DataFrame) -> dict[str, str]:
    """Candidates whose tokens are not known, where there is a budget of tokens."""
    if recipe.selection.tokens is None:
        return {}
    with activation_table.activations_of(warehouse, POOL).snapshot() as stored:
        counted = activation_table.samples(stored)["sample_id"].to_list()
    uncounted = scores.filter(~pl.col("sample_id").is_in(counted))["sample_id"].to_list()
    return dict.fromkeys(uncounted, "the model has not read it, and `selection.tokens` counts what it reads")


def placing(
    ranking: pl.DataFrame,
    ratio: str,
    chosen: Sequence[str],
    strategy: Strategy,
    material: Material,
    sample_id: str,
    size: int | None = None,
    by_capability: Mapping[str, pl.DataFrame] | None = None,
) -> Placing:
    """Where a candidate stands against one subset.

    Args:
        ranking: Scores of the candidates that may be chosen, best rank first, itself among them.
        ratio: Share of the pool.
        chosen: Rows of the subset.
        strategy: Strategy that took them from the ranking.
        material: What the strategy looked at beside the ranking.
        sample_id: The candidate.
        size: Rows that there would be without a budget of tokens; as many as are chosen by default.
        by_capability: Where capabilities take turns, the scores by which each takes its rows.
    """
    names, size = ranking["sample_id"].to_list(), len(chosen) if size is None else size
    place_of = {name: place for place, name in enumerate(names)}
    taken = np.sort(np.asarray([place_of[name] for name in chosen if name in place_of], dtype=np.int64))
    if len(taken) < len(chosen):
        return Placing(ratio, sample_id in chosen, len(chosen), OUTDATED)
    cut = f"`selection.tokens` ends it at {len(chosen):,} of {size:,} rows" if len(chosen) < size else ""
    if not chosen:
        return Placing(ratio, False, 0, cut or OUTDATED)
    look = _Look(ranking, taken, strategy.settings, material, place_of[sample_id], size)
    if strategy.name in ORDERS:
        says, last = look.by_order(strategy.name)
    else:
        says, last = LOOKS[strategy.name](look)
    says = f"{says} ({cut})" if cut else says
    if last is None:
        return Placing(ratio, look.is_taken, len(chosen), says)
    whose = look.whose if strategy.name == "round_robin_targets" and look.whose in (by_capability or {}) else ""
    scores = ranking.select("sample_id", "score")
    if whose and by_capability:
        own = by_capability[whose].select("sample_id", "score")
        scores = scores.select("sample_id").join(own, on="sample_id", how="left", maintain_order="left")
    values = scores["score"].to_numpy()
    margin, spread = float(values[look.place] - values[last]), float(np.nanstd(values))
    deviations = margin / spread if spread else None
    return Placing(ratio, look.is_taken, len(chosen), says, names[last], margin, deviations, whose)


@dataclass(frozen=True)
class _Look:
    """A ranking, what was taken from it, and one place in it.

    Attributes:
        ranking: As for `placing`.
        taken: Places of the subset's rows in it, ascending.
        settings: The strategy and its fields.
        material: As for `placing`.
        place: The candidate's.
        size: Rows that were wanted of the strategy.
    """

    ranking: pl.DataFrame
    taken: np.ndarray
    settings: Mapping[str, Any]
    material: Material
    place: int
    size: int

    @property
    def is_taken(self) -> bool:
        return bool(np.isin(self.place, self.taken))

    @property
    def whose(self) -> str:
        """The capability in whose turn it is taken; "" where none takes turns."""
        return str(self.ranking["whose_turn"][self.place] or "")

    def rank(self, place: int) -> str:
        return f"rank {self.ranking['rank'][int(place)]:,}"

    def by_order(self, name: str) -> tuple[str, int | None]:
        """Of a strategy that orders the candidates and takes the first ones."""
        order = ORDERS[name](self.ranking)[: len(self.taken)]
        if set(order.tolist()) != set(self.taken.tolist()):
            return OUTDATED, None
        if name == "round_robin_targets" and self.whose:
            return self._by_turns()
        last = int(order[-1])
        own, others = (self._counted(name, place) for place in (self.place, last))
        if self.place == last:
            return f"{own}, the last of {len(self.taken):,} that are taken", None
        return f"{own}; the last of {len(self.taken):,} that are taken has {others}", last

    def _by_turns(self) -> tuple[str, int | None]:
        """Of capabilities that take turns: a row is compared with those that were taken in the turns of its own."""
        own = self.ranking.with_row_index("place").filter(pl.col("whose_turn") == self.whose).sort("target_turn")
        places = own["place"].to_numpy()
        n_taken = int(np.isin(places, self.taken).sum())
        number = int(np.flatnonzero(places == self.place)[0]) + 1
        says = f"number {number:,} in the turns of {self.whose}"
        if not n_taken:
            return f"{says}, which took none", None
        if number == n_taken:
            return f"{says}, the last of {n_taken:,} that it took", None
        return f"{says}; the last of {n_taken:,} that it took has number {n_taken:,}", int(places[n_taken - 1])

    def _counted(self, name: str, place: int) -> str:
        """What decided of a row, in words."""
        row = self.ranking.row(place, named=True)
        if name == "median":
            away = abs(row["score"] - float(np.median(self.ranking["score"].to_numpy())))
            return f"a score {away:.5f} from the median"
        column, word = {
            "round_robin_examples": ("turn", "turn {} of the examples' turns"),
            "union": ("best_rank", "best rank {} by a capability"),
        }.get(name, ("rank", "rank {}"))
        return self.rank(place) if row[column] is None else word.format(f"{row[column]:,}")

    def by_length(self) -> tuple[str, int | None]:
        """Of a strategy that takes the best of every bin of lengths."""
        assert self.material.lengths is not None, "no lengths were read"
        lengths = np.asarray([self.material.lengths[name] for name in self.ranking["sample_id"].to_list()])
        bins = bins_of(lengths, self.settings["n_bins"])
        alike = np.flatnonzero(bins == bins[self.place])
        taken = alike[np.isin(alike, self.taken)]
        range_ = f"{lengths[alike].min():,} to {lengths[alike].max():,} characters"
        own = f"the best of every length; of {len(alike):,} rows of {range_} it is number "
        own += f"{int(np.searchsorted(alike, self.place)) + 1:,}, and {len(taken):,} are taken"
        if not len(taken) or taken[-1] == self.place:
            return own, None
        return f"{own}; the last of these has {self.rank(taken[-1])}", int(taken[-1])

    def by_likeness(self) -> tuple[str, int | None]:
        """Of a strategy that skips what is too like a better row, `diverse`."""
        limit, taken = self.settings["similarity_limit"], self._unlike_each_other()
        if self.place in taken:
            return f"{self.rank(self.place)}, and not too like a better one of those that are taken", None
        if self.is_taken:
            return f"{self.rank(self.place)}; {FILLED_UP}", None
        nearest, cosine = self._most_alike(taken[taken < self.place])
        if nearest is not None and cosine > limit:
            return (
                f"too like a better row that is taken: cosine {cosine:.3f}, over {limit}, with {self.rank(nearest)}",
                nearest,
            )
        last = int(self.taken[-1])
        return f"{self.rank(self.place)}; the last of {len(self.taken):,} that are taken has {self.rank(last)}", last

    def _unlike_each_other(self) -> np.ndarray:
        """Places of the taken rows that `diverse` took, without those that fill the subset up."""
        assert self.material.vectors is not None, "no vectors were read"
        names, known = self.ranking["sample_id"].to_list(), self.material.vectors.places
        compared = np.asarray([place for place in self.taken.tolist() if names[place] in known], dtype=np.int64)
        ground = self.material.vectors.of([names[place] for place in compared])
        return compared[diverse(ground, self.settings["similarity_limit"], len(compared))]

    def by_coverage(self) -> tuple[str, int | None]:
        """Of a strategy that takes rows which stand for many others, `facility_location`."""
        considered = self.settings["pool_factor"] * self.size
        if self.is_taken and self.place >= considered:
            return f"{self.rank(self.place)}; {FILLED_UP}", None
        if self.is_taken:
            return f"{self.rank(self.place)}, and it stands for rows that no other one taken is like", None
        if self.place >= considered:
            return f"{self.rank(self.place)}; only the best {considered:,} are considered", int(self.taken[-1])
        nearest, cosine = self._most_alike(self.taken)
        if nearest is None:
            return f"{self.rank(self.place)}, and it has no vector to be compared by", None
        return (
            f"others stand for it; most like it of those that are taken is {self.rank(nearest)}, cosine {cosine:.3f}",
            nearest,
        )

    def _most_alike(self, places: np.ndarray) -> tuple[int | None, float]:
        """Of some places the one most like the candidate, and its cosine; None where there is nothing to compare."""
        assert self.material.vectors is not None, "no vectors were read"
        names, known = self.ranking["sample_id"].to_list(), self.material.vectors.places
        places = np.asarray([place for place in places.tolist() if names[place] in known], dtype=np.int64)
        if not len(places) or names[self.place] not in known:
            return None, 0.0
        ground = self.material.vectors.of([names[self.place], *(names[place] for place in places)])
        cosines = ground.cosines([0], np.arange(1, len(places) + 1))[0]
        return int(places[cosines.argmax()]), float(cosines.max()) / ONE


LOOKS: dict[str, Callable[[_Look], tuple[str, int | None]]] = {
    "length_matched": _Look.by_length,
    "diverse": _Look.by_likeness,
    "facility_location": _Look.by_coverage,
}
"""What decided, in words, and the place of the row that a candidate is compared with, of each other strategy."""


def last_chosen(scores: pl.DataFrame, chosen: Mapping[str, Collection[str]]) -> dict[str, tuple[int, float]]:
    """By ratio, rank and score of the chosen row of the worst rank; none of an empty subset.

    Args:
        scores: Columns `sample_id`, `score`, `rank`, of the candidates that have some.
        chosen: By ratio, rows of the subset.
    """
    found = {}
    for ratio, names in chosen.items():
        rows = scores.filter(pl.col("sample_id").is_in(list(names))).sort("rank")
        if len(rows):
            found[ratio] = (int(rows["rank"][-1]), float(rows["score"][-1]))
    return found
