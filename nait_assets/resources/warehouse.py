"""The tables on disk: DuckDB files under one home folder, opened late, closed early, written in one transaction.

A DuckDB file has one writer, which excludes every reader, and Dagster runs in several processes. So a file is attached
for one block, which waits for the lock, and is detached even when the block fails.
"""

import contextlib
import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl

from nait_assets.errors import DamagedError, WarehouseError
from nait_assets.lineage import RECORD_COLUMNS, Record, reference
from nait_assets.recipe import POOL, PROJECT_ROOT, Recipe
from nait_assets.resources import engines
from nait_assets.resources import home as homes
from nait_assets.resources.files import HashCache, remembers
from nait_assets.tables import SLICE_ROWS, Table, content_digest

log = logging.getLogger(__name__)
LOCK_TIMEOUT_SECONDS = 120.0
LOCK_MESSAGES = (
    "could not set lock",
    "conflicting lock",
    "unique file handle conflict",
    "already attached",
    "being used by another process",
)


DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException)
"""What DuckDB raises of a file that it can no longer read or write."""

SETTLED_NANOSECONDS = 10**9
"""A file that changed this short a time ago may change again without another time of change: its clock has ticks."""

_known_records: dict[Path, tuple[object, dict[str, Record]]] = {}
"""Records of files that stay as they are, such as activations: by path, with the state that the file was in."""


class Store:
    """One DuckDB file: its tables, and the version records of what they hold."""

    def __init__(self, path: Path, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS, home: Path | None = None):
        self.path = path
        self.lock_timeout_seconds = lock_timeout_seconds
        self.home = home

    @contextlib.contextmanager
    def snapshot(self) -> Iterator["Snapshot"]:
        """The file as it is now, read-only, for the length of a block.

        Raises:
            WarehouseError: There is no such file, or a writer held it for longer than the time-out.
            DamagedError: The file cannot be read.
        """
        if not self.path.exists():
            raise WarehouseError(f"{self.path} does not exist: nothing in it has been made yet. `nait run` makes it.")
        with self._attached("READ_ONLY") as connection:
            yield Snapshot(connection, self.path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """One transaction: committed when the block ends well, else the file stays as it was.

        Raises:
            WarehouseError: Another process held the file for longer than the time-out.
            DamagedError: The file cannot be read or written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.home is not None and not self.path.exists():
            homes.mark_if_new(self.home)
        with self._attached("ROW_GROUP_SIZE 2048") as connection:
            connection.execute("BEGIN TRANSACTION")
            yield Transaction(connection, self.path)
            connection.execute("COMMIT")
            connection.execute("CHECKPOINT store")

    def records(self) -> dict[str, Record]:
        """Version records of the file by reference; none where there is no file."""
        before = _state(self.path)
        if before is None:
            return {}
        known = _known_records.get(self.path) if remembers() else None
        if known is not None and known[0] == before:
            return dict(known[1])
        now = time.time_ns()
        with self.snapshot() as snapshot:
            records = snapshot.records()
        if now - max(changed for changed, _ in before) > SETTLED_NANOSECONDS:
            _known_records[self.path] = before, records
        return dict(records)

    @contextlib.contextmanager
    def _attached(self, option: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the file attached as `store`, for the length of a block."""
        engine, connection = self._attach(option)
        try:
            yield connection
        except BaseException as error:  # an engine that an error went through may be broken
            with contextlib.suppress(duckdb.Error):
                connection.close()
                engine.close()
            if isinstance(error, duckdb.PermissionException):
                raise WarehouseError(
                    f"{self.path} holds a view that reads other files, which no table of a home does: "
                    f"{_first_line(error)}. Do not use this home."
                ) from error
            if isinstance(error, DAMAGE):
                raise self._damaged(error) from error
            raise
        connection.close()
        engines.give_back(self.path, engine)

    def _attach(self, option: str) -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]:
        """An engine, and a connection of its own in it, which takes along what is registered in it when it closes."""
        deadline = time.monotonic() + self.lock_timeout_seconds
        pause_seconds, next_line = 0.02, time.monotonic() + 1
        quoted = str(self.path).replace("'", "''")
        while True:
            engine = engines.start(self.path)
            connection = engine.cursor()
            try:
                connection.execute(f"ATTACH '{quoted}' AS store ({option})")
                connection.execute("USE store")
                return engine, connection
            except duckdb.Error as error:
                connection.close()
                engine.close()
                if not any(message in str(error).lower() for message in LOCK_MESSAGES):
                    raise self._damaged(error) from error
                now = time.monotonic()
                if now > deadline:
                    raise WarehouseError(
                        f"{self.path} was locked by another process for {self.lock_timeout_seconds:g} s ({error}). "
                        "Wait for that run to end, or close the program that has the file open for writing."
                    ) from error
                if now > next_line:
                    log.warning("waiting for the lock on %s", self.path)
                    next_line = now + 10
            time.sleep(pause_seconds * random.uniform(0.5, 1.5))
            pause_seconds = min(2 * pause_seconds, 2.0)

    def _damaged(self, error: duckdb.Error) -> DamagedError:
        return DamagedError(
            f"{self.path} cannot be opened or read: {_first_line(error)}. Restore the file from a backup, or delete "
            "it: `nait run` makes again what was in it."
        )


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]  # behind it come lines of DuckDB's stack


