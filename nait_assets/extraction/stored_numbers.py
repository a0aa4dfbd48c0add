"""Activations on the disk: as they are, or as float16 with a scale for each row, in half the room.

A row's scale is a power of two that brings its largest number to between 2^14 and 2^15, so that nothing overflows, and
numbers down to a 2^29th of the largest keep 11 bits: a relative error of at most 2^-11, 0.05 %. What is read is
float32. To store it again gives the same bits.

Belongs here: the two ways to store, and who asks which one a file has. Does not belong here: the tables
(`activation_table`).
"""

from typing import Literal

import numpy as np
import pyarrow as pa

StoredAs = Literal["float32", "float16"]
HALF = pa.uint16()
"""Type of a float16's bits: DuckDB has no such numbers."""
LARGEST_EXPONENT = 15
SMALLEST_EXPONENT = -110
"""Of a row's largest number: below, its scale would be too small for float32."""


def scale_of(column: str) -> str:
    """Name of the column with the scales of a column of float16."""
    return f"{column}_scale"


def fields_of(column: str, width: int, store: StoredAs) -> list[tuple[str, pa.DataType]]:
    """The columns that hold vectors of a width, and their types."""
    if store == "float32":
        return [(column, pa.list_(pa.float32(), width))]
    return [(column, pa.list_(HALF, width)), (scale_of(column), pa.float32())]


def halved(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits of float16, `(n, width)` uint16, and scales `(n,)` float32, of finite `(n, width)` float32."""
    _, exponents = np.frexp(np.abs(values).max(axis=1, initial=0))
    scales = np.ldexp(np.float32(1), np.maximum(exponents, SMALLEST_EXPONENT) - LARGEST_EXPONENT)
    most = np.where(exponents > 127, np.float32(32752), np.float32(np.inf))[:, None]  # 2^128 is no float32
    return np.clip(values / scales[:, None], -most, most).astype(np.float16).view(np.uint16), scales


def whole(bits: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """`(n, width)` float32 of what `halved` made."""
    return bits.view(np.float16).astype(np.float32) * scales[:, None]


def vectors(batch: pa.RecordBatch | pa.Table, column: str) -> np.ndarray:
    """`(n, width)` float32 numbers of a column, whichever way they are stored; the batch has its scales, if any."""
    lists = batch[column]
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    found = lists.flatten().to_numpy().reshape(len(batch), lists.type.list_size)
    if lists.type.value_type != HALF:
        return found
    return whole(found, batch[scale_of(column)].to_numpy())


def number_in_sql(column: str, place: str, is_half: bool) -> str:
    """The expression of SQL for a number of a vector as float32.

    Args:
        column: Column of vectors.
        place: Expression for the number's place, counted from 0.
        is_half: Whether it is stored as float16.
    """
    bits = f"{column}[{place} + 1]"
    if not is_half:
        return bits
    exponent, fraction, sign = f"({bits} >> 10) & 31", f"({bits} & 1023)", f"(1 - 2 * ({bits} >> 15)::INTEGER)"
    small, usual = f"{fraction} * power(2.0, -24)", f"(1024 + {fraction}) * power(2.0, ({exponent})::INTEGER - 25)"
    return f"({sign} * CASE WHEN ({exponent}) = 0 THEN {small} ELSE {usual} END * {scale_of(column)})::FLOAT"
