"""The Dagster instance of a home, as a command opens it: the same files as Dagster's own, with fewer openings.

Dagster opens, commits to disk and closes SQLite three to seven times an event, makes each run's file of events from
nothing, and starts four processes a run to copy what it prints. For outputs of a few rows that was most of the time.
The classes here keep connections open and copy in a thread. What they write is what Dagster's write, so that the web
server and the daemon, which use Dagster's own, read it while a command runs.
"""

import contextlib
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import dagster as dg
import sqlalchemy
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import StaticPool

MOST_OPEN = 3
"""Files that stay open: the index of all runs' events, and the events of the latest runs."""
COPY_SECONDS = 0.1
"""How often what a step printed is copied to where it would have gone."""


def open_instance(folder: Path) -> dg.DagsterInstance:
    """The instance whose settings lie in a folder.

    Storages that the settings name stay as they are; where they name none, those of this module take the place of
    Dagster's defaults.

    Args:
        folder: With a `dagster.yaml`.
    """
    reference = InstanceRef.from_dir(str(folder))
    own = {"DagsterSqliteStorage": KeptStorage, "LocalComputeLogManager": ComputeLogs}
    replaced: dict[str, Any] = {}
    for name in ("storage_data", "compute_logs_data"):
        default = getattr(reference, name)
        if default is not None and default.module_name.startswith("dagster.") and default.class_name in own:
            replaced[name] = ConfigurableClassData(__name__, own[default.class_name].__name__, default.config_yaml)
    return dg.DagsterInstance.from_ref(reference._replace(**replaced))


class Connections:
    """SQLite files that stay open from one transaction to the next: the latest few.

    A commit reaches the disk at SQLite's next checkpoint (`synchronous=NORMAL`, with the write-ahead log that Dagster
    sets up). A killed process loses nothing by that; a computer that loses power can lose its last events, but no
    table: `nait status` calls such an output unknown to Dagster, and it is made again.
    """

    def __init__(self, most: int):
        self._most = most
        self._lock = threading.RLock()
        self._engines: OrderedDict[str, sqlalchemy.Engine] = OrderedDict()
        self._at_work: dict[str, sqlalchemy.Connection] = {}

    @contextlib.contextmanager
    def transaction(self, url: str) -> Iterator[sqlalchemy.Connection]:
        """A transaction on a file, or the one that this thread is in already."""
        with self._lock:
            if url in self._at_work:
                yield self._at_work[url]
                return
            with self._engine(url).connect() as connection, connection.begin():
                self._at_work[url] = connection
                try:
                    yield connection
                finally:
                    del self._at_work[url]

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            while self._engines:
                self._engines.popitem()[1].dispose()

    def _engine(self, url: str) -> sqlalchemy.Engine:
        if url not in self._engines:
            arguments = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
            engine = sqlalchemy.create_engine(url, poolclass=StaticPool, connect_args=arguments)
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("PRAGMA synchronous=NORMAL"))
            self._engines[url] = engine
            others = [known for known in self._engines if known not in {url, *self._at_work}]
            for known in others[: max(0, len(self._engines) - self._most)]:
                self._engines.pop(known).dispose()
        self._engines.move_to_end(url)
        return self._engines[url]


