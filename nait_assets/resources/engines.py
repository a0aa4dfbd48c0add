"""DuckDB for one file, started once and lent to one block after the other.

To start DuckDB takes 17 ms, to attach a file to it 1 ms. So a process keeps the engines that it has started; a file is
attached for one block and detached behind it, and other processes find it as free as if the engine had ended.

A file may come from a stranger, and a view in it may read whatever its reader may. So an engine reaches no other file
than its own and what DuckDB writes beside it, loads no extension, and sees no variable of Python.
"""

import ctypes
import os
import threading
from pathlib import Path

import duckdb

MOST_IDLE = 8
"""Engines that are kept while nobody uses them: as many files as a home has of a pool and a few capabilities."""
MEMORY_MIB = max(256, 64 * (os.cpu_count() or 1))
MEMORY = f"{MEMORY_MIB}MiB"
"""What an engine holds before it writes what it sorts or gathers to disk; DuckDB's default is 80 % of the machine's."""
CLOSED: dict[str, bool | int | float | str | list[str]] = {
    "memory_limit": MEMORY,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
BESIDE = ("", ".wal", ".wal.checkpoint", ".wal.recovery", ".tmp")
"""What DuckDB puts behind a file's name for the files that it writes beside it."""

_idle: list[tuple[Path, duckdb.DuckDBPyConnection]] = []
_lock = threading.Lock()


def start(path: Path) -> duckdb.DuckDBPyConnection:
    """An engine that can attach a file, and no other: one that is idle, else a new one."""
    with _lock:
        for place, (known, idle) in enumerate(_idle):
            if known == path:
                del _idle[place]
                return idle
    engine = duckdb.connect(config=CLOSED)
    quoted = str(path).replace("'", "''")
    engine.execute(f"SET temp_directory = '{quoted}.tmp'")  # its own default is the working folder
    beside = ", ".join(f"'{quoted}{ending}'" for ending in BESIDE)
    engine.execute(f"SET allowed_paths = [{beside}]")
    engine.execute("SET enable_external_access = false")
    return engine


def give_back(path: Path, engine: duckdb.DuckDBPyConnection) -> None:
    """Keep a file's engine for the next block if the file can be detached, else end it: it must not stay locked."""
    try:
        engine.execute("DETACH store")
        engine.execute(f"SET memory_limit = '{MEMORY}'")  # a block may have changed it
    except duckdb.Error:  # somebody still reads from it
        engine.close()
        return
    with _lock:
        _idle.append((path, engine))
        oldest = _idle.pop(0)[1] if len(_idle) > MOST_IDLE else None
    if oldest is not None:
        oldest.close()


def _forget() -> None:
    """A forked process has none of the threads that its parent's engines work with, nor perhaps a free lock.

    One more reference, which nobody drops, keeps the engines from ending: they would wait for those threads, which
    crashes the process.
    """
    global _lock
    _lock = threading.Lock()
    for _, engine in _idle:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
