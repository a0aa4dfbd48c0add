"""Which files a source is, and how each is opened: paths, folders, patterns, lists and URLs, compressed or not.

Belongs here: what is looked up and what is no data. Does not belong here: the rows in a file (`row_readers.py`).
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from nait_assets.errors import SourceError
from nait_assets.recipe import Recipe, Source
from nait_assets.recipe.paths import expand
from nait_assets.resources.files import HashCache

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "croissant.json")
"""Files beside data that hold none."""
SPLITS = {"train": "train", "test": "test", "eval": "test", "validation": "validation", "valid": "validation"}
SPLITS |= {"val": "validation", "dev": "validation"}
SPLIT_WORD = re.compile(rf"(?:^|[-._ /])({'|'.join(SPLITS)})(?=$|[-._ /])")
LFS = b"version https://git-lfs.github.com/spec/"
ANNEX = b"/annex/objects/"
WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--", b"<body", b"<error")
ANSWERS = (
    b"404",
    b"403",
    b"401",
    b"not found",
    b"entry not found",
    b"repository not found",
    b"access to ",
    b"access denied",
)
"""With what short texts begin that a server sends in place of a file."""
OTHERS = {
    b"PK\x03\x04": "a ZIP archive, or an Excel workbook: unpack it, or save it as CSV",
    b"SQLite format 3": "an SQLite database: save the table's rows as CSV or Parquet",
    b"%PDF": "a PDF document: it holds no rows",
    b"\x89HDF": "an HDF5 file: save its rows as Parquet",
}
"""Files of other programs, by their first bytes, and what to do."""
VERSION_FIELDS = ("ETag", "etag", "md5Hash", "crc32c", "sha256", "blob_id", "oid", "lfs", "content_md5")
"""What remote file systems call the hash of a file's content."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: Absolute, or a URL.
        name: As messages name it.
    """

    path: str
    name: str

    @property
    def is_remote(self) -> bool:
        """Whether the path is a URL."""
        return "://" in self.path

    @property
    def kind(self) -> str:
        """Its ending, without that of a compression, in lower case; "" where it has none that is known."""
        endings = [ending.lower() for ending in PurePosixPath(self.path).suffixes]
        if endings and endings[-1] in COMPRESSIONS:
            endings.pop()
        return endings[-1] if endings and endings[-1] in KINDS else ""

    @cached_property
    def head(self) -> bytes:
        """The first bytes, as they are stored."""
        with self.stored() as file:
            return file.read(512)

    @property
    def compression(self) -> str | None:
        """How it is compressed, by its first bytes: an ending may be wrong."""
        return next((name for magic, name in MAGIC.items() if self.head.startswith(magic)), None)

    def stored(self) -> IO[bytes]:
        """The file as it is stored."""
        if not self.is_remote:
            file = Path(self.path).open("rb")  # noqa: SIM115  the caller closes it
            self._reading.file = file
            return file
        with remote(self.path):
            import fsspec

            return fsspec.open(self.path, "rb").open()

    def open(self) -> IO[bytes]:
        """The file's content, uncompressed while it is read."""
        compression, file = self.compression, self.stored()
        if compression == "gzip":
            return cast("IO[bytes]", gzip.open(file))
        if compression == "bz2":
            return bz2.BZ2File(file)
        if compression == "xz":
            return lzma.LZMAFile(file)
        if compression == "zstd":
            import pyarrow as pa

            return io.BufferedReader(_Raw(pa.CompressedInputStream(pa.PythonFile(file), "zstd")))
        return file

    @cached_property
    def _reading(self) -> "_Reading":
        return _Reading()

    def states_rows(self, n_rows: int) -> None:
        """Note how many rows the file says that it has."""
        self._reading.n_rows = n_rows

    def share_read(self, number: int) -> float:
        """Share of a local file that has been read, in [0, 1].

        Args:
            number: Number of the row that was read last.
        """
        if self._reading.n_rows:
            return min(1.0, number / self._reading.n_rows)
        file = self._reading.file
        if file is None or file.closed:
            return 1.0
        return min(1.0, file.tell() / max(1, Path(self.path).stat().st_size))

    def require_data(self) -> None:
        """Whether the file can hold rows.

        Raises:
            SourceError: It is empty, or something else was saved in its place.
        """
        head = self.head
        if self.compression is not None:
            with self.open() as content:
                head = content.read(512)
        start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
        if not head:
            raise SourceError(
                f"{self.path} is empty, 0 bytes: nothing was written to it. Download or write it again, or name other "
                "files."
            )
        if start.startswith(LFS):
            size = re.search(rb"size (\d+)", head)
            whole = f" of {int(size.group(1)):,} bytes" if size else ""
            raise SourceError(
                f"{self.path} is a Git LFS pointer, not the file{whole}: run `git lfs pull` in its repository (`git "
                "lfs install` first, where that is not known), or download it by `hf download --repo-type dataset`."
            )
        if start.startswith(ANNEX):
            raise SourceError(
                f"{self.path} is a git-annex pointer, not the file: run `git annex get` in its repository."
            )
        if start[:20].lower().startswith(WEB_PAGES):
            raise SourceError(
                f"{self.path} is a web page (HTML), not data: an address with `/blob/` shows a page, and so does one "
                "that asks for a log-in. Download the file itself: `curl -L -o FILE URL`, on the hub with `/resolve/` "
                "in the place of `/blob/`, or `hf download --repo-type dataset`."
            )
        if len(head) < 200 and b"\n" not in head.strip() and start.lower().startswith(ANSWERS):
            raise SourceError(
                f"{self.path} holds the answer of a server, {head.decode(errors='replace').strip()!r}, not data: look "
                "at the address, log in where it asks for that, and download the file again."
            )
        other = next((what for mark, what in OTHERS.items() if start.startswith(mark)), None)
        if other is not None:
            raise SourceError(f"{self.path} is {other}.")
        if self.compression is not None and any(head.startswith(magic) for magic in MAGIC):
            raise SourceError(f"{self.path} is compressed twice: unpack it once, and keep the ending of what is left.")
        if self.head.startswith(b"PAR1") and self.kind not in ("", ".parquet"):
            raise SourceError(f"{self.path} is a Parquet file: give it the ending .parquet.")


