"""The catalogue: what the rooms make, one object an output, which everything else asks instead of its name.

Belongs here: what every output has to say of itself, and the two kinds that several rooms have, a table of the
warehouse and a folder of files. Does not belong here: the outputs, which are in each room's `catalogue.py`.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from nait_assets.errors import WarehouseError
from nait_assets.lineage import Record, reference
from nait_assets.losses import Losses
from nait_assets.recipe import Pooling, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version, hashes_of, remove
from nait_assets.resources.row_blocks import RowBlock, blocks
from nait_assets.resources.warehouse import Snapshot, Store, Transaction
from nait_assets.tables import Table, content_digest, version_with

PartitionedBy = Literal[
    "capability", "with_examples", "evaluation", "task", "target", "cell", "trained_cell", "trained_ratio"
]
"""How an output is partitioned, by the name that `Partitions` has for it."""


@dataclass(frozen=True, eq=False)
class Output:
    """One output: by default a table of the warehouse that reads nothing from outside; rooms override what differs.

    Attributes:
        key: asset key as a path, `features/nait_directions`.
        partitions: field of `Partitions`; None for an output without partitions.
        table: where its rows lie; None if they are no table of the warehouse's own.
        on_demand: whether it is made only where another output of the recipe rests on it.
        one_row_each: whether it has one row for each candidate, those that `refused` names excepted.
        takes_run_options: whether its asset takes the options of a run, such as the size of a batch.
        reset_name: short name by which `nait reset` takes it, beside its key.
    """

    key: str
    partitions: PartitionedBy | None = None
    table: Table | None = None
    on_demand: bool = False
    one_row_each: bool = False
    takes_run_options: bool = False
    reset_name: str = ""

    @property
    def room(self) -> str:
        """The room that makes it: the first word of its key."""
        return self.key.split("/")[0]

    @property
    def by_capability(self) -> bool:
        """Whether it has one partition for each capability, or for each that has examples."""
        return self.partitions in ("capability", "with_examples")

    def of_pooling(self, pooling: Pooling) -> "Output":  # noqa: ARG002
        """The same output, of which `read` reads one pooling of the activations; itself where it holds none."""
        return self

    def store(self, warehouse: Warehouse, partition: str) -> Store:  # noqa: ARG002  others have a file a partition
        """The DuckDB file that holds a partition ("" for an output without partitions) and its version record."""
        return warehouse.tables

    def external_versions(
        self,
        recipe: Recipe,  # noqa: ARG002
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,  # noqa: ARG002
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        """Present versions of what a partition reads from outside, by the name that its record gives them.

        Raises:
            UserError: A source, the model or a file cannot be found or reached.
        """
        return {}

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:
        """Find what a user got wrong before anything is made.

        Args:
            recipe: recipe that names what is read.
            model: model of the recipe.
            partitions: partitions that are about to be made.

        Raises:
            UserError: Something that the recipe names is not there, or does not fit.
        """

    def why_outlived(self, warehouse: Warehouse, partition: str) -> str:  # noqa: ARG002
        """Why a stored partition no longer serves, though it is what its record says: a sentence, or ""."""
        return ""

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:  # noqa: ARG002
        """Files and folders that a partition consists of beside its table."""
        return []

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:
        """What of a stored partition is not as its record says, a sentence each; nothing if all is.

        Raises:
            WarehouseError: A table is not there.
        """
        assert self.table is not None, f"{self.key} has no table, and does not say how it is verified"
        with self.store(warehouse, record.partition).snapshot() as snapshot:
            stored_version = snapshot.version(self.table, **self.table.slice_of(record.partition))
            n_rows = snapshot.n_rows(self.table, **self.table.slice_of(record.partition))
            beside = self.stored_beside(snapshot, record.partition)
        found = version_with(stored_version, *beside)
        if found == record.data_version:
            return []
        stored = f"the {n_rows} rows in {self.table.name}{', with what is stored beside them,' if beside else ''}"
        return [f"{stored} have the hash {found}, not {record.data_version}"]

    def stored_beside(self, snapshot: Snapshot, partition: str) -> Sequence[pl.DataFrame]:  # noqa: ARG002
        """What the data version covers beside a partition's rows, as `rooms.write_table` was given it."""
        return ()

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """SHA-256 of each table and file that a partition consists of, as they are now; arguments as for `beside`."""
        assert self.table is not None, f"{self.key} has no table, and does not say what it consists of"
        rows = stored.content(self.table, **self.table.slice_of(partition))
        beside = {str(place): frame for place, frame in enumerate(self.stored_beside(stored, partition))}
        hashed = {place: content_digest(frame, tuple(frame.columns)) for place, frame in beside.items()}
        return {self.table.name: rows, **hashed}

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """SHA-256 of what else a partition consists of and its data version does not cover, by table or file.

        Args:
            warehouse: warehouse of the home.
            stored: snapshot of the file that holds the partition.
            partition: partition key, or "".
        """
        return {}

    def read(self, warehouse: Warehouse, tables: Snapshot, partition: str) -> tuple[pl.DataFrame, dict[str, str]]:  # noqa: ARG002
        """A partition's rows, and the version of what was read, by reference.

        Args:
            warehouse: warehouse of the home.
            tables: snapshot of the warehouse's own tables.
            partition: partition key, or "".

        Raises:
            WarehouseError: It has not been made.
        """
        assert self.table is not None, f"{self.key} has no table, and does not say how it is read"
        frame, name = tables.read_partition(self.table, partition), reference(self.key, partition)
        return frame, {name: tables.inputs[name]}

    def stored_table(self, partition: str) -> Table:  # noqa: ARG002  others have a table a partition
        """The table that holds a partition's rows."""
        assert self.table is not None, f"{self.key} has no table, and does not say how it is read"
        return self.table

    def samples(self, warehouse: Warehouse, tables: Snapshot) -> tuple[list[str], str]:
        """Of an output with one row a candidate, their ids in ascending order, and the version of what was read.

        Raises:
            WarehouseError: It has not been made.
        """
        store = self.store(warehouse, "")
        with contextlib.nullcontext(tables) if store.path == tables.path else store.snapshot() as stored:
            rows = stored.rows(self.stored_table("").only("sample_id"))
            return sorted(rows["sample_id"].to_list()), stored.note(self.key).data_version

    def blocks(
        self, warehouse: Warehouse, version: str, columns: Sequence[str], sample_ids: Sequence[str]
    ) -> Iterator[RowBlock]:
        """Of an output with one row a candidate, columns of some of them, streamed in the order of the file.

        Args:
            warehouse: warehouse of the home.
            version: version of what is read.
            columns: columns of its table.
            sample_ids: candidates to read, each once.

        Raises:
            WarehouseError: It has been made again, so that its version is another one.
        """
        with self.store(warehouse, "").snapshot() as stored:
            if stored.note(self.key).data_version != version:
                raise WarehouseError(f"{self.key} has been made again while it was read: run again.")
            yield from blocks(stored, self.stored_table(""), columns, sample_ids)

    def exists(self, warehouse: Warehouse, tables: Snapshot, partition: str) -> bool:
        """Whether a partition has been made; arguments as for `read`."""
        store = self.store(warehouse, partition)
        records = tables.records() if store.path == tables.path else store.records()
        return reference(self.key, partition) in records

    def refused(self, warehouse: Warehouse, partition: str) -> dict[str, str]:  # noqa: ARG002
        """Samples that a partition has no row of, and the reason of each."""
        return {}

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:
        """Remove a stored partition: its rows, its record and its files.

        Args:
            recipe: recipe that no longer has it.
            warehouse: warehouse of the home.
            tables: transaction on the warehouse's own tables.
            partition: partition key, or "".
        """
        if self.table is not None and tables.has_table(self.table.name):
            tables.delete(self.table, **self.table.slice_of(partition))
        tables.forget(self.key, partition)
        for path in self.files(recipe, warehouse, partition):
            remove(path)
        file = self.store(warehouse, partition).path
        if file != tables.path:
            for beside in (file, file.with_name(f"{file.name}.wal"), file.with_name(f"{file.stem}.spool")):
                remove(beside)

    def losses(self, warehouse: Warehouse, partition: str) -> Losses | None:  # noqa: ARG002
        """What became of the rows that a stored partition was made from; None where every row is used by design.

        Raises:
            WarehouseError: It has not been made.
        """
        return None


