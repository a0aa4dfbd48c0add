"""The tables on disk: DuckDB files under one home folder, opened late, closed early, written in one transaction.

A DuckDB file has one writer, which excludes every reader, and Dagster runs in several processes. So a file is attached
for one block, which waits for the lock, and is detached even when the block fails.
"""

import contextlib
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb

from nait_assets.errors import DamagedError, WarehouseError
from nait_assets.lineage import Record
from nait_assets.recipe import POOL
from nait_assets.resources import engines
from nait_assets.resources import home as homes
from nait_assets.resources.files import HashCache, remembers
from nait_assets.resources.snapshot import Snapshot, Transaction

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
    def snapshot(self) -> Iterator[Snapshot]:
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
    def transaction(self) -> Iterator[Transaction]:
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


class Warehouse(dg.ConfigurableResource):
    """The home folder of one recipe: tables, activations, subsets, and the model converted for reading.

    `recipe` is the name of the recipe that writes; "" for whoever only reads.
    """

    home: str
    recipe: str = ""

    @property
    def folder(self) -> Path:
        """The home folder."""
        return Path(self.home)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Refuse a home of another schema or recipe before a run of Dagster's writes to it; have a new one be its own.

        Raises:
            WarehouseError: It is older or newer, or belongs to another recipe.
        """
        homes.require_current(self.folder)
        if self.recipe:
            homes.claim(self.folder, self.recipe)

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
