"""Outputs of the scoring: a table of scores of every method."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import Table, scores_table

THRESHOLDS = Table(
    "scoring.thresholds",
    pl.Schema(
        {
            "method": pl.String(),
            "target": pl.String(),
            "by_chance": pl.Float64(),
            "n_judged": pl.Int64(),
            "of_examples": pl.Float64(),
            "n_examples": pl.Int64(),
        }
    ),
    ("method", "target"),
    ("method", "target"),
)
"""What a target's scores are held against (`scoring.chance`), of the methods for which that is defined; null where it
is not for the target."""


@dataclass(frozen=True, eq=False)
class ScoresOutput(Output):
    """The scores of a method, and beside them what they are held against, of the methods for which that is defined.

    Attributes:
        method: Method that scores.
    """

    method: str = ""

    def stored_beside(self, snapshot: Snapshot, partition: str) -> Sequence[pl.DataFrame]:  # noqa: D102
        rows = thresholds_of(snapshot, self.method, partition)
        return () if rows.is_empty() else (rows.select(list(THRESHOLDS.written_columns)),)

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:  # noqa: D102
        super().discard(recipe, warehouse, tables, partition)
        put_thresholds(tables, self.method, partition, ())


def thresholds_of(snapshot: Snapshot, method: str, target: str) -> pl.DataFrame:
    """The row of `THRESHOLDS` of a method's scores, or none; the scores' data version covers it."""
    if not snapshot.has_table(THRESHOLDS.name):
        return THRESHOLDS.columns.to_frame()
    return snapshot.rows(THRESHOLDS, method=method, target=target)


def put_thresholds(tables: Transaction, method: str, target: str, rows: Sequence[pl.DataFrame]) -> None:
    """Make the row of `THRESHOLDS` be this one, or none: a name may have stood for a method that had one before."""
    if tables.has_table(THRESHOLDS.name):
        tables.delete(THRESHOLDS, method=method, target=target)
    for frame in rows:
        tables.append(THRESHOLDS, frame, method=method, target=target)


def scores_output(method: str) -> Output:
    """The scores of a method."""
    table = scores_table(method)
    return ScoresOutput(table.asset, "target", table, method=method)


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the scoring of a recipe."""
    return [scores_output(method) for method in recipe.methods]


def output_named(key: str) -> Output | None:
    """The scores of a method that a recipe may no longer have, by their key."""
    begin, _, end = scores_output("*").key.partition("*")
    return scores_output(key[len(begin) : -len(end)]) if key.startswith(begin) and key.endswith(end) else None
