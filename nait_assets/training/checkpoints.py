"""Checkpoints of a training under way: which are whole, and from which one a killed training goes on.

transformers resumes from a checkpoint that lacks a file without a word, with other weights. So each checkpoint gets a
list of its files and their sizes once all processes have written theirs, and one that does not match it is refused.
Only then are earlier ones removed: whenever a training is killed, `KEPT` whole ones are there if as many were written.
"""

import json
import shutil
from pathlib import Path

from nait_assets.resources.files import replacing

FILES = "files.json"
KEPT = 2
"""The last, and the one before it for where the last is damaged."""


def seal(checkpoint: Path) -> None:
    """Note which files a checkpoint consists of, once it is whole."""
    sizes = {name: (checkpoint / name).stat().st_size for name in _files(checkpoint)}
    with replacing(checkpoint / FILES) as temporary:
        temporary.write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def remove_earlier(folder: Path) -> None:
    """Remove all but the last `KEPT` checkpoints, once the last is sealed.

    The trainer's own `save_total_limit` removes before that, and goes by the times of folders.

    Args:
        folder: Folder that the trainer writes checkpoints into.
    """
    for checkpoint in _in_order(folder)[:-KEPT]:
        shutil.rmtree(checkpoint)


def fault_of(checkpoint: Path) -> str:
    """Why a checkpoint cannot be gone on from; "" if it can."""
    try:
        sizes = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was not written to its end"
    missing = sorted(set(sizes) - set(_files(checkpoint)))
    if missing:
        return f"it lacks {', '.join(missing)}"
    changed = [name for name, size in sizes.items() if (checkpoint / name).stat().st_size != size]
    return f"{', '.join(changed)} changed" if changed else ""


def last_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The latest checkpoint that is whole, and a sentence about each later one, which is removed.

    Args:
        folder: Folder that the trainer writes checkpoints into.
    """
    refused: list[str] = []
    for checkpoint in reversed(_in_order(folder)):
        fault = fault_of(checkpoint)
        if not fault:
            return checkpoint, refused
        refused.append(f"{checkpoint.name} is refused: {fault}")
        shutil.rmtree(checkpoint)
    return None, refused


def _in_order(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))


def _files(checkpoint: Path) -> list[str]:
    found = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != FILES)
    return sorted(file.relative_to(checkpoint).as_posix() for file in found)
