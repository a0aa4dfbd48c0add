"""The rows of a subset: those that the method's strategy takes from its ranking.

Belongs here: what a strategy is given, which one is called, and what holds for all of them: the size, who may be
chosen, and what becomes of rows that a strategy leaves open. Does not belong here: the strategies (`strategies`), and
the subset's folder (`subset`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.errors import RecipeError
from nait_assets.measurements.catalogue import MEASUREMENTS
from nait_assets.measurements.engine import Measurement, rows_of
from nait_assets.recipe import POOL, Strategy, rounded_up
from nait_assets.resources import Warehouse
from nait_assets.scoring.latest import Latest
from nait_assets.selection.strategies import orders
from nait_assets.selection.strategies.coverage import facility_location
from nait_assets.selection.strategies.diversity import diverse
from nait_assets.selection.strategies.lengths import length_matched
from nait_assets.selection.strategies.similarity import Vectors, measurement_vectors, text_vectors
from nait_assets.selection.turns import turns_sentence
from nait_assets.tables import CANDIDATE_POOL, N_CHARACTERS, Table

ORDERS: dict[str, Callable[[pl.DataFrame], np.ndarray]] = {
    "top": orders.top,
    "round_robin_examples": orders.round_robin_examples,
    "round_robin_targets": orders.round_robin_targets,
    "union": orders.union,
    "median": orders.median,
}
_ORDER_COLUMNS = {
    "round_robin_examples": ("turn",),
    "round_robin_targets": ("target_turn", "whose_turn"),
    "union": ("best_rank",),
}
NOT_CONTAINED = {"facility_location"}
"""Strategies whose smaller subsets need not lie in the larger ones."""
TEXT = "text"


@dataclass(frozen=True)
class Material:
    """What a strategy looks at beside the ranking, of the strategies that do.

    Attributes:
        lengths: Characters of the candidates' messages, by `sample_id`.
        vectors: Vectors of the candidates.
        inputs: Versions of what was read for it, beside the pool.
    """

    lengths: Mapping[str, int] | None = None
    vectors: Vectors | None = None
    inputs: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Budget:
    """Tokens that a subset may have at most.

    Attributes:
        tokens: Their number.
        of: Tokens of each candidate that the model read, by `sample_id`; the others cannot be chosen.
    """

    tokens: int
    of: Mapping[str, int]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        rows: Columns `sample_id`, `score`, `rank`, the best rank first.
        n_wanted: Rows that the ratio asks for; fewer are chosen where fewer have a score.
        n_filled_up: Rows of the best ranks that were added, since the strategy took fewer than there could be.
        n_too_low: Candidates that could not be chosen because their score is below `min_score`.
        n_tokens: Tokens of the rows, where there is a budget.
        is_cut: Whether the budget leaves out rows that the ratio asks for.
    """

    rows: pl.DataFrame
    n_wanted: int
    n_filled_up: int
    n_too_low: int = 0
    n_tokens: int | None = None
    is_cut: bool = False


def columns_read(strategy: Strategy) -> list[str]:
    """Columns of the scores that a strategy looks at."""
    return ["sample_id", "score", "rank", *_ORDER_COLUMNS.get(strategy.name, ())]


def chosen_rows(
    scores: pl.DataFrame,
    ratio: str,
    dropped: Collection[str] = (),
    strategy: Strategy | None = None,
    material: Material | None = None,
    budget: Budget | None = None,
) -> Choice:
    """The ceil(ratio x N) rows that a strategy takes, the best ranks by default (arXiv 2603.13201, eq. 6).

    With a budget, as many of them, in the order in which the strategy takes them, as it has room for.

    Args:
        scores: Scores of N candidates; those without a score are never chosen, and count among the N.
        ratio: Share of them to keep.
        dropped: Ids of candidates that no subset takes; they do not count among the N.
        strategy: How to choose; a score below its `min_score` is as none.
        material: What the strategy looks at beside the scores.
        budget: Tokens that they may have.
    """
    eligible = scores.filter(~pl.col("sample_id").is_in(list(dropped)))
    strategy = strategy or Strategy()
    scored = eligible.filter(pl.col("rank").is_not_null()).sort("rank")
    ranking = scored if strategy.min_score is None else scored.filter(pl.col("score") >= strategy.min_score)
    n_too_low = len(scored) - len(ranking)
    if budget is not None:
        ranking = ranking.filter(pl.col("sample_id").is_in(list(budget.of)))
    n_wanted = rounded_up(ratio, len(eligible))
    size = min(n_wanted, len(ranking))
    taken = _taken(ranking, size, strategy, material or Material())[:size]
    left = np.setdiff1d(np.arange(len(ranking)), taken)
    order = np.concatenate([taken, left[: size - len(taken)]])
    n_tokens = None
    if budget is not None:
        totals = np.cumsum([budget.of[name] for name in ranking[order]["sample_id"].to_list()], dtype=np.int64)
        order = order[totals <= budget.tokens]
        n_tokens = int(totals[len(order) - 1]) if len(order) else 0
    rows = ranking[np.sort(order)].select("sample_id", "score", "rank")
    return Choice(rows, n_wanted, max(0, len(order) - len(taken)), n_too_low, n_tokens, len(order) < size)


