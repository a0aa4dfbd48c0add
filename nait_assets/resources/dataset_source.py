"""Data sets as their owners publish them: local files and the hub, row by row, with a fingerprint.

A row that cannot be read is yielded with its reason instead of its fields, so that nothing is dropped in silence.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.errors import SourceError
from nait_assets.recipe import Recipe, Source
from nait_assets.resources.files import HashCache
from nait_assets.resources.hub import hub_commit, hub_error


@dataclass(frozen=True)
class SourceRow:
    """One row of a source.

    Attributes:
        number: Line of a .jsonl file, else the row's place in the source; counted from 1.
        fields: Columns and values; empty where the row could not be read.
        problem: Why the row could not be read, or None.
        excerpt: The beginning of an unreadable row.
    """

    number: int
    fields: dict[str, Any]
    problem: str | None = None
    excerpt: str = ""


def fingerprint_of(source: Source, recipe: Recipe, hashes: HashCache) -> str:
    """The state that a source is in: the file's SHA-256, or the hub repository's commit.

    Raises:
        SourceError: The file does not exist or may not be read, or the hub cannot be reached.
    """
    if source.hub_id is not None:
        return hub_commit(source.hub_id, source.revision, "dataset")
    file = _local_file(source, recipe)
    try:
        return hashes.sha256(file)[:16]
    except OSError as error:
        raise SourceError(f"{recipe.path}: {file} (source {source.source!r}) cannot be read: {error}") from error


def read_rows(source: Source, recipe: Recipe) -> Iterator[SourceRow]:
    """Every row of a source, in its order.

    Raises:
        SourceError: The source does not exist, cannot be reached, or is not the kind of file that it is named.
    """
    if source.hub_id is not None:
        yield from _hub_rows(source)
        return
    file = _local_file(source, recipe)
    yield from READERS[file.suffix](file)


def _local_file(source: Source, recipe: Recipe) -> Path:
    file = recipe.resolve(source.source)
    if not file.is_file():
        raise SourceError(
            f"{recipe.path}: there is no file {file} (source {source.source!r}). "
            "Relative paths start at the recipe's folder."
        )
    if file.suffix not in READERS:
        raise SourceError(
            f"{recipe.path}: {file} has an unknown ending; use {', '.join(READERS)}, or 'hub:<org>/<name>'."
        )
    return file


def _jsonl_rows(file: Path) -> Iterator[SourceRow]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            excerpt = line[:80].decode("utf-8", errors="replace").strip()
            try:
                fields = json.loads(line.rstrip().decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield SourceRow(number, {}, f"invalid UTF-8 at byte {error.start} of the line", excerpt)
            except json.JSONDecodeError as error:
                yield SourceRow(number, {}, f"invalid JSON: {error.msg} at column {error.colno}", excerpt)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
                yield SourceRow(number, {}, f"unreadable JSON: {error}", excerpt)
            else:
                yield _row_of(number, fields, excerpt)


def _row_of(number: int, fields: Any, excerpt: str) -> SourceRow:
    if isinstance(fields, dict):
        return SourceRow(number, fields)
    return SourceRow(number, {}, f"a JSON {type(fields).__name__}, not an object", excerpt)


def _json_rows(file: Path) -> Iterator[SourceRow]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file} is not JSON in UTF-8: {error}") from error
    if not isinstance(rows, list):
        raise SourceError(
            f"{file} holds a JSON {type(rows).__name__}; a list of objects is needed (one object a line is .jsonl)."
        )
    for number, fields in enumerate(rows, start=1):
        yield _row_of(number, fields, str(fields)[:80])


def _csv_rows(file: Path) -> Iterator[SourceRow]:
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for number, fields in enumerate(csv.DictReader(lines), start=1):
            texts = [*filter(None, fields), *(value for value in fields.values() if isinstance(value, str))]
            excerpt = " ".join(texts)[:80].encode("utf-8", errors="replace").decode()
            if any("\udc80" <= character <= "\udcff" for text in texts for character in text):
                yield SourceRow(number, {}, "invalid UTF-8", excerpt)
            elif None in fields:
                yield SourceRow(number, {}, "more fields than the header has", excerpt)
            else:
                yield SourceRow(number, dict(fields))


def _parquet_rows(file: Path) -> Iterator[SourceRow]:
    try:
        frame = pl.read_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{file} is not a readable Parquet file: {error}") from error
    for number, fields in enumerate(frame.iter_rows(named=True), start=1):
        yield SourceRow(number, fields)


READERS: dict[str, Callable[[Path], Iterator[SourceRow]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _hub_rows(source: Source) -> Iterator[SourceRow]:
    import datasets

    assert source.hub_id is not None
    configs = (source.config,) if source.config is None or isinstance(source.config, str) else source.config
    commit = hub_commit(source.hub_id, source.revision, "dataset")
    number = 0
    for config in configs:
        try:
            rows = datasets.load_dataset(source.hub_id, config, split=source.split, revision=commit)
        except Exception as error:  # as above
            raise hub_error(source.hub_id, source.revision, "dataset", error) from error
        for fields in rows:
            number += 1
            yield SourceRow(number, fields)
