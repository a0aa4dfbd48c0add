"""A subset beside others: what it gained and lost since it was last made, and what it shares with other targets'."""

from collections.abc import Collection, Mapping

import polars as pl

from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import SUBSETS


def overlap(one: Collection[str], other: Collection[str]) -> float:
    """Rows that two selections share, over the rows of the smaller one; 0 where it has none."""
    smaller = min(len(one), len(other))
    return len(set(one) & set(other)) / smaller if smaller else 0.0


def stored_subsets(snapshot: Snapshot, method: str, ratio: str, targets: Collection[str]) -> dict[str, list[str]]:
    """The subsets that there are of a method and ratio: sample ids, best first, by target.

    Args:
        snapshot: snapshot of the warehouse's tables.
        method: method whose ranking they are taken from.
        ratio: share of the pool.
        targets: targets of the recipe: a home may have subsets of others, which nobody makes any more.
    """
    if not snapshot.has_table(SUBSETS.name):
        return {}
    query = f"""
        SELECT target, list(sample_id ORDER BY rank) FROM {SUBSETS.name}
        WHERE method = ? AND ratio = ? GROUP BY target ORDER BY target
    """
    stored = dict(snapshot.connection.execute(query, [method, ratio]).fetchall())
    return {target: rows for target, rows in stored.items() if target in targets}


def changes(before: Collection[str] | None, now: Collection[str]) -> dict[str, float]:
    """Numbers of a subset's change; empty where there was none before, as all rows are new then and none was gained."""
    if before is None:
        return {}
    return {
        "n_rows_gained": float(len(set(now) - set(before))),
        "n_rows_lost": float(len(set(before) - set(now))),
        "overlap_with_previous": overlap(before, now),
    }


def overlaps(chosen: Collection[str], others: Mapping[str, Collection[str]]) -> pl.DataFrame:
    """What a subset shares with each of some others: columns `target`, `n_shared`, `overlap`, the largest first."""
    rows = [(target, len(set(chosen) & set(rows)), overlap(chosen, rows)) for target, rows in others.items()]
    frame = pl.DataFrame(rows, {"target": pl.String, "n_shared": pl.Int64, "overlap": pl.Float64}, orient="row")
    return frame.sort("overlap", "target", descending=[True, False])