def _state(path: Path) -> tuple[tuple[int, int], ...] | None:
    """Time of change and size of a DuckDB file and of the log beside it; None where there is no file."""
    if not path.exists():
        return None
    files = (file.stat() for file in (path, path.with_name(f"{path.name}.wal")) if file.exists())
    return tuple((found.st_mtime_ns, found.st_size) for found in files)


class Snapshot:
    """A read-only view of one file that notes the version of everything read through it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path):
        self.connection = connection
        self.path = path
        self.inputs: dict[str, str] = {}
        self._records: dict[str, Record] | None = None

    def read(self, table: Table, **where: str) -> pl.DataFrame:
        """A table's slice, and its version noted in `inputs`.

        Args:
            table: Table, whose name is also the key of the asset that wrote it.
            **where: Values of the table's slice columns, which are the asset's partition.

        Raises:
            WarehouseError: The slice has not been materialized.
        """
        self.note(table.asset, "|".join(where.values()))
        return self.rows(table, **where)

    def read_partition(self, table: Table, partition: str) -> pl.DataFrame:
        """As `read`, the slice given by the partition key of the asset that wrote it, "" for one without partitions."""
        return self.read(table, **table.slice_of(partition))

    def rows(self, table: Table, **where: str) -> pl.DataFrame:
        """A table's rows where columns have these values; nothing is noted."""
        condition = " AND ".join(f"{column} = ?" for column in where) or "true"
        stored = self.connection.sql(f"FROM {table.name} LIMIT 0").columns
        # a column that an earlier version of this project did not write is null
        columns = ", ".join(name if name in stored else f"NULL AS {name}" for name in table.columns)
        query = f"SELECT {columns} FROM {table.name} WHERE {condition}"
        return self.connection.sql(query, params=list(where.values())).pl().cast(table.columns)

    def slices(self, table: Table, **where: str) -> Iterator[pl.DataFrame]:
        """As `read`, a part of the rows after the other."""
        self.note(table.asset, "|".join(where.values()))
        condition = " AND ".join(f"{column} = ?" for column in where) or "true"
        query = f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {condition}"
        for batch in self.connection.sql(query, params=list(where.values())).to_arrow_reader(SLICE_ROWS):
            yield pl.DataFrame(batch).cast(table.columns)

    def digest(self, table: Table, **where: str) -> str:
        """SHA-256 of a table's rows where columns have these values, hex; of no rows where there is no table."""
        rows = self.rows(table, **where) if self.has_table(table.name) else table.columns.to_frame()
        return content_digest(rows, tuple(table.columns))

    def n_rows(self, table: Table, **where: str) -> int:
        """How many rows a table has where columns have these values."""
        condition = " AND ".join(f"{column} = ?" for column in where) or "true"
        query = f"SELECT count(*) FROM {table.name} WHERE {condition}"
        ((count,),) = self.connection.execute(query, list(where.values())).fetchall()
        return int(count)

    def counted(self, table: Table, column: str, **where: str) -> dict[str, int]:
        """The values of a column where others have these values, and how often each occurs."""
        condition = " AND ".join(f"{name} = ?" for name in where) or "true"
        query = f"SELECT {column}, count(*) FROM {table.name} WHERE {condition} GROUP BY ALL"
        return {str(value): count for value, count in self.connection.execute(query, list(where.values())).fetchall()}

    def note(self, asset: str, partition: str = "") -> Record:
        """The record of an asset's partition, noted as read.

        Raises:
            WarehouseError: It has not been materialized.
        """
        name = reference(asset, partition)
        record = self.records().get(name)
        if record is None:
            raise WarehouseError(
                f"{name} has not been materialized in {self.path}. Materialize it first; `nait run` does so in order."
            )
        self.inputs[name] = record.data_version
        return record

    def records(self) -> dict[str, Record]:
        """Version records by reference, read once: nothing else writes while this is open."""
        if self._records is None:
            try:
                result = self.connection.execute("FROM lineage.versions")
            except duckdb.CatalogException:  # cheaper than to ask whether the table is there
                return {}
            names = [column[0] for column in result.description]
            try:
                records = [Record.from_row(dict(zip(names, row, strict=True))) for row in result.fetchall()]
            except (ValueError, RecursionError) as error:
                raise DamagedError(f"{self.path}: lineage.versions is damaged: {error}") from error
            self._records = {record.reference: record for record in records}
        return self._records

    def has_table(self, name: str) -> bool:
        """Whether the file holds the table `<schema>.<name>`."""
        query = """
            SELECT count(*) FROM (SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'store'
            UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'store')
            WHERE schema_name || '.' || table_name = ?
        """
        ((count,),) = self.connection.execute(query, [name]).fetchall()
        return count > 0


