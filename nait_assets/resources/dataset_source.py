"""Data sets as their owners publish them: files, folders, URLs and the hub, row by row, with a fingerprint.

Belongs here: what a source is read from. Does not belong here: which files it has (`source_files.py`) and how one is
read (`row_readers.py`).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nait_assets.errors import SourceError, UserError
from nait_assets.recipe import Recipe, Source
from nait_assets.resources.files import HashCache, folder_version
from nait_assets.resources.hub import hub_commit, hub_error
from nait_assets.resources.reading_progress import ReadingProgress
from nait_assets.resources.row_readers import BATCH_ROWS, rows_in, rows_of_table
from nait_assets.resources.source_files import files_of, fingerprint_of_files, saved_dataset
from nait_assets.resources.source_row import SourceRow

log = logging.getLogger(__name__)


def fingerprint_of(source: Source, recipe: Recipe, hashes: HashCache) -> str:
    """The state that a source is in: the SHA-256 of its files, or the hub repository's commit.

    Raises:
        SourceError: A file does not exist or may not be read, or the hub cannot be reached.
    """
    if source.hub_id is not None:
        return _dataset_commit(source)
    folder = saved_dataset(source, recipe)
    try:
        if folder is not None:
            return folder_version(folder)
        return fingerprint_of_files(files_of(source, recipe), hashes)
    except OSError as error:
        raise SourceError(f"{recipe.path}: source {source.name!r} cannot be read: {error}") from error


def read_rows(source: Source, recipe: Recipe, log_line: Callable[[str], None] | None = None) -> Iterator[SourceRow]:
    """Every row of a source, in its order, one after the other.

    Args:
        source: Source to read.
        recipe: Recipe that names it.
        log_line: Function that takes lines of progress, beside the logger.

    Raises:
        SourceError: The source does not exist, cannot be reached, or is not the kind of file that it is named.
    """
    progress = ReadingProgress(source.name, log_line)
    folder = None if source.hub_id is not None else saved_dataset(source, recipe)
    if source.hub_id is None and folder is None:
        yield from _file_rows(source, recipe, progress)
        return
    for row in _hub_rows(source) if folder is None else _saved_rows(folder, source, recipe):
        progress.row(row.number)
        yield row


def _file_rows(source: Source, recipe: Recipe, progress: ReadingProgress) -> Iterator[SourceRow]:
    files = files_of(source, recipe)
    progress.begin(files)
    begin = 0
    for file in files:
        progress.enter(file)
        number = 0
        for row in rows_in(file, source):
            number = row.number
            progress.row(number)
            where = f"{file.name}, row {row.number}: {row.excerpt}" if len(files) > 1 else row.excerpt
            yield row if begin == 0 and not row.problem else replace(row, number=begin + row.number, excerpt=where)
        begin += number


def _saved_rows(folder: Path, source: Source, recipe: Recipe) -> Iterator[SourceRow]:
    """Rows of what `save_to_disk` wrote."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder raises whatever its parts do
        raise SourceError(f"{folder} cannot be read by `datasets.load_from_disk`: {error}") from error
    if isinstance(rows, datasets.DatasetDict):
        if source.split not in rows:
            raise SourceError(
                f"{recipe.path}: {folder} has no split {source.split!r}; it has "
                f"{', '.join(map(str, rows))}. Set `split`."
            )
        rows = rows[source.split]
    yield from _dataset_rows(rows, 1)


def _dataset_rows(rows: Any, begin: int) -> Iterator[SourceRow]:
    for table in rows.with_format("arrow").iter(BATCH_ROWS):
        yield from rows_of_table(table, begin)
        begin += len(table)


def _dataset_commit(source: Source) -> str:
    """The commit that a hub data set's revision points to; without a connection, what the cache last knew of it."""
    assert source.hub_id is not None
    try:
        return hub_commit(source.hub_id, source.revision, "dataset")
    except UserError as error:
        cached = _cached_snapshot(source.hub_id, source.revision)
        if cached is None:
            raise
        log.warning("%s is read from the hub's cache, commit %s: %s", source.source, cached.name, error)
        return cached.name


def _cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache that holds a revision of a data set, or None; its name is the commit."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001  there are several ways in which nothing is there
        return None


def _hub_rows(source: Source) -> Iterator[SourceRow]:
    import datasets

    assert source.hub_id is not None
    configs = (source.config,) if source.config is None or isinstance(source.config, str) else source.config
    commit = _dataset_commit(source)
    number = 1
    for config in configs:
        try:
            rows = datasets.load_dataset(source.hub_id, config, split=source.split, revision=commit)
        except Exception as error:  # the hub's client raises half a dozen unrelated classes
            cached = _cached_snapshot(source.hub_id, commit)
            if cached is None:
                raise hub_error(source.hub_id, source.revision, "dataset", error) from error
            try:
                rows = datasets.load_dataset(str(cached), config, split=source.split)
            except Exception as other:  # as above
                raise hub_error(source.hub_id, source.revision, "dataset", other) from other
        yield from _dataset_rows(rows, number)
        number += len(rows)
