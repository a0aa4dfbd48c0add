"""Outputs of the selection: a folder a subset, and its rows in `selection.subsets`."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.lineage import Record
from nait_assets.partitions import cell_of
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.files import hashes_of, remove, sha256
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.selection.subset import HASHED_FILES, SUBSET_FILES
from nait_assets.tables import SUBSET_HISTORY, SUBSETS, content_version

MANIFEST = "manifest.json"
KEPT_COLUMNS = ["sample_id", "score", "rank"]
"""Columns that a subset has in its files and in the table."""


@dataclass(frozen=True, eq=False)
class SubsetOutput(Output):
    """The subsets of a method, a folder each.

    Attributes:
        method: method whose ranking they are taken from.
    """

    method: str = ""

    def folder(self, warehouse: Warehouse, target: str, ratio: str) -> Path:
        """Where a subset's files lie."""
        return warehouse.folder / "subsets" / self.method / target / ratio

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:  # noqa: ARG002, D102
        folder = self.folder(warehouse, *cell_of(partition))
        return [folder / name for name in SUBSET_FILES]

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:  # noqa: ARG002, D102
        target, ratio = cell_of(partition)
        if tables.has_table(SUBSETS.name):
            tables.replace(SUBSETS, SUBSETS.columns.to_frame(), method=self.method, target=target, ratio=ratio)
        tables.forget(self.key, partition)
        remove(self.folder(warehouse, target, ratio))

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: D102
        target, ratio = cell_of(partition)
        rows = stored.digest(SUBSETS, method=self.method, target=target, ratio=ratio)
        return {SUBSETS.name: rows, **hashes_of(self.folder(warehouse, target, ratio))}

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:
        """The manifest, which has the hashes of all other files, and the history."""
        target, ratio = cell_of(partition)
        manifest = self.folder(warehouse, target, ratio) / MANIFEST
        known = {SUBSET_HISTORY.name: stored.digest(SUBSET_HISTORY, method=self.method, target=target, ratio=ratio)}
        return {**known, **({MANIFEST: sha256(manifest)} if manifest.is_file() else {})}

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:
        """Whether all files are those of the manifest, the manifest the record's, and the rows the table's."""
        target, ratio = cell_of(record.partition)
        folder = self.folder(warehouse, target, ratio)
        missing = [name for name in SUBSET_FILES if not (folder / name).is_file()]
        faults = [f"{folder} lacks {', '.join(missing)}"] if missing else _manifest_faults(folder, record)
        if faults:
            return faults
        with warehouse.tables.snapshot() as snapshot:
            rows = snapshot.rows(SUBSETS, method=self.method, target=target, ratio=ratio).sort("rank")
        stored = pl.read_parquet(folder / "train.parquet", glob=False)
        if content_version(stored, ("rank",)) != record.data_version:
            faults.append(f"{folder}/train.parquet holds other rows than its record states")
        if not stored.select(KEPT_COLUMNS).equals(rows.select(KEPT_COLUMNS)):
            faults.append(f"the rows in {SUBSETS.name} are not those of {folder}/train.parquet")
        return faults


def _manifest_faults(folder: Path, record: Record) -> list[str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        stated = manifest["data_version"], manifest["code_version"], manifest["inputs"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        return [f"{folder}/manifest.json is damaged: {error}"]
    names = sorted({*HASHED_FILES, *known})
    foreign = sorted(found.name for found in folder.iterdir() if found.name not in {MANIFEST, *names})
    gone = [name for name in names if not (folder / name).is_file()]
    changed = gone or [name for name in names if known.get(name) != sha256(folder / name)]
    faults = [f"{folder}: {', '.join(changed)} changed since the manifest was written"] if changed else []
    if foreign:
        faults.append(f"{folder} holds {', '.join(foreign)}, which its manifest does not name")
    if stated != (record.data_version, record.code_version, dict(record.inputs)):
        faults.append(f"{folder}/manifest.json is of another version than the record")
    return faults


def subset_output(method: str) -> SubsetOutput:
    """The subsets of a method."""
    return SubsetOutput(f"selection/{method}_subset", "cell", method=method)


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the selection of a recipe."""
    return [subset_output(method) for method in recipe.methods]


def output_named(key: str) -> SubsetOutput | None:
    """The subsets of a method that a recipe may no longer have, by their key."""
    begin, _, end = subset_output("*").key.partition("*")
    return subset_output(key[len(begin) : -len(end)]) if key.startswith(begin) and key.endswith(end) else None


def stored_folders(warehouse: Warehouse) -> list[tuple[str, str]]:
    """Keys and cells of the subsets that have a folder."""
    root = warehouse.folder / "subsets"
    found = (folder.relative_to(root).parts for folder in root.glob("*/*/*") if (folder / "manifest.json").is_file())
    return [(subset_output(method).key, f"{target}|{ratio}") for method, target, ratio in found]