class Transaction(Snapshot):
    """A snapshot that can also be written."""

    def replace(self, table: Table, frame: pl.DataFrame, **where: str) -> None:
        """Make a table's slice be exactly the frame.

        Args:
            table: Created if it is not there.
            frame: With the table's columns, the slice columns excepted or equal to `where`.
            **where: Values of the table's slice columns.
        """
        if self.has_table(table.name):
            condition = " AND ".join(f"{column} = ?" for column in where) or "true"
            self.connection.execute(f"DELETE FROM {table.name} WHERE {condition}", list(where.values()))
        self.append(table, frame, **where)

    def append(self, table: Table, frame: pl.DataFrame, **where: str) -> None:
        """Add the frame's rows to a table; arguments as for `replace`."""
        # slice by slice: DuckDB gets a copy of what it is to store
        for part in frame.iter_slices(SLICE_ROWS) if len(frame) else [frame]:
            full = part.with_columns(pl.lit(value).alias(column) for column, value in where.items())
            self._append(table, full.select(list(table.columns)).cast(table.columns))

    def _append(self, table: Table, full: pl.DataFrame) -> None:
        schema = table.name.split(".")[0]
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        self.connection.register("incoming", full.to_arrow())
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} AS FROM incoming LIMIT 0")
        incoming = self.connection.sql("FROM incoming LIMIT 0")
        for name, kind in zip(incoming.columns, incoming.types, strict=True):
            self.connection.execute(f"ALTER TABLE {table.name} ADD COLUMN IF NOT EXISTS {name} {kind}")
        try:
            self.connection.execute(f"INSERT INTO {table.name} BY NAME FROM incoming")
        except duckdb.BinderException as error:
            raise WarehouseError(
                f"{self.path}: the table {table.name} has other columns than expected ({error}). If another "
                "version of nait_assets wrote it, use a new home."
            ) from error
        self.connection.unregister("incoming")

    def delete(self, table: Table, **where: str) -> None:
        """Remove a table's rows where columns have these values, and the table with its last row."""
        condition = " AND ".join(f"{column} = ?" for column in where) or "true"
        self.connection.execute(f"DELETE FROM {table.name} WHERE {condition}", list(where.values()))
        if not self.n_rows(table):
            self.connection.execute(f"DROP TABLE {table.name}")

    def forget(self, asset: str, partition: str) -> None:
        """Remove the version record of an asset's partition, if there is one."""
        self._records = None
        if self.has_table("lineage.versions"):
            query = "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?"
            self.connection.execute(query, [asset, partition])

    def put_record(self, record: Record) -> None:
        """Replace the version record of an asset's partition."""
        self._records = None
        self.connection.execute("CREATE SCHEMA IF NOT EXISTS lineage")
        columns = ", ".join(f"{name} VARCHAR" for name in RECORD_COLUMNS)
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS lineage.versions ({columns})")
        for name in RECORD_COLUMNS[5:]:  # which tables of earlier versions of this project lack
            self.connection.execute(f"ALTER TABLE lineage.versions ADD COLUMN IF NOT EXISTS {name} VARCHAR DEFAULT ''")
        self.connection.execute(
            "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?", [record.asset, record.partition]
        )
        names, marks = ", ".join(RECORD_COLUMNS), ", ".join("?" * len(RECORD_COLUMNS))
        self.connection.execute(f"INSERT INTO lineage.versions ({names}) VALUES ({marks})", list(record.row()))


