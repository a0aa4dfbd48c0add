"""DuckDB without a file, started once and lent to one block after the other.

To start DuckDB takes 17 ms, to attach a file to it 1 ms. So a process keeps the engines that it has started; a file is
attached for one block and detached behind it, and other processes find it as free as if the engine had ended.
"""

import ctypes
import os
import threading

import duckdb

MOST_IDLE = 3
"""Engines that are kept while nobody uses them: as many files as are open at once."""

_idle: list[duckdb.DuckDBPyConnection] = []
_lock = threading.Lock()


def start() -> duckdb.DuckDBPyConnection:
    """An engine with no file attached: one that is idle, else a new one."""
    with _lock:
        return _idle.pop() if _idle else duckdb.connect()


def give_back(engine: duckdb.DuckDBPyConnection) -> None:
    """Keep an engine for the next block if its file can be detached, else end it: the file must not stay locked."""
    try:
        engine.execute("DETACH store")
    except duckdb.Error:  # somebody still reads from it
        engine.close()
        return
    with _lock:
        if len(_idle) < MOST_IDLE:
            _idle.append(engine)
            return
    engine.close()


def _forget() -> None:
    """A forked process has none of the threads that its parent's engines work with, nor perhaps a free lock.

    One more reference, which nobody drops, keeps the engines from ending: they would wait for those threads, which
    crashes the process.
    """
    global _lock
    _lock = threading.Lock()
    for engine in _idle:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