def _taken(ranking: pl.DataFrame, size: int, strategy: Strategy, material: Material) -> np.ndarray:
    """Places in a ranking that a strategy takes, in the order in which it does; `(size,)`, or more or fewer."""
    settings = strategy.settings
    if not size:
        return np.empty(0, dtype=np.int64)
    if strategy.name in ORDERS:
        return ORDERS[strategy.name](ranking)
    names = ranking["sample_id"].to_list()
    if strategy.name == "length_matched":
        assert material.lengths is not None, "no lengths were read"
        return length_matched(np.asarray([material.lengths[name] for name in names]), settings["n_bins"], size)
    assert material.vectors is not None, "no vectors were read"
    known = [place for place, name in enumerate(names) if name in material.vectors.places]
    if strategy.name == "facility_location":
        known = known[: settings["pool_factor"] * size]
    ground = material.vectors.of([names[place] for place in known])
    if strategy.name == "facility_location":
        return np.asarray(known, dtype=np.int64)[facility_location(ground, min(size, len(known)))]
    return np.asarray(known, dtype=np.int64)[diverse(ground, settings["similarity_limit"], size)]


def gather(strategy: Strategy, warehouse: Warehouse, version: str, latest: Latest[Vectors]) -> Material:
    """What a strategy looks at beside the ranking.

    Args:
        strategy: Strategy that chooses.
        warehouse: Warehouse that holds the pool and measurements.
        version: Version of the pool.
        latest: vectors that an earlier subset was chosen by.

    Raises:
        WarehouseError: A measurement has not been made.
    """
    by = strategy.settings.get("by")
    texts = CANDIDATE_POOL.only("sample_id", "messages")
    if strategy.name == "length_matched":
        with warehouse.tables.snapshot() as tables:
            lengths = tables.reduced(texts, {"sample_id": pl.col("sample_id"), "length": N_CHARACTERS})
        return Material(lengths=dict(lengths.iter_rows()))
    if by is None:
        return Material()
    if by == TEXT:
        return Material(vectors=latest.of(by, (warehouse.home, version), lambda: text_vectors(_read(warehouse, texts))))
    measurement, column = measurement_of(by)
    rows, inputs = rows_of(warehouse, measurement, POOL)
    of_pool = rows.join(_read(warehouse, CANDIDATE_POOL.only("sample_id")), on="sample_id", how="semi")
    vectors = latest.of(by, (warehouse.home, version, inputs), lambda: measurement_vectors(of_pool, column))
    return Material(vectors=vectors, inputs=inputs)


def _read(warehouse: Warehouse, table: Table) -> pl.DataFrame:
    with warehouse.tables.snapshot() as tables:
        return tables.read(table)


def read_beside_pool(strategies: Iterable[Strategy]) -> list[str]:
    """Keys of the assets that strategies read beside the ranking and the pool.

    Raises:
        RecipeError: There is no such measurement, or it has no vectors.
    """
    named = {str(strategy.settings.get("by", TEXT)) for strategy in strategies} - {TEXT}
    return [measurement_of(by)[0].candidates.asset for by in sorted(named)]


def in_order(scores: pl.DataFrame, strategy: Strategy) -> pl.DataFrame:
    """Scores whose `rank` is the place at which a strategy takes them; as they are by one that orders no candidates.

    Args:
        scores: Columns of a method's scores for a target.
        strategy: How rows are chosen.
    """
    if strategy.name not in ORDERS:
        return scores
    ranking = scores.filter(pl.col("rank").is_not_null()).sort("rank")
    ordered = ranking[ORDERS[strategy.name](ranking)].with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    return pl.concat([ordered, scores.filter(pl.col("rank").is_null())])


def measurement_of(by: str) -> tuple[Measurement, str]:
    """The measurement that `by` names, `<measurement>` or `<measurement>.<column>`, and its column of vectors.

    Raises:
        RecipeError: There is none, or `by` names several columns.
    """
    with_vectors = {
        (measurement.name, column): measurement
        for measurement in MEASUREMENTS
        for column, kind in measurement.columns.items()
        if isinstance(kind, pl.List | pl.Array) and kind.inner in (pl.Float32, pl.Float64)
        if "indices" not in measurement.columns  # of a sparse vector, whose values stand at other places in each row
    }
    name, _, column = by.partition(".")
    found = [key for key in with_vectors if key[0] == name and column in ("", key[1])]
    if len(found) != 1:
        known = [TEXT, *sorted(f"{measurement}.{vectors}" for measurement, vectors in with_vectors)]
        what = "several columns of vectors" if found else "no measurement with vectors"
        raise RecipeError(f"selection: by: {by!r} names {what}; there are {', '.join(known)}")
    return with_vectors[found[0]], found[0][1]


def sentence(
    strategy: Strategy, ratio: str, choice: Choice, ground: str = "the pool", turns: Mapping[str, int] | None = None
) -> str:
    """How a subset was taken, for its card; of one by turns, how many rows were taken in the turn of each target."""
    fields = {name: value for name, value in strategy.settings.items() if name != "strategy"}
    with_fields = f" ({', '.join(f'{name} {value}' for name, value in fields.items())})" if fields else ""
    said = [
        f"The best {ratio} of {ground}"
        if strategy.name == "top"
        else f"{ratio} of {ground}, which the strategy `{strategy.name}`{with_fields} took from the ranking"
    ]
    if turns:
        said.append(f"The capabilities took turns, each its best row not yet taken: {turns_sentence(turns)}")
    if choice.is_cut:
        said.append(
            f"The budget of tokens ends it at {len(choice.rows):,} of {choice.n_wanted:,} rows, with "
            f"{choice.n_tokens:,} tokens as the model read them"
        )
    elif len(choice.rows) < choice.n_wanted:
        enough = f" of {strategy.min_score:g} or more" if choice.n_too_low else ""
        said.append(f"{choice.n_wanted} rows were asked for, and only {len(choice.rows)} have a score{enough}")
    if choice.n_filled_up:
        said.append(f"{choice.n_filled_up} rows of the best ranks fill it up, as the strategy took no more")
    return ". ".join(said)