class Warehouse(dg.ConfigurableResource):
    """The home folder of one recipe: tables, activations, subsets, and the model converted for reading."""

    home: str

    @property
    def folder(self) -> Path:
        """The home folder."""
        return Path(self.home)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Refuse a home of another schema before a run of Dagster's writes to it.

        Raises:
            WarehouseError: It is older or newer.
        """
        homes.require_current(self.folder)

    def _store(self, *path: str) -> Store:
        return Store(self.folder.joinpath(*path), home=self.folder)

    @property
    def tables(self) -> Store:
        """The file of everything small: corpora, features, scores, subsets."""
        return self._store("warehouse.duckdb")

    def of_corpus(self, place: str, corpus: str) -> Store:
        """The file of what is known of each sample of a corpus.

        Args:
            place: what is known: a folder under the home, such as `activations` or `measurements/outputs`.
            corpus: `candidates`, or a capability for its in-domain set.
        """
        return self._store(place, "candidates.duckdb" if corpus == POOL else f"in_domain/{corpus}.duckdb")

    @property
    def hashes(self) -> HashCache:
        """Remembered hashes of source and model files."""
        return HashCache(self.folder / "hashes.json")

    def files(self) -> list[Path]:
        """The DuckDB files of the home."""
        files = [self.tables.path]
        for place in ("*", "*/*"):  # as deep as `of_corpus` is given; of a home that has many subsets, not all of it
            for name in ("candidates.duckdb", "in_domain/*.duckdb"):
                files += sorted(self.folder.glob(f"{place}/{name}"))
        return files

    def records(self) -> dict[str, Record]:
        """Version records of all files under the home, by reference."""
        return {name: record for file in self.files() for name, record in Store(file).records().items()}


def home_of(recipe: Recipe) -> Path:
    """The home folder of a recipe: `$NAIT_HOME`, else `data/home/<recipe name>` in the project.

    Each recipe has its own, as a pool's activations are kept as long as they are in the pool.
    """
    given = os.environ.get("NAIT_HOME")
    return Path(given).expanduser().absolute() if given else PROJECT_ROOT / "data" / "home" / recipe.name