@dataclass(frozen=True, eq=False)
class FolderOutput(Output):
    """An output that is a folder of files, such as a trained model; its data version is the hash of all files.

    Attributes:
        place: the folder, relative to the home.
    """

    place: str = ""

    def folder(self, warehouse: Warehouse) -> Path:
        """The folder."""
        return warehouse.folder / self.place

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:  # noqa: ARG002, D102
        return [self.folder(warehouse)]

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        return hashes_of(self.folder(warehouse))

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:  # noqa: D102
        folder = self.folder(warehouse)
        if not folder.is_dir():
            return [f"{folder} is gone"]
        same = folder_version(folder) == record.data_version
        return [] if same else [f"the files in {folder} are not those that were written"]


class Catalogue(Mapping[str, Output]):
    """The outputs of a recipe by key, in the order of the rooms."""

    def __init__(self, outputs: Iterable[Output]):
        self._outputs: dict[str, Output] = {}
        for output in outputs:
            assert output.key not in self._outputs, f"two outputs have the key {output.key}"
            self._outputs[output.key] = output

    def __getitem__(self, key: str) -> Output:
        return self._outputs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def rooms(self) -> list[str]:
        """Rooms that have an output, in order."""
        return list(dict.fromkeys(output.room for output in self._outputs.values()))


def losses_of(outputs: Mapping[str, Output], warehouse: Warehouse, records: Iterable[Record]) -> dict[str, Losses]:
    """What became of the rows that stored outputs were made from, by reference, of those that can lose rows.

    Args:
        outputs: outputs by key, among them those of the records; others are passed over.
        warehouse: warehouse of the home.
        records: version records of stored outputs.
    """
    found = {
        record.reference: outputs[record.asset].losses(warehouse, record.partition)
        for record in records
        if record.asset in outputs
    }
    return {name: losses for name, losses in found.items() if losses is not None}
