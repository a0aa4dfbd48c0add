"""Rows while a source is read: kept as columns, sampled by content, and recognised where they repeat.

What is kept of a row is a few hundred bytes more than its text as columns, and many times that as Python objects.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl

from nait_assets.recipe import Source, seeded_order
from nait_assets.resources.spooled_rows import PART_ROWS, SpooledRows
from nait_assets.tables import EXAMPLE

MOST_KNOWN = 4096
"""Different rows that are recognised when they come again."""
T = TypeVar("T")


class Rows:
    """Rows that are gathered one by one and kept as columns, on disk where they are many.

    Args:
        schema: Columns.
        folder: As for `SpooledRows`.
    """

    def __init__(self, schema: pl.Schema, folder: Path | None = None):
        self._schema, self._rows = schema, list[Mapping[str, Any]]()
        self._stored = SpooledRows(schema, folder)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= PART_ROWS:
            self._pack()

    def stored(self) -> SpooledRows:
        """All rows, in the order in which they came."""
        self._pack()
        return self._stored

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, by their place, of all that came."""
        stored = self.stored()
        wanted = np.zeros(len(stored), bool)
        wanted[rows] = True
        self._stored = stored.select(wanted)

    def _pack(self) -> None:
        self._stored.append(pl.DataFrame(self._rows, schema=self._schema))
        self._rows = []


class Sample:
    """The examples after the first `skip`, at most `limit`, in an order seeded by content, given in source order.

    Each example's rank depends on its own content alone, so one row more changes at most one row of the sample, and
    samples with the same seed and adjoining `skip` and `limit` are disjoint. Kept are those that may be taken.

    Args:
        source: Source that the examples are of.
        folder: As for `SpooledRows`.
    """

    def __init__(self, source: Source, folder: Path | None = None):
        self._seed, self._skip = str(source.seed), source.skip
        self._end = None if source.limit is None else source.skip + source.limit
        self._kept = Rows(EXAMPLE, folder)
        self._n_added = self._n_kept = 0

    def add(self, example: Mapping[str, Any]) -> None:
        """Take an example, distinct from those before."""
        self._n_added, self._n_kept = self._n_added + 1, self._n_kept + 1
        self._kept.add(example)
        if self._end is not None and self._n_kept > 2 * self._end + PART_ROWS:
            self._n_kept = self._select(0)

    def taken(self) -> tuple[SpooledRows, int]:
        """The sample, and how many examples are not in it."""
        if self._skip or self._end is not None:
            self._select(self._skip)
        taken = self._kept.stored()
        return taken, self._n_added - len(taken)

    def _select(self, begin: int) -> int:
        order = seeded_order(self._kept.stored().frame("sample_id")["sample_id"].to_list(), self._seed)[
            begin : self._end
        ]
        self._kept.select(order)
        return len(order)


class KnownRows(Generic[T]):
    """What became of the latest different rows, so that a file of equal ones, however long, is soon read.

    A row is known by the hash of how Python writes it, which distinguishes 1, 1.0 and True.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, T] = OrderedDict()
        self._fields: Mapping[str, Any] | None = None
        self._key: bytes | None = None

    def get(self, fields: Mapping[str, Any]) -> T | None:
        """What became of an equal row; None where none is known."""
        if fields is not self._fields:
            self._fields, self._key = fields, _key(fields)
        return None if self._key is None else self._known.get(self._key)

    def put(self, outcome: T) -> None:
        """Note what became of the row that was asked for last."""
        if self._key is None:
            return
        self._known[self._key] = outcome
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def _key(fields: Mapping[str, Any]) -> bytes | None:
    """What a row is known by; None where it cannot be written."""
    try:
        return hashlib.blake2b(repr(fields).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    except RecursionError:
        return None
