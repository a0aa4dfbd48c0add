"""Rows about candidates, where they are stored or in memory, and what methods do with them block by block.

Belongs here: everything that a method needs that reads one row a candidate. Does not belong here: where the rows come
from (`inputs`), and activations, which come layer by layer (`method.Block`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from nait_assets.resources.row_blocks import MOST_ROWS, RowBlock


@dataclass(frozen=True)
class StoredRows:
    """One row for each of some candidates, which stay on disk: each reading streams them anew.

    Attributes:
        columns: Columns of the table.
        sample_ids: The candidates, in ascending order.
        stream: Function from columns and candidates to blocks.
    """

    columns: pl.Schema
    sample_ids: Sequence[str]
    stream: Callable[[Sequence[str], Sequence[str]], Iterator[RowBlock]]

    def of(self, sample_ids: Sequence[str]) -> "StoredRows":
        """Those of some of the candidates, in their order."""
        return replace(self, sample_ids=sample_ids)

    def blocks(self, *columns: str) -> Iterator[RowBlock]:
        """Some columns, all by default, in the order of the file; indices count along `sample_ids`."""
        return self.stream(columns or list(self.columns), self.sample_ids)

    def frame(self, *columns: str) -> pl.DataFrame:
        """Some columns, all by default, in memory and in the order of `sample_ids`."""
        wanted = columns or tuple(self.columns)
        found = list(self.blocks(*wanted))
        if not found:
            return pl.DataFrame(schema={name: self.columns[name] for name in wanted})
        return pl.concat([rows for _, rows in found])[np.argsort(np.concatenate([places for places, _ in found]))]


CandidateRows = pl.DataFrame | StoredRows
"""Rows about candidates: those of a small table, or of one that need not fit the memory."""


def frame_of(rows: CandidateRows, *columns: str) -> pl.DataFrame:
    """Some columns, all by default, in memory."""
    if isinstance(rows, StoredRows):
        return rows.frame(*columns)
    return rows.select(columns) if columns else rows


def blocks_of(rows: CandidateRows, *columns: str) -> Iterator[RowBlock]:
    """Some columns, all by default, a part of the rows after the other; in memory the rows stand in their places."""
    if isinstance(rows, StoredRows):
        yield from rows.blocks(*columns)
        return
    frame = frame_of(rows, *columns)
    for begin in range(0, len(frame), MOST_ROWS):
        part = frame[begin : begin + MOST_ROWS]
        yield np.arange(begin, begin + len(part)), part


def rows_of(rows: CandidateRows, sample_ids: Sequence[str]) -> CandidateRows:
    """The rows of some candidates, in their order."""
    if isinstance(rows, StoredRows):
        return rows.of(sample_ids)
    wanted = pl.DataFrame({"sample_id": sample_ids}, {"sample_id": pl.String})
    return wanted.join(rows, on="sample_id", how="inner", maintain_order="left")


def vectors(column: pl.Series) -> np.ndarray:
    """`(n_rows, width)` of a column of lists of one length, without a copy where they lie side by side."""
    lists = column.to_arrow()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def values_of(
    n_candidates: int, rows: Iterator[RowBlock], of_rows: Callable[[pl.DataFrame], Sequence[float] | np.ndarray]
) -> np.ndarray:
    """`(n_candidates,)` float64 numbers, each made of one row.

    Args:
        n_candidates: Number of candidates.
        rows: A row of each.
        of_rows: Function from n rows to `(n,)` numbers.
    """
    found = np.full(n_candidates, np.nan)
    for places, block in rows:
        found[places] = of_rows(block)
    return found


def in_memory(rows: Mapping[str, CandidateRows], sample_ids: Sequence[str]) -> dict[str, pl.DataFrame]:
    """By key the rows of some candidates, of those outputs that have a row of each."""
    few = {key: frame_of(rows_of(found, sample_ids)) for key, found in rows.items() if _has_ids(found)}
    return {key: frame for key, frame in few.items() if len(frame) == len(sample_ids)}


def _has_ids(rows: CandidateRows) -> bool:
    return "sample_id" in rows.columns
