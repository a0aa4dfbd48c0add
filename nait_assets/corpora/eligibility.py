"""Which candidates no subset may take and nothing may be trained on, and why: one way for all reasons.

Belongs here: what outputs say so, and in which words. Does not belong here: candidates without a score, which their
method knows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.corpora.catalogue import CONTAMINATION_OUTPUT, filtered_output
from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.recipe import Recipe
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import CONTAMINATED_CANDIDATES, Table

INELIGIBLE = pl.Schema({"sample_id": pl.String(), "reason": pl.String()})


@dataclass(frozen=True)
class _Ground:
    """A table of candidates that may be ineligible.

    Attributes:
        output: Output that has the table.
        table: The table.
        reason: SQL expression of the reason, over its columns.
        drops: Whether a recipe drops what is in it; else it only reports it.
    """

    output: Callable[[Recipe], Output | None]
    table: Table
    reason: str
    drops: Callable[[Recipe], bool]


GROUNDS = (
    _Ground(
        lambda recipe: CONTAMINATION_OUTPUT if recipe.has_examples else None,
        CONTAMINATED_CANDIDATES,
        "'leaks ' || example_id || ' of ' || corpus || ' (' || match || ')'",
        lambda recipe: recipe.decontamination.action == "drop",
    ),
    _Ground(
        filtered_output,
        FILTERED_CANDIDATES,
        "reason",
        lambda recipe: recipe.filters is not None and recipe.filters.action == "drop",
    ),
)


def _of(recipe: Recipe) -> list[tuple[Output, _Ground]]:
    found = ((ground.output(recipe), ground) for ground in GROUNDS if ground.drops(recipe))
    return [(output, ground) for output, ground in found if output is not None]


def read_for_eligibility(recipe: Recipe) -> list[str]:
    """Keys of the outputs that say which candidates are ineligible; none where a recipe drops none."""
    return [output.key for output, _ in _of(recipe)]


def ineligible_query(recipe: Recipe, snapshot: Snapshot) -> str:
    """SQL of `sample_id` and `reason`, a row for each ineligible candidate, of those tables that have been made."""
    parts = [
        f"SELECT sample_id, {ground.reason} AS reason FROM {ground.table.name}"
        for _, ground in _of(recipe)
        if snapshot.has_table(ground.table.name)
    ]
    if not parts:
        return "SELECT NULL::VARCHAR AS sample_id, NULL::VARCHAR AS reason WHERE false"
    together = "string_agg(DISTINCT reason, '; ' ORDER BY reason)"
    return f"SELECT sample_id, {together} AS reason FROM ({' UNION ALL '.join(parts)}) GROUP BY sample_id"


def ineligible(recipe: Recipe, snapshot: Snapshot) -> pl.DataFrame:
    """The candidates that no subset may take, columns of `INELIGIBLE`; what was read is noted.

    Raises:
        WarehouseError: What says so has not been made.
    """
    for key in read_for_eligibility(recipe):
        snapshot.note(key)
    return snapshot.connection.sql(ineligible_query(recipe, snapshot)).pl().cast(INELIGIBLE)


def reason_of(recipe: Recipe, snapshot: Snapshot, sample_id: str) -> str | None:
    """Why a candidate may not be chosen; None if it may, as far as is known. Nothing is noted."""
    query = f"SELECT reason FROM ({ineligible_query(recipe, snapshot)}) WHERE sample_id = ?"
    row = snapshot.connection.execute(query, [sample_id]).fetchone()
    return None if row is None else str(row[0])
