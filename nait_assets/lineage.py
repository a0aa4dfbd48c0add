"""What every output was made from: the version record, and the result that Dagster shows of it.

Dagster's own data version ignores configuration and content, so every output carries a hash of its content, and a
record of the versions of the inputs that were really read, in the same file and transaction as the data.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import openlineage

STATED = ("asset", "partition", "code_version", "data_version", "inputs", "run_id", "made_at", "beside")
RECORD_COLUMNS = (*STATED, "record_hash")
_OBJECTS = ("inputs", "beside")
"""Columns that are JSON objects of strings."""

RECIPE_FILE = "nait/recipe"
"""Key of an asset's metadata that names the file of the recipe that it is of."""


def canonical(value: Any) -> bytes:
    """JSON of a value in one form: ASCII, keys in order, no spaces, as `json.dumps` with these options gives it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def reference(asset: str, partition: str | None = None) -> str:
    """How an output is named as an input of another: `features/nait_directions[math]`."""
    return f"{asset}[{partition}]" if partition else asset


UNHASHED = "its record has no hash, as those of earlier versions of nait_assets"


@dataclass(frozen=True)
class Record:
    """The version of one asset's partition.

    Attributes:
        asset: Key as a path, `features/nait_directions`.
        partition: Partition key, or "" for an asset without partitions.
        code_version: Code version of the asset when it wrote this.
        data_version: Hash of the content.
        inputs: Version of each input that was read, by `reference`; sources and models stand beside assets.
        run_id: Id of the Dagster run that made it, or "".
        made_at: UTC, ISO 8601, or "".
        beside: SHA-256 of what else the output consists of and its data version does not cover, by table or file.
        record_hash: As stored; `digest` of the record as it was written, or "".
    """

    asset: str
    partition: str
    code_version: str
    data_version: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    made_at: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)
    record_hash: str = field(default="", compare=False)

    @property
    def reference(self) -> str:
        """The name of this output as an input of another."""
        return reference(self.asset, self.partition)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the record states, hex."""
        stated = {name: getattr(self, name) for name in STATED}
        return hashlib.sha256(canonical({**stated, **{name: dict(stated[name]) for name in _OBJECTS}})).hexdigest()

    @property
    def faults(self) -> list[str]:
        """What is wrong with the record by itself, a sentence; nothing where it is as it was written."""
        if not self.record_hash:
            return [UNHASHED]
        return [] if self.record_hash == self.digest else ["its record was altered: it has another hash than it states"]

    def row(self) -> tuple[str, ...]:
        """The record as a row of `lineage.versions`, columns `RECORD_COLUMNS`."""
        stated = [getattr(self, name) for name in STATED]
        texts = [value if isinstance(value, str) else json.dumps(dict(value), sort_keys=True) for value in stated]
        return (*texts, self.digest)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Record":
        """The record in a row of `lineage.versions`; what an earlier version of this project did not write is "".

        Raises:
            ValueError: The row is no record.
        """
        given: dict[str, Any] = {name: row[name] or "" for name in RECORD_COLUMNS if name in row}
        if not {*STATED[:5]} <= set(given):  # that version may have had other columns beside them
            raise ValueError(f"a version record has the columns {', '.join(row)}")
        objects = {name: json.loads(given.pop(name, "") or "{}") for name in _OBJECTS}
        for name, stored in objects.items():
            if not isinstance(stored, dict) or not all(isinstance(value, str) for value in stored.values()):
                raise ValueError(f"{name} of a version record is no JSON object of strings")
        return cls(**given, **objects)


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


def asset_key(path: str) -> dg.AssetKey:
    """Dagster's key of an asset, by its key as a path, `features/nait_directions`."""
    return dg.AssetKey(path.split("/"))


def asset_path(key: dg.AssetKey) -> str:
    """An asset's key as a path."""
    return "/".join(key.path)


def asset_name(context: dg.AssetExecutionContext) -> str:
    """The running asset's key as a path."""
    return asset_path(context.asset_key)


def partition_name(context: dg.AssetExecutionContext) -> str:
    """The running partition's key, or ""."""
    return str(context.partition_key) if context.has_partition_key else ""


def record_of(context: dg.AssetExecutionContext, data_version: str, inputs: Mapping[str, str]) -> Record:
    """The record of what the running asset is about to write."""
    code_version = context.assets_def.code_versions_by_key[context.asset_key]
    assert code_version is not None, f"{context.asset_key} has no code version"
    return Record(
        asset_name(context),
        partition_name(context),
        code_version,
        data_version,
        dict(inputs),
        run_id=context.run.run_id,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def result(record: Record, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
    """What Dagster stores of a materialization: the record, and metadata that people look at."""
    if openlineage.configured():
        _announce(record, metadata)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(record.data_version),
        metadata={**metadata, "nait/inputs": dg.MetadataValue.json(dict(record.inputs))},
    )


def _announce(record: Record, metadata: Mapping[str, Any]) -> None:
    """Tell an OpenLineage catalogue of what the running asset has written."""
    context = dg.AssetExecutionContext.get()
    schema = metadata.get("dagster/column_schema", dg.TableSchema(columns=[]))
    output = openlineage.Output(
        record.asset,
        record.reference,
        record.code_version,
        record.data_version,
        record.inputs,
        context.run.run_id,
        metadata.get("dagster/row_count"),
        [(column.name, column.type) for column in schema.columns],
    )
    recipe_file = context.assets_def.metadata_by_key[context.asset_key][RECIPE_FILE].value
    openlineage.announce(output, Path(recipe_file), context.log.warning)


def column_schema(frame: pl.DataFrame) -> dg.TableSchema:
    """A frame's columns and types as Dagster shows them."""
    return dg.TableSchema(columns=[dg.TableColumn(name, str(dtype)) for name, dtype in frame.schema.items()])


def table_metadata(frame: pl.DataFrame) -> dg.MetadataValue:
    """A few rows as a table in the materialization's metadata, numbers to six digits."""
    records = [
        dg.TableRecord({name: _shown(value) for name, value in row.items()}) for row in frame.iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, schema=column_schema(frame))


def _shown(value: object) -> str | int | float:
    """A cell of a table: Dagster's page would write all seventeen digits of a number."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if isinstance(value, int) else str(value)