@dataclass
class _Reading:
    """How far a file is read: the file as it was last opened, and the rows that it says it has."""

    file: IO[bytes] | None = None
    n_rows: int = 0


class _Raw(io.RawIOBase):
    """A stream of Arrow's, as Python's buffers read one."""

    def __init__(self, stream: Any):
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextlib.contextmanager
def remote(url: str) -> Iterator[None]:
    """A block that looks at a URL: what goes wrong there is told in one sentence."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # each file system raises its own
        protocol = url.split("://", 1)[0]
        package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(protocol)
        if isinstance(error, ImportError) and package:
            raise SourceError(f"{url}: to read {protocol}://, `pip install {package}`.") from error
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from error


def files_of(source: Source, recipe: Recipe) -> list[SourceFile]:
    """The files of a source, sorted by name where they come from a folder or a pattern.

    Raises:
        SourceError: There is none, or it is of an unknown kind, or a folder holds files of several kinds.
    """
    names = [source.source] if isinstance(source.source, str) else list(source.source)
    found = [file for name in names for file in _files_named(name, source, recipe)]
    for file in found:
        if not file.kind:
            raise SourceError(
                f"{recipe.path}: {file.path} has an unknown ending; use {', '.join(KINDS)}, these with "
                f"{', '.join(COMPRESSIONS)} behind, or 'hub:<org>/<name>'."
            )
    return found


def saved_dataset(source: Source, recipe: Recipe) -> Path | None:
    """The folder that `datasets.Dataset.save_to_disk` wrote, where a source names one."""
    if not isinstance(source.source, str) or "://" in expand(source.source, recipe.path):
        return None
    folder = recipe.resolve(source.source)
    is_saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    return folder if is_saved else None


def fingerprint_of_files(files: Sequence[SourceFile], hashes: HashCache) -> str:
    """The state of files: a single local one's SHA-256, else a hash of all names and states, 16 hex digits.

    Raises:
        OSError: A file may not be read.
        SourceError: A URL cannot be reached.
    """
    states = [(file.name, _remote_state(file) if file.is_remote else hashes.sha256(Path(file.path))) for file in files]
    if len(states) == 1:
        return states[0][1][:16]
    lines = "".join(f"{state}  {name}\n" for name, state in states)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _files_named(name: str, source: Source, recipe: Recipe) -> list[SourceFile]:
    written = expand(name, recipe.path)
    if "://" in written:
        return _remote_files(written, name)
    path = recipe.resolve(name)
    if path.is_file():
        return [SourceFile(str(path), path.name)]
    if path.is_dir():
        return _files_in(path, source, recipe)
    if "*" in name:
        return _files_like(path, name, recipe)
    beside = " Relative paths start at the recipe's folder."
    if "[" in name or "?" in name:
        beside += " `[`, `]` and `?` are taken as they stand; a pattern has a `*`."
    raise SourceError(f"{recipe.path}: there is no file {path} (source {name!r}).{beside}")


def _files_like(path: Path, name: str, recipe: Recipe) -> list[SourceFile]:
    parts = path.parts
    first = next(place for place, part in enumerate(parts) if "*" in part)
    root = Path(*parts[:first])
    pattern = re.sub(r"([\[?])", r"[\1]", "/".join(parts[first:]))
    try:
        found = sorted(file for file in root.glob(pattern) if file.is_file() and not _is_hidden(file.relative_to(root)))
    except ValueError as error:
        raise SourceError(f"{recipe.path}: source {name!r}: {error}.") from error
    if not found:
        raise SourceError(
            f"{recipe.path}: no file is like {path} (source {name!r}). Relative paths start at the recipe's folder."
        )
    return [SourceFile(str(file), file.relative_to(root).as_posix()) for file in found]


def _files_in(folder: Path, source: Source, recipe: Recipe) -> list[SourceFile]:
    """The data in a folder and its folders: all of it, or the files of one split where names have one."""
    found = [SourceFile(str(file), file.relative_to(folder).as_posix()) for file in sorted(folder.rglob("*"))]
    found = [one for one in found if one.kind and Path(one.path).is_file() and not _is_hidden(Path(one.name))]
    found = [one for one in found if Path(one.path).name not in DESCRIPTIONS]
    if not found:
        there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise SourceError(
            f"{recipe.path}: the folder {folder} holds no file of rows ({', '.join(KINDS)}), but {there}."
        )
    kinds = sorted({one.kind for one in found})
    if len(kinds) > 1:
        raise SourceError(
            f"{recipe.path}: the folder {folder} holds files of several kinds, {', '.join(kinds)}, such as "
            f"{found[0].name} and {next(one.name for one in found if one.kind != found[0].kind)}. Name those to read "
            f"by a pattern, such as {source.name.rstrip('/')}/*{found[0].kind}."
        )
    splits = {one.name: _split_of(one.name) for one in found}
    if set(splits.values()) == {None}:
        return found
    wanted = SPLITS.get(source.split, source.split)
    taken = [one for one in found if splits[one.name] == wanted]
    unnamed = [name for name, split in splits.items() if split is None]
    if not taken or unnamed:
        problem = f"no file of the split {source.split!r}" if not taken else f"{unnamed[0]!r}, which is of no split"
        raise SourceError(
            f"{recipe.path}: the folder {folder} holds {problem}. Its files: {', '.join(list(splits)[:8])}. Set "
            f"`split`, or name those to read by a pattern, such as {source.name.rstrip('/')}/*{found[0].kind}."
        )
    return taken


def _split_of(name: str) -> str | None:
    words = SPLIT_WORD.findall(name.lower())
    return SPLITS[words[-1]] if words else None


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _remote_files(url: str, name: str) -> list[SourceFile]:
    with remote(url):
        import fsspec

        system, path = fsspec.url_to_fs(url)
        if "*" in url:
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = sorted(system.find(path))
        else:
            return [SourceFile(url, PurePosixPath(path).name)]
        files = [SourceFile(system.unstrip_protocol(one), PurePosixPath(one).name) for one in found]
        files = [one for one in files if one.kind and one.name not in DESCRIPTIONS]
    if not files:
        raise SourceError(f"no file of rows is at {url} (source {name!r}).")
    return files


def _remote_state(file: SourceFile) -> str:
    """What a file system says of a file's content, or else its SHA-256."""
    with remote(file.path):
        import fsspec

        system, path = fsspec.url_to_fs(file.path)
        info = system.info(path)
        said = {name: str(info[name]) for name in VERSION_FIELDS if info.get(name)}
        if said:
            return hashlib.sha256(repr(sorted(said.items())).encode()).hexdigest()
        digest = hashlib.sha256()
        with file.stored() as content:
            while block := content.read(2**20):
                digest.update(block)
        return digest.hexdigest()
