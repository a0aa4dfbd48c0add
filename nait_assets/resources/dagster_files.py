"""Whether the files of a home's Dagster instance can be read: its settings, and the SQLite files of its storage.

Belongs here: what is damaged, told without opening the instance. What is in the files is Dagster's own affair.
"""

import os
import sqlite3
import urllib.parse
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef

SETTINGS = "dagster.yaml"
_BUSY = ("locked", "busy")


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of an instance, a sentence each; nothing where there is no instance.

    Args:
        folder: The instance's folder, `<home>/dagster`.
    """
    if folder.exists() and not folder.is_dir():
        return [f"{folder} is no folder"]
    found = _settings_faults(folder) if (folder / SETTINGS).exists() else []
    return found + [fault for file in sorted(folder.rglob("*.db")) for fault in _database_faults(file)]


def _settings_faults(folder: Path) -> list[str]:
    file = folder / SETTINGS
    try:
        stored = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError("it is no mapping")
        InstanceRef.from_dir(str(folder))
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, dg.DagsterError) as error:
        said = " ".join(str(error).split())[:200]
        return [f"{file} is damaged ({type(error).__name__}: {said}); delete it: it is made again with our settings"]
    return []


def _database_faults(file: Path) -> list[str]:
    if not file.is_file():
        return [f"{file} is no file"]
    if file.stat().st_size == 0:
        return [f"{file} is empty"]
    options = "mode=ro" if os.access(file.parent, os.W_OK) else "immutable=1"  # else SQLite makes a file beside it
    try:
        connection = sqlite3.connect(f"file:{urllib.parse.quote(str(file))}?{options}", uri=True)
        try:
            ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        said = "ok" if any(word in str(error).lower() for word in _BUSY) else str(error)
    return [] if said == "ok" else [f"{file} is damaged: {' '.join(said.split())}"]
