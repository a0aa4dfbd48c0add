"""Which candidates no subset may take and nothing may be trained on, and why: one way for all reasons.

Belongs here: what outputs say so, and in which words. Does not belong here: candidates without a score, which their
method knows.
"""

import polars as pl

from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.recipe import Recipe
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import CONTAMINATED_CANDIDATES, Table

INELIGIBLE = pl.Schema({"sample_id": pl.String(), "reason": pl.String()})


def _grounds(recipe: Recipe) -> list[tuple[Table, str]]:
    """Tables of the candidates that a recipe drops, and of each the reason, as SQL over its columns."""
    grounds = []
    if recipe.has_examples and recipe.decontamination.action == "drop":
        leak = "'leaks ' || example_id || ' of ' || corpus || ' (' || match || ')'"
        grounds.append((CONTAMINATED_CANDIDATES, leak))
    if recipe.filters is not None and recipe.filters.action == "drop":
        grounds.append((FILTERED_CANDIDATES, "reason"))
    return grounds


def read_for_eligibility(recipe: Recipe) -> list[str]:
    """Keys of the outputs that say which candidates are ineligible; none where a recipe drops none."""
    return [table.asset for table, _ in _grounds(recipe)]


def ineligible_query(recipe: Recipe, snapshot: Snapshot) -> str:
    """SQL of `sample_id` and `reason`, a row for each ineligible candidate, of those tables that have been made."""
    parts = [
        f"SELECT sample_id, {reason} AS reason FROM {table.name}"
        for table, reason in _grounds(recipe)
        if snapshot.has_table(table.name)
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