class KeptEventLog(SqliteEventLogStorage):
    """Dagster's log of events, one file a run and an index of all, over connections that stay open."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        self._connections = Connections(MOST_OPEN)
        self._ready: set[str] = set()
        self._tables: set[str] = set()
        self._empty: bytes | None = None
        super().__init__(base_dir, inst_data)

    @contextlib.contextmanager
    def run_connection(self, run_id: str | None = None) -> Iterator[sqlalchemy.Connection]:
        """A transaction on a run's file, which is made if it is not there."""
        assert run_id is not None
        file = Path(self.path_for_shard(run_id))
        if run_id not in self._ready:
            self._prepare(file, run_id)
        with self._connections.transaction(self.conn_string_for_shard(run_id)) as connection:
            yield connection
        os.utime(file)  # the web server looks when the file changes; a commit changes only the log beside it

    def index_connection(self) -> contextlib.AbstractContextManager[sqlalchemy.Connection]:
        """A transaction on the index of all runs' events."""
        if "index" not in self._ready:
            with super().index_connection():  # Dagster brings its tables about
                self._ready.add("index")
        return self._connections.transaction(self.conn_string_for_shard("index"))

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table; one that was there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def dispose(self) -> None:
        """Close every file."""
        super().dispose()
        self._connections.close()

    def _prepare(self, file: Path, run_id: str) -> None:
        """Make a new run's file as a copy of the first one that Dagster made here, which took 0.25 s."""
        is_new = not file.exists()
        if is_new and self._empty is not None:
            temporary = file.with_name(f".{file.name}.new")
            temporary.write_bytes(self._empty)
            temporary.replace(file)
        else:
            with super().run_connection(run_id):  # Dagster makes it, or what it lacks
                pass
            if is_new and not file.with_name(f"{file.name}-wal").exists():
                self._empty = file.read_bytes()
        self._ready.add(run_id)


class KeptRuns(SqliteRunStorage):
    """Dagster's table of runs over a connection that stays open."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None):
        self._connections = Connections(1)
        super().__init__(conn_string, inst_data)

    @contextlib.contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        """A transaction on the file."""
        with self._connections.transaction(self._conn_string) as connection:
            yield connection

    def dispose(self) -> None:
        """Close the file."""
        super().dispose()
        self._connections.close()


class KeptStorage(DagsterSqliteStorage):
    """What Dagster keeps in a home whose settings name no other storage."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        # Not Dagster's own, which would open its storages for nothing.
        self.base_dir = base_dir
        self._run_storage = KeptRuns.from_local(_runs_directory(base_dir))
        self._event_log_storage = KeptEventLog(_event_logs_directory(base_dir))
        self._schedule_storage = SqliteScheduleStorage.from_local(_schedule_directory(base_dir))
        self._inst_data = inst_data

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "KeptStorage":
        """As Dagster makes it from settings; its own method names its own class."""
        return cls.from_local(inst_data=inst_data, **config_value)


class ComputeLogs(LocalComputeLogManager):
    """What steps print: in a file for the web server, and copied by a thread to where it would have gone."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "ComputeLogs":
        """As Dagster makes it from settings; its own method names its own class."""
        return cls(inst_data=inst_data, **config_value)

    @contextlib.contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Capture both streams for the length of a block."""
        kinds = {ComputeIOType.STDOUT: sys.stdout, ComputeIOType.STDERR: sys.stderr}
        with contextlib.ExitStack() as streams:
            for kind, stream in kinds.items():
                path = Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
                streams.enter_context(captured(stream, path))
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()


@contextlib.contextmanager
def captured(stream: TextIO, path: Path) -> Iterator[None]:
    """Have what goes to a stream's file descriptor, be it written by C or by a child, go to a file and there as well.

    A file and not a pipe: code that fills a pipe while it holds Python's lock would wait forever for the thread.

    Args:
        stream: Standard output or standard error; one without a descriptor, as tests have, is left alone.
        path: The file, to which is appended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):
        yield
        return
    stream.flush()
    with path.open("ab") as written, path.open("rb") as read, os.fdopen(os.dup(descriptor), "wb", 0) as original:
        read.seek(0, os.SEEK_END)
        ended = threading.Event()
        copier = threading.Thread(target=_copy, args=(read, original, ended), daemon=True)
        copier.start()
        os.dup2(written.fileno(), descriptor)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(original.fileno(), descriptor)
            ended.set()
            copier.join()


def _copy(read: BinaryIO, to: BinaryIO, ended: threading.Event) -> None:
    """Copy what a file gains until the end is told, and then the rest."""
    at_end = False
    while not at_end:
        at_end = ended.wait(COPY_SECONDS)
        while part := read.read(2**16):
            with contextlib.suppress(OSError):  # nobody reads it any more
                to.write(part)
