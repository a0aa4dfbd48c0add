"""Data sets as their owners publish them: local files and the hub, row by row, with a fingerprint.

A row that cannot be read is yielded with its reason instead of its fields, so that nothing is dropped in silence.
"""

import csv
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.recipe import Recipe, RecipeError, Source
from nait_assets.resources.files import HashCache

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_TIMEOUT_SECONDS = 10.0
HUB_PATIENCE_SECONDS = 20.0
HUB_PAUSES_SECONDS = (1.0, 2.0)
BUSY_OR_OUT_OF_ORDER = (429, 500, 502, 503, 504)


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
        RecipeError: The file does not exist or may not be read, or the hub cannot be reached.
    """
    if source.hub_id is not None:
        return hub_commit(source.hub_id, source.revision, "dataset")
    file = _local_file(source, recipe)
    try:
        return hashes.sha256(file)[:16]
    except OSError as error:
        raise RecipeError(f"{recipe.path}: {file} (source {source.source!r}) cannot be read: {error}") from error


def read_rows(source: Source, recipe: Recipe) -> Iterator[SourceRow]:
    """Every row of a source, in its order.

    Raises:
        RecipeError: The source does not exist, cannot be reached, or is not the kind of file that it is named.
    """
    if source.hub_id is not None:
        yield from _hub_rows(source)
        return
    file = _local_file(source, recipe)
    yield from READERS[file.suffix](file)


def hub_commit(repository: str, revision: str | None, kind: str, timeout_seconds: float = HUB_TIMEOUT_SECONDS) -> str:
    """The commit that a revision of a hub repository points to; a full commit hash is taken as it is.

    A hub that is busy or out of order is asked again, a few times, and within `HUB_PATIENCE_SECONDS` in all.

    Args:
        repository: `<org>/<name>`.
        revision: Commit, tag or branch; the default branch if None.
        kind: "dataset" or "model".
        timeout_seconds: A hub that says nothing for so long counts as not reachable.

    Raises:
        RecipeError: The repository or revision does not exist or cannot be reached.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    latest_start = time.monotonic() + HUB_PATIENCE_SECONDS - timeout_seconds
    for pause_seconds in (*HUB_PAUSES_SECONDS, math.inf):
        try:
            sha = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=timeout_seconds).sha
            if sha is None:
                raise ValueError("the answer names no commit")
            return sha
        except Exception as error:  # the hub's client raises half a dozen unrelated classes
            wait_seconds = max(pause_seconds, _asked_to_wait_seconds(error))
            if time.monotonic() + wait_seconds > latest_start:
                raise hub_error(repository, revision, kind, error) from error
        time.sleep(wait_seconds)
    raise AssertionError("the last pause has no end")


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_to_wait_seconds(error: Exception) -> float:
    """What a busy hub says in `Retry-After`, 0 if it says nothing, and for ever where asking again would not help."""
    if _status(error) not in BUSY_OR_OUT_OF_ORDER:
        return math.inf
    said = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    return float(said) if said.isdecimal() else 0.0


def hub_error(repository: str, revision: str | None, kind: str, error: Exception) -> RecipeError:
    """What to tell a user whose hub repository could not be read."""
    flag = "--repo-type dataset " if kind == "dataset" else ""
    use = "name a file of it as `source`" if kind == "dataset" else "name the folder as the model's `source`"
    lines = [(str(error).strip().splitlines() or [""])[0], getattr(error, "server_message", None) or ""]
    reason = ". ".join(line.rstrip(".") for line in lines if line)
    return RecipeError(
        f"the hub's {kind} {repository!r} (revision {revision or 'default'}) cannot be read: "
        f"{type(error).__name__}: {reason}. {_advice(error)} To use a local copy: "
        f"`hf download {flag}{repository} --local-dir FOLDER` where there is a connection, then {use}."
    )


def _advice(error: Exception) -> str:
    if _status(error) in BUSY_OR_OUT_OF_ORDER:
        seconds = _asked_to_wait_seconds(error)
        return f"The hub is busy or out of order; try again {f'in {seconds:g} s' if seconds else 'later'}."
    if _status(error) in (401, 403):
        return "Check HF_TOKEN, and that its owner has been given access on the repository's page."
    return "Check its name, your connection and, for a gated one, HF_TOKEN."


def _local_file(source: Source, recipe: Recipe) -> Path:
    file = recipe.resolve(source.source)
    if not file.is_file():
        raise RecipeError(
            f"{recipe.path}: there is no file {file} (source {source.source!r}). "
            "Relative paths start at the recipe's folder."
        )
    if file.suffix not in READERS:
        raise RecipeError(
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
        raise RecipeError(f"{file} is not JSON in UTF-8: {error}") from error
    if not isinstance(rows, list):
        raise RecipeError(
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
        raise RecipeError(f"{file} is not a readable Parquet file: {error}") from error
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
