"""A folder that can be made again, such as converted weights, with a manifest of its files' hashes.

What is wrong in it is found before it is read, and the folder made again: one flipped weight shows in no error, only in
every score.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nait_assets.resources.files import remembers, replacing_folder, sha256

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_found_whole: dict[Path, tuple[object, ...]] = {}
"""Folders that this process has read and found whole, with the state that their files were in."""


def verified_folder(folder: Path, made_by: Mapping[str, str], make: Callable[[Path], None]) -> Path:
    """The folder, made if it is not there, and made again, which the log says, where it is not as it was written.

    Every file is read once a process; after that, while size and times are the same, the folder is taken as it is.

    Args:
        folder: Place of the folder.
        made_by: Versions of the libraries that make it, by name: by others it is made again.
        make: Function that fills an empty folder.
    """
    if not folder.is_dir():
        _make(folder, made_by, make)
        return folder
    state = _state(folder)
    if remembers() and _found_whole.get(folder) == state:
        return folder
    wrong = [*faults(folder), *_made_by_others(folder, made_by)]
    if wrong:
        log.warning("%s is made again: %s", folder, "; ".join(wrong))
        shutil.rmtree(folder)
        _make(folder, made_by, make)
    else:
        _found_whole[folder] = state
    return folder


def faults(folder: Path) -> list[str]:
    """What of a folder is not as its manifest says, a sentence each; every file is read."""
    try:
        stated = _manifest(folder)["sha256"]
        wanted = {str(name): str(value) for name, value in stated.items()}
    except FileNotFoundError:
        return [f"it has no {MANIFEST}, so nothing says what its files were"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"its {MANIFEST} is damaged ({type(error).__name__})"]
    there = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - there.keys())),
        *(f"{name} is no file of it" for name in sorted(there.keys() - wanted.keys())),
        *(
            f"{name} is not as it was written"
            for name, file in there.items()
            if name in wanted and sha256(file) != wanted[name]
        ),
    ]


def _make(folder: Path, made_by: Mapping[str, str], make: Callable[[Path], None]) -> None:
    with replacing_folder(folder, only_writer=False) as temporary:
        make(temporary)
        hashes = {file.relative_to(temporary).as_posix(): sha256(file) for file in _files(temporary)}
        (temporary / MANIFEST).write_text(json.dumps({"made_by": dict(made_by), "sha256": hashes}, indent=1) + "\n")


def _made_by_others(folder: Path, made_by: Mapping[str, str]) -> list[str]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        before = _manifest(folder)["made_by"]
        return [] if before == made_by else [f"it was made by {before}, and {dict(made_by)} is here"]
    return []  # `faults` says what is wrong with the manifest


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / MANIFEST)


def _state(folder: Path) -> tuple[object, ...]:
    """Names, sizes and times of all files; the time of change of a file's entry cannot be put back as the other can."""
    stats = ((file, file.stat()) for file in sorted(folder.rglob("*")))
    return tuple((str(file), found.st_size, found.st_mtime_ns, found.st_ctime_ns) for file, found in stats)
