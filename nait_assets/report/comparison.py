"""The methods side by side: what each costs, what it shares with the others, with length, and with published choices.

Belongs here: arithmetic on scores, subsets and records. Does not belong here: how the page shows it (`sections`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import polars as pl

from nait_assets import lineage
from nait_assets.lineage import Record
from nait_assets.models.cost import Cost
from nait_assets.recipe import Prices, fingerprint
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.correlation import rank_correlation
from nait_assets.selection.comparison import overlap
from nait_assets.tables import (
    METHOD_COSTS,
    METHOD_LENGTHS,
    METHOD_OVERLAPS,
    METHOD_REPRODUCTIONS,
    METHOD_RETRIEVALS,
    Table,
    content_version,
)

METHOD_PRICES = Table(
    "report.cost",
    pl.Schema(
        {
            "method": pl.String(),
            "seconds": pl.Float64(),
            "n_tokens": pl.Int64(),
            "n_calls": pl.Int64(),
            "money": pl.Float64(),
            "pool_size": pl.Int64(),
            "scaled_to": pl.Int64(),
            "scaled_seconds": pl.Float64(),
            "scaled_money": pl.Float64(),
        }
    ),
    (),
    ("method",),
)
"""Measured where it ran; `scaled_` is that times `scaled_to / pool_size`, an estimate."""

STORED = (METHOD_COSTS, METHOD_OVERLAPS, METHOD_LENGTHS, METHOD_RETRIEVALS, METHOD_REPRODUCTIONS)
"""Tables of a comparison, in the order of its attributes."""


@dataclass(frozen=True)
class Comparison:
    """The methods of a recipe side by side.

    Attributes:
        costs: Columns of `METHOD_COSTS`.
        overlaps: Rows of `METHOD_OVERLAPS`.
        lengths: Rows of `METHOD_LENGTHS`.
        retrievals: Rows of `METHOD_RETRIEVALS`; empty where no candidate has a capability's name as its topic.
        reproductions: Rows of `METHOD_REPRODUCTIONS`; empty where no method is a published list.
    """

    costs: pl.DataFrame
    overlaps: pl.DataFrame
    lengths: pl.DataFrame
    retrievals: pl.DataFrame
    reproductions: pl.DataFrame

    def tables(self) -> list[tuple[Table, pl.DataFrame]]:
        """Each frame with the table that it is stored in."""
        frames = (self.costs, self.overlaps, self.lengths, self.retrievals, self.reproductions)
        return list(zip(STORED, frames, strict=True))

    @property
    def data_version(self) -> str:
        """Hash of all but the costs: the same scores are the same comparison, however long they took this time."""
        return fingerprint([content_version(frame, table.key) for table, frame in self.tables()[1:]])

    @classmethod
    def stored(cls, snapshot: Snapshot) -> "Comparison":
        """As the asset wrote it."""
        return cls(*(snapshot.rows(table) for table in STORED))


def costs(
    spent: Mapping[str, Cost], records: Mapping[str, Record], scores: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """What each method's scores and all that they rest on have taken, columns of `METHOD_COSTS`.

    An output that serves several methods is counted for each; `shared_seconds` says how much of the time that is.

    Args:
        spent: By output, as `lineage.reference` names it.
        records: By output.
        scores: By method, the outputs that are its scores.
    """
    rests_on = {
        method: {*outputs, *lineage.upstream(records, outputs)} & set(spent) for method, outputs in scores.items()
    }
    rows = []
    for method, outputs in rests_on.items():
        others = set().union(*(outputs for other, outputs in rests_on.items() if other != method))
        total = sum((spent[name] for name in outputs), Cost())
        shared = sum(spent[name].seconds for name in outputs & others)
        rows.append({"method": method, **vars(total), "shared_seconds": float(shared)})
    return pl.DataFrame(rows, schema=METHOD_COSTS.columns)


def overlaps(subsets: Mapping[tuple[str, str, str], Collection[str]], n_candidates: int) -> pl.DataFrame:
    """What every two methods' subsets of a target and ratio share, columns of `METHOD_OVERLAPS`.

    Args:
        subsets: Sample ids by method, target and ratio.
        n_candidates: Size of the pool: two random subsets of a and b rows share a x b / n of them.
    """
    cells = sorted({(target, ratio) for _, target, ratio in subsets})
    rows = []
    for target, ratio in cells:
        chosen = {method: rows for (method, *cell), rows in subsets.items() if tuple(cell) == (target, ratio)}
        for one, other in combinations(sorted(chosen), 2):  # whatever their order in the recipe
            smaller, larger = sorted((len(chosen[one]), len(chosen[other])))
            by_chance = larger / n_candidates if smaller else 0.0
            rows.append((target, ratio, one, other, overlap(chosen[one], chosen[other]), by_chance))
    return pl.DataFrame(rows, schema=METHOD_OVERLAPS.columns, orient="row")


def lengths(
    scores: Mapping[tuple[str, str], pl.DataFrame],
    subsets: Mapping[tuple[str, str, str], Collection[str]],
    characters: pl.DataFrame,
) -> pl.DataFrame:
    """How much of each method is length, columns of `METHOD_LENGTHS`.

    Args:
        scores: By method and target: columns `sample_id`, `score`, null for a candidate without a score.
        subsets: Sample ids by method, target and ratio.
        characters: Columns `sample_id` and `length` of every candidate.
    """
    of_pool = float(characters["length"].median() or 0)  # type: ignore[arg-type]
    rows = []
    for method, target in sorted({(method, target) for method, target, _ in subsets}):
        scored = scores[method, target].select("sample_id", "score").drop_nulls("score")
        scored = scored.join(characters, on="sample_id").sort("sample_id")  # rounding depends on the order
        correlation = rank_correlation(scored)
        for ratio in sorted(ratio for one, other, ratio in subsets if (one, other) == (method, target)):
            chosen = pl.DataFrame({"sample_id": list(subsets[method, target, ratio])}, {"sample_id": pl.String})
            of_subset = characters.join(chosen, on="sample_id", how="semi")["length"].median()
            rows.append((method, target, ratio, correlation, float(of_subset or 0), of_pool))  # type: ignore[arg-type]
    return pl.DataFrame(rows, schema=METHOD_LENGTHS.columns, orient="row")


def retrievals(
    scores: Mapping[tuple[str, str], pl.DataFrame], topics: pl.DataFrame, capabilities: Iterable[str]
) -> pl.DataFrame:
    """Whether each method puts the candidates of a capability's own topic first, columns of `METHOD_RETRIEVALS`.

    A candidate without a score counts as ranked last. Topics are labels that no method reads but the control
    `balanced_random`.

    Args:
        scores: By method and target: columns `sample_id`, `rank`.
        topics: Columns `sample_id` and `topic` of every candidate.
        capabilities: Those that no candidate has as its topic are left out.
    """
    labels = set(topics["topic"].unique().to_list()) & set(capabilities)
    rows = [
        (method, target, *retrieval(scores[method, target], topics.filter(topic=target)["sample_id"]))
        for method, target in sorted(scores)
        if target in labels
    ]
    return pl.DataFrame(rows, schema=METHOD_RETRIEVALS.columns, orient="row")


def retrieval(scores: pl.DataFrame, wanted: pl.Series) -> tuple[float, float, int]:
    """Area under the ROC curve of finding some candidates, precision among as many best rows, and their number.

    Args:
        scores: Columns `sample_id`, `rank`; null for a candidate without a score.
        wanted: Ids of those to be found; NaN is returned for the area where all or none of the candidates are.
    """
    from sklearn.metrics import roc_auc_score

    ordered = scores.select("sample_id", "rank").sort("rank", "sample_id", nulls_last=True)
    found = ordered["sample_id"].is_in(wanted.implode()).to_numpy()
    n_wanted = int(found.sum())
    ranks = ordered["rank"].fill_null(len(ordered) + 1).to_numpy()
    area = float(roc_auc_score(found, -ranks)) if 0 < n_wanted < len(found) else float("nan")
    hits = found[:n_wanted] & ordered["rank"].is_not_null().to_numpy()[:n_wanted]
    return area, float(hits.mean()) if n_wanted else 0.0, n_wanted


def reproductions(
    scores: Mapping[tuple[str, str], pl.DataFrame],
    published: Collection[str],
    target: str,
    ordered: Callable[[str, pl.DataFrame], pl.DataFrame] = lambda _method, frame: frame,
) -> pl.DataFrame:
    """Each method's best rows against each published list, columns of `METHOD_REPRODUCTIONS`.

    As many best rows as the list has in the pool: by chance they share n_list^2 / n_candidates of them, and
    `p_by_chance` is the probability of sharing at least as many (hypergeometric).

    Args:
        scores: By method and target, of published lists too: columns `sample_id`, `rank`.
        published: Methods that are lists.
        target: Target whose scores are compared.
        ordered: Function from a method and its scores to these with the ranks in which its rows are taken.
    """
    from scipy.stats import hypergeom

    ranked = sorted(method for method, of_target in scores if of_target == target) if published else []
    best: dict[str, tuple[list[str], int]] = {}
    n_listed = {name: scores[name, target]["rank"].drop_nulls().len() for name in published}
    for method in ranked:
        frame = ordered(method, scores[method, target])
        taken = frame.drop_nulls("rank").sort("rank").head(max(n_listed.values()))
        best[method] = taken["sample_id"].to_list(), len(frame)
    rows = []
    for name in sorted(published):
        listed = set(best[name][0][: n_listed[name]])
        for method in ranked:
            if method == name:
                continue
            own, n_pool = best[method][0][: len(listed)], best[method][1]
            n_shared, by_chance = len(listed & set(own)), len(listed) * len(own) / n_pool
            p_value = float(hypergeom.sf(n_shared - 1, n_pool, len(listed), len(own)))
            rows.append((name, method, len(listed), len(own), n_shared, by_chance, p_value))
    return pl.DataFrame(rows, schema=METHOD_REPRODUCTIONS.columns, orient="row")


def priced(costs: pl.DataFrame, prices: Prices, n_candidates: int) -> pl.DataFrame:
    """What each method takes in time and money, columns of `METHOD_PRICES` (table 4 of arXiv 2603.13201).

    Tokens are paid for where an API was called, time everywhere else.

    Args:
        costs: Rows of `METHOD_COSTS`.
        prices: What computing costs.
        n_candidates: Size of the pool on which that was measured.
    """
    wanted = prices.pool_size or n_candidates
    by_calls = pl.col("n_tokens") * prices.million_tokens / 1e6
    money = pl.when(pl.col("n_calls") > 0).then(by_calls).otherwise(pl.col("seconds") * prices.gpu_hour / 3600)
    sizes = {"pool_size": pl.lit(n_candidates), "scaled_to": pl.lit(wanted)}
    found = costs.with_columns(money=money, **sizes)
    scale = wanted / n_candidates
    scaled = found.with_columns(scaled_seconds=pl.col("seconds") * scale, scaled_money=pl.col("money") * scale)
    return scaled.select(list(METHOD_PRICES.columns)).cast(METHOD_PRICES.columns).sort("method")
