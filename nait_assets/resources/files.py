"""Files and folders: written whole or not at all, and hashed once for each state that they are in."""

import contextlib
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

_taken: ContextVar[dict[Path, str] | None] = ContextVar("_taken", default=None)
"""Hashes that the present block has taken; None outside of `hashes_from_bytes`."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.touch(exist_ok=False)  # not `mkstemp`: what it makes, only its owner may read
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path, only_writer: bool = True) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        folder: What is there is replaced, whole.
        only_writer: Whether no other process writes this folder now: then what killed writers left beside it is
            removed. Else whoever ends first stays, as another process may be reading what it wrote.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if only_writer:
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()  # not `mkdtemp`: what it makes, only its owner may read
    try:
        yield temporary
        if only_writer or not folder.exists():
            put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(made: Path, folder: Path) -> None:
    """Rename a folder over another, which a file system does not do in one step for a folder that holds files.

    Killed between the two renames, a run leaves no folder at all, never half of one: the old one lies beside its place.
    """
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there, and the folders above it that are empty then, but not the home's."""
    if path.is_dir():
        shutil.rmtree(path)
    elif not path.exists():
        return
    else:
        path.unlink()
    for above in path.parents:
        if (above / "home.json").exists() or any(above.iterdir()):
            return
        above.rmdir()


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder, by their names in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}


def folder_version(folder: Path) -> str:
    """Hash of the names and the content of all files in a folder, 16 hex digits."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in hashes_of(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@contextlib.contextmanager
def hashes_from_bytes(taken: dict[Path, str]) -> Iterator[None]:
    """A block that takes no hash from `HashCache`: each file is read, whatever its size and time say.

    Who edits a file can put its time back, as `cp -p` and `rsync -t` do without meaning to.

    Args:
        taken: hashes by path that such blocks have taken; the block adds its own.
    """
    token = _taken.set(taken)
    try:
        yield
    finally:
        _taken.reset(token)


def remembers() -> bool:
    """Whether what an earlier block found out about a file may be used: not within `hashes_from_bytes`."""
    return _taken.get() is None


class HashCache:
    """What is known of files, remembered by path, size and time of change: model weights are large to hash."""

    def __init__(self, path: Path):
        self.path = path

    def sha256(self, file: Path) -> str:
        """SHA-256 of a file, read again only if its size or time differs from when it was last hashed.

        Within `hashes_from_bytes`, it is read once.
        """
        taken = _taken.get()
        if taken is None:
            return self.remembered(file, "", sha256)
        path = file.resolve()
        if path not in taken:
            taken[path] = sha256(file)
        return taken[path]

    def remembered(self, file: Path, what: str, find: Callable[[Path], str]) -> str:
        """What `find` says of a file, asked again only if the file's size or time differs from when it was last asked.

        Args:
            file: A file that exists.
            what: Name of what is found out, "" for the hash.
            find: Function from the file to a string.
        """
        key = f"{_state(file)}{what and f':{what}'}"
        known = self._known()
        if key not in known:
            known[key] = find(file)
            with (
                contextlib.suppress(OSError),
                replacing(self.path) as temporary,
            ):  # a read-only home still gets its hash
                temporary.write_text(json.dumps(known, indent=1, sort_keys=True))
        return known[key]

    def faults(self) -> list[str]:
        """What is wrong with the file: that it is damaged, or remembers a hash that a file does not have."""
        try:
            known = self._read()
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            return [f"{self.path} is damaged ({type(error).__name__}: {error}); delete it: it is made again"]
        return [
            f"{self.path} remembers another hash of {file} than it has; delete it: it is made again"
            for key, value in sorted(known.items())
            if (found := re.fullmatch(r"(.+):\d+:\d+", key)) and (file := Path(found[1])).is_file()
            if key == _state(file) and value != self.sha256(file)
        ]

    def _known(self) -> dict[str, str]:
        try:
            return self._read()
        except (OSError, ValueError, RecursionError):  # a damaged cache is no cache
            return {}

    def _read(self) -> dict[str, str]:
        known = json.loads(self.path.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
            raise ValueError("it is no JSON object of strings")
        return known


def _state(file: Path) -> str:
    """Path, size and time of change of a file, in a line."""
    state = file.stat()
    return f"{file.resolve()}:{state.st_size}:{state.st_mtime_ns}"
