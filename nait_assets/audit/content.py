"""Whether an output still holds what its record says: every hash taken again, from the tables and files as they are."""

import json
from pathlib import Path

import polars as pl

from nait_assets.errors import WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.lineage import Record
from nait_assets.measurements.engine import rows_of
from nait_assets.partitions import cell_of
from nait_assets.recipe import POOL, TRAINED, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.resources.files import folder_version, sha256
from nait_assets.scoring.inputs import MEASUREMENT_OF
from nait_assets.selection.assets import subset_folder
from nait_assets.selection.subset import SUBSET_FILES
from nait_assets.tables import (
    CALIBRATION_STATISTICS,
    CANDIDATE_POOL,
    CONTAMINATED_CANDIDATES,
    EVALUATION_SET,
    IN_DOMAIN_SET,
    NAIT_DIRECTIONS,
    NEURON_STATISTICS,
    STANDARDIZED_CENTROIDS,
    SUBSETS,
    Table,
    content_version,
    published_table,
    scores_table,
)

TABLES = {
    table.asset: table
    for table in (
        CANDIDATE_POOL,
        IN_DOMAIN_SET,
        EVALUATION_SET,
        CONTAMINATED_CANDIDATES,
        CALIBRATION_STATISTICS,
        NEURON_STATISTICS,
        NAIT_DIRECTIONS,
        STANDARDIZED_CENTROIDS,
    )
}


def content_faults(warehouse: Warehouse, record: Record) -> list[str]:
    """What of an output is not as its record says; nothing if all is."""
    try:
        if record.asset in (CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS):
            return _activation_faults(warehouse, record)
        if record.asset in TRAINED:
            return _folder_faults(warehouse.trained(record.asset), record)
        if record.asset in MEASUREMENT_OF:
            return _measurement_faults(warehouse, record)
        if record.asset.startswith("selection/"):
            return _subset_faults(warehouse, record)
        return _table_faults(warehouse, _table_of(record.asset), record)
    except WarehouseError as error:
        return [str(error)]


def _folder_faults(folder: Path, record: Record) -> list[str]:
    if not folder.is_dir():
        return [f"{folder} is gone"]
    found = folder_version(folder)
    return [] if found == record.data_version else [f"the files in {folder} are not those that were written"]


def _measurement_faults(warehouse: Warehouse, record: Record) -> list[str]:
    reading, corpus = MEASUREMENT_OF[record.asset], record.partition or POOL
    rows, _ = rows_of(warehouse, reading, corpus)
    found = content_version(rows, reading.table_of(corpus).key)
    if found == record.data_version:
        return []
    return [f"the {len(rows)} rows of {record.reference} have the hash {found}, not the recorded one"]


def _table_of(asset: str) -> Table:
    room, _, name = asset.partition("/")
    if name.startswith("published_"):
        return published_table(name.removeprefix("published_"))
    return scores_table(name.removesuffix("_scores")) if room == "scoring" else TABLES[asset]


def _table_faults(warehouse: Warehouse, table: Table, record: Record) -> list[str]:
    with warehouse.tables.snapshot() as snapshot:
        rows = snapshot.rows(table, **table.slice_of(record.partition)).select(list(table.written_columns))
    found = content_version(rows, table.key)
    if found == record.data_version:
        return []
    return [f"the {len(rows)} rows in {table.name} have the hash {found}, not {record.data_version}"]


def _activation_faults(warehouse: Warehouse, record: Record) -> list[str]:
    with warehouse.activations(record.partition or POOL).snapshot() as snapshot:
        held = activation_table.contents(snapshot)
        altered, broken = activation_table.altered_rows(snapshot)
        incomplete = activation_table.incomplete_samples(snapshot)
        content = activation_table.content_of(snapshot)
    faults = []
    if fingerprint(held.extraction_id, tuple(sorted(held.sample_ids))) != record.data_version:
        faults.append(f"{snapshot.path} holds other samples, or another extraction's, than its record states")
    for names, what in ((altered, "are not as they were written"), (broken, "hold NaN or infinity")):
        if names:
            faults.append(
                f"{len(names)} rows of {snapshot.path} {what}, such as sample {names[0][0]}, layer {names[0][1]}"
            )
    if incomplete:
        faults.append(f"{len(incomplete)} samples of {snapshot.path} lack rows of a layer, such as {incomplete[0]}")
    if not faults and content != record.content:
        faults.append(f"the rows of {snapshot.path} were replaced: their digests differ from those in its record")
    return faults


def _subset_faults(warehouse: Warehouse, record: Record) -> list[str]:
    method = record.asset.removeprefix("selection/").removesuffix("_subset")
    target, ratio = cell_of(record.partition)
    folder = subset_folder(warehouse, method, target, ratio)
    missing = [name for name in SUBSET_FILES if not (folder / name).is_file()]
    if missing:
        return [f"{folder} lacks {', '.join(missing)}"]
    faults = _manifest_faults(folder, record)
    if faults:
        return faults
    with warehouse.tables.snapshot() as snapshot:
        rows = snapshot.rows(SUBSETS, method=method, target=target, ratio=ratio).sort("rank")
    stored = pl.read_parquet(folder / "train.parquet")
    if content_version(stored, ("rank",)) != record.data_version:
        faults.append(f"{folder}/train.parquet holds other rows than its record states")
    columns = ["sample_id", "score", "rank"]
    if not stored.select(columns).equals(rows.select(columns)):
        faults.append(f"the rows in {SUBSETS.name} are not those of {folder}/train.parquet")
    return faults


def _manifest_faults(folder: Path, record: Record) -> list[str]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        known = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        stated = manifest["data_version"], manifest["code_version"], manifest["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{folder}/manifest.json is damaged: {error}"]
    changed = [name for name in SUBSET_FILES[:-1] if known.get(name) != sha256(folder / name)]
    faults = [f"{folder}: {', '.join(changed)} changed since the manifest was written"] if changed else []
    if stated != (record.data_version, record.code_version, dict(record.inputs)):
        faults.append(f"{folder}/manifest.json is of another version than the record")
    return faults
