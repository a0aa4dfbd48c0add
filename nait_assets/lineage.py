"""What every output was made from: the version record, and the result that Dagster shows of it.

Dagster's own data version ignores configuration and content, so every output carries a hash of its content, and a
record of the versions of the inputs that were really read, in the same file and transaction as the data.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl

RECORD_COLUMNS = "asset VARCHAR, partition VARCHAR, code_version VARCHAR, data_version VARCHAR, inputs VARCHAR"


def reference(asset: str, partition: str | None = None) -> str:
    """How an output is named as an input of another: `features/nait_directions[math]`."""
    return f"{asset}[{partition}]" if partition else asset


@dataclass(frozen=True)
class Record:
    """The version of one asset's partition.

    Attributes:
        asset: Key as a path, `features/nait_directions`.
        partition: Partition key, or "" for an asset without partitions.
        code_version: Of the asset when it wrote this.
        data_version: Hash of the content.
        inputs: Version of each input that was read, by `reference`; sources and models stand beside assets.
    """

    asset: str
    partition: str
    code_version: str
    data_version: str
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The name of this output as an input of another."""
        return reference(self.asset, self.partition)

    def row(self) -> tuple[str, str, str, str, str]:
        """The record as a row of `lineage.versions`."""
        return self.asset, self.partition, self.code_version, self.data_version, json.dumps(self.inputs, sort_keys=True)

    @classmethod
    def from_row(cls, row: tuple[str, str, str, str, str]) -> "Record":
        """The record in a row of `lineage.versions`."""
        return cls(*row[:4], json.loads(row[4]))


def upstream(records: Mapping[str, Record], inputs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Every record that the inputs rest on, directly or not, by reference."""
    found: dict[str, dict[str, Any]] = {}
    pending = list(inputs)
    while pending:
        name = pending.pop()
        record = records.get(name)
        if record is None or name in found:
            continue
        found[name] = {
            "code_version": record.code_version,
            "data_version": record.data_version,
            "inputs": dict(record.inputs),
        }
        pending.extend(record.inputs)
    return dict(sorted(found.items()))


def asset_name(context: dg.AssetExecutionContext) -> str:
    """The running asset's key as a path."""
    return "/".join(context.asset_key.path)


def partition_name(context: dg.AssetExecutionContext) -> str:
    """The running partition's key, or ""."""
    return str(context.partition_key) if context.has_partition_key else ""


def record_of(context: dg.AssetExecutionContext, data_version: str, inputs: Mapping[str, str]) -> Record:
    """The record of what the running asset is about to write."""
    code_version = context.assets_def.code_versions_by_key[context.asset_key]
    assert code_version is not None, f"{context.asset_key} has no code version"
    return Record(asset_name(context), partition_name(context), code_version, data_version, dict(inputs))


def result(record: Record, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
    """What Dagster stores of a materialization: the record, and metadata that people look at."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(record.data_version),
        metadata={**metadata, "nait/inputs": dg.MetadataValue.json(dict(record.inputs))},
    )


def column_schema(frame: pl.DataFrame) -> dg.TableSchema:
    """A frame's columns and types as Dagster shows them."""
    return dg.TableSchema(columns=[dg.TableColumn(name, str(dtype)) for name, dtype in frame.schema.items()])


def table_metadata(frame: pl.DataFrame) -> dg.MetadataValue:
    """A few rows as a table in the materialization's metadata."""
    records = [
        dg.TableRecord({name: value if isinstance(value, int | float) else str(value) for name, value in row.items()})
        for row in frame.iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, schema=column_schema(frame))
