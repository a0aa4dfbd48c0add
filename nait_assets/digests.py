"""The content hash of columns, of which no more than a part has to be in memory.

Belongs here: what is hashed of a column, and in which form. Does not belong here: where columns come from, and in which
order: of a frame in `tables`, of a stored table in `resources`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

NUMBERS = (pl.List(pl.Float32), pl.List(pl.Int32))
"""Types of columns that are hashed as plain numbers: the rows' lengths, and their numbers behind one another."""
SLICE_ROWS = 10_000


def digest_of_columns(
    kinds: Mapping[str, Any],
    n_rows: int,
    has_nulls: Callable[[str], bool],
    parts_of: Callable[[str], Iterable[pl.Series]],
) -> str:
    """SHA-256 of columns, hex; it does not depend on how a column is cut into parts.

    Args:
        kinds: Polars types by name.
        n_rows: Rows of each.
        has_nulls: Function from a column's name to whether it has nulls; it is asked of columns of numbers.
        parts_of: Function from a column's name to its parts, in the order of the rows; it is called twice for lists.
    """
    digest = hashlib.sha256()
    for name in sorted(kinds):
        kind = kinds[name]
        digest.update(f"{name}:{n_rows}:".encode())
        if kind in NUMBERS:
            lengths = [part.list.len() for part in parts_of(name)]
            digest.update(_bytes(pl.concat([pl.Series(dtype=pl.UInt32), *lengths])))
            for part in parts_of(name):
                digest.update(_bytes(part.explode(empty_as_null=False)))
        elif kind.is_numeric() and not has_nulls(name):
            for part in parts_of(name):
                digest.update(_bytes(part))
        else:
            for part in parts_of(name):
                for few in part.to_frame().iter_slices(
                    SLICE_ROWS
                ):  # as Python objects, rows take many times their room
                    for value in few.to_series().to_list():
                        text = repr(value).encode()
                        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def _bytes(column: pl.Series) -> bytes:
    return np.ascontiguousarray(column.to_numpy()).tobytes()
