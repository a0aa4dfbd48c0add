"""What a room is: its outputs, and the assets, checks and sensors that make, judge and request them.

Belongs here: the type that each room's `room.py` fills in, and what the assets of all rooms have in common.
Does not belong here: the list of the rooms, which is in `definitions.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage
from nait_assets.automation import when_inputs_change
from nait_assets.catalogue import Output
from nait_assets.checks import AssetChecks
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.spooled_rows import SpooledRows
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import content_version, version_with


def _none(_recipe: Recipe, _partitions: Partitions) -> list[Any]:
    return []


def _no_output(_key: str) -> Output | None:
    return None


def _nothing_stored(_warehouse: Warehouse) -> list[tuple[str, str]]:
    return []


def _no_view(_transaction: Transaction, _recipe: Recipe) -> None:
    return None


def _always(_snapshot: Snapshot, _recipe: Recipe) -> bool:
    return True


@dataclass(frozen=True)
class Room:
    """A stage of the pipeline; its functions take the recipe, and the recipe's partitions.

    Attributes:
        outputs: what the room makes for a recipe, in any order.
        build_assets: the assets that make them; one that is made on demand may be left out again.
        build_checks: checks of the assets.
        build_sensors: sensors that request assets of the room.
        output_named: the output with a key that another recipe has, for what only some recipes have; else None.
        stored_files: keys and partitions of outputs whose files are in a home, whether or not they have a record.
        refresh_views: brings the room's views to what a recipe has, in a transaction on the warehouse's tables.
        views_are_current: whether they show just that.
    """

    outputs: Callable[[Recipe], Sequence[Output]]
    build_assets: Callable[[Recipe, Partitions], Sequence[dg.AssetsDefinition]]
    build_checks: Callable[[Recipe, Partitions], Sequence[AssetChecks]] = _none
    build_sensors: Callable[[Recipe, Partitions], Sequence[dg.SensorDefinition]] = _none
    output_named: Callable[[str], Output | None] = _no_output
    stored_files: Callable[[Warehouse], list[tuple[str, str]]] = _nothing_stored
    refresh_views: Callable[[Transaction, Recipe], None] = _no_view
    views_are_current: Callable[[Snapshot, Recipe], bool] = _always


def asset_arguments(output: Output, partitions: Partitions) -> dict[str, Any]:
    """The arguments of `dg.asset` that follow from the output: key, group, partitions and automation condition."""
    return {
        "key": lineage.asset_key(output.key),
        "group_name": output.room,
        "partitions_def": partitions.of_output(output.partitions),
        "automation_condition": when_inputs_change(),
    }


def write_table(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    output: Output,
    frame: pl.DataFrame | SpooledRows,
    inputs: Mapping[str, str],
    metadata: Mapping[str, object],
    beside: Callable[[Transaction, lineage.Record], object] = lambda _transaction, _record: None,
    covered: Sequence[pl.DataFrame] = (),
) -> dg.MaterializeResult:
    """Write the running asset's rows into its table, with their version record.

    Args:
        context: context of the running asset.
        warehouse: warehouse of the home.
        output: output of the asset, a table of the warehouse.
        frame: rows of the running partition, with the columns that the table has beside those of the partition; more
            than fit in memory as `SpooledRows`.
        inputs: version of everything that was read, by name.
        metadata: what people look at in Dagster, beside the table's name, schema and number of rows.
        beside: function that writes more in the same transaction.
        covered: what of that the data version covers, as `Output.stored_beside` reads it back.
    """
    table = output.table
    assert table is not None, f"{output.key} has no table"
    partition = table.slice_of(lineage.partition_name(context))
    version = content_version(frame, table.key) if isinstance(frame, pl.DataFrame) else ""
    with warehouse.tables.transaction() as transaction:
        transaction.replace(table, frame, **partition)
        version = version or transaction.version(table, **partition)
        record = lineage.record_of(context, version_with(version, *covered), inputs)
        beside(transaction, record)
        record = replace(record, beside=output.beside(warehouse, transaction, record.partition))
        transaction.put_record(record)
    shown = {
        "dagster/table_name": table.name,
        "dagster/row_count": len(frame),
        "dagster/column_schema": lineage.column_schema(frame.schema.to_frame()),
    }
    return lineage.result(record, {**shown, **metadata})
