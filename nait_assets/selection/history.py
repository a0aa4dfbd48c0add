"""The versions that a subset has had: which rows, when, and from what. The table only ever grows."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from nait_assets.lineage import Record
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import SUBSET_HISTORY

OWN = "selection"
"""Of a version's lineage, the entry of the subset itself: `code_version`, and `settings`, fields of the recipe by which
it was chosen, by name. Versions of before this was recorded have none."""


def versions(snapshot: Snapshot, method: str, target: str, ratio: str) -> pl.DataFrame:
    """Versions of a subset, the oldest first, columns of `tables.SUBSET_HISTORY`; none before it was first made."""
    if not snapshot.has_table(SUBSET_HISTORY.name):
        return SUBSET_HISTORY.columns.to_frame()
    return snapshot.rows(SUBSET_HISTORY, method=method, target=target, ratio=ratio).sort("number")


def append(
    transaction: Transaction,
    record: Record,
    method: str,
    target: str,
    ratio: str,
    chosen: pl.DataFrame,
    lineage: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Add a version, unless it is the latest one over again.

    Args:
        transaction: Transaction in which the subset is written.
        record: Record of the subset.
        method: Method that scored the candidates.
        target: Target that they were selected for.
        ratio: Share of the pool.
        chosen: The subset's rows, best first.
        lineage: Every output that it rests on, as `lineage.upstream` gives it.
        settings: Fields of the recipe by which the rows were chosen, by name.
    """
    own = {"code_version": record.code_version, "settings": settings}
    stored = json.dumps({**lineage, OWN: own}, sort_keys=True)
    known = versions(transaction, method, target, ratio)
    if known.tail(1).select("data_version", "lineage").rows() == [(record.data_version, stored)]:
        return
    row = {
        "number": len(known) + 1,
        "data_version": record.data_version,
        "made_at": record.made_at,
        "run_id": record.run_id,
        "sample_ids": chosen["sample_id"].to_list(),
        "lineage": stored,
    }
    transaction.append(
        SUBSET_HISTORY, pl.DataFrame([row], SUBSET_HISTORY.written_columns), method=method, target=target, ratio=ratio
    )
