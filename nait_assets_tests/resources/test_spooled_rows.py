"""Rows that wait on disk come back as they were, in their order, however many there are."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.resources.spooled_rows import PART_ROWS, SpooledFrames, SpooledRows
from nait_assets.tables import EXAMPLE, VECTOR

SCHEMA = pl.Schema({"number": pl.Int64(), "text": pl.String(), "vector": VECTOR, **{"messages": EXAMPLE["messages"]}})


def rows(begin: int, end: int) -> pl.DataFrame:
    """Rows of all kinds of columns that tables have, some of them null."""
    return pl.DataFrame(
        {
            "number": range(begin, end),
            "text": [None if n % 7 == 0 else f"text {n}" for n in range(begin, end)],
            "vector": [[float(n), 0.5] if n % 5 else [] for n in range(begin, end)],
            "messages": [[{"role": "user", "content": f"{n}\u2028'"}] * (n % 3) for n in range(begin, end)],
        },
        schema=SCHEMA,
    )


def spooled(folder: Path, *sizes: int) -> SpooledRows:
    """Rows that came in parts of some sizes."""
    found, begin = SpooledRows(SCHEMA, folder / "made for it"), 0
    for size in sizes:
        found.append(rows(begin, begin + size))
        begin += size
    return found


@pytest.mark.parametrize("sizes", [(), (3,), (PART_ROWS,), (PART_ROWS - 1, 2, 3 * PART_ROWS, 5)])
def test_rows_come_back_as_they_were_in_their_order(sizes: tuple[int, ...], tmp_path: Path) -> None:
    """Whether they stayed in memory or went to disk, twice, and while two go through them."""
    found = spooled(tmp_path, *sizes)
    assert len(found) == sum(sizes)
    assert found.frame().equals(rows(0, sum(sizes)))
    for one, other in zip(found.parts("number"), found.parts("text", "number"), strict=True):
        assert one.equals(other.select("number"))
    assert all(len(part) <= max(PART_ROWS, *sizes) for part in found.parts())


def test_rows_that_are_selected_stay_in_order(tmp_path: Path) -> None:
    """What `limit` leaves out of a source is told by a mask."""
    found = spooled(tmp_path, 2 * PART_ROWS, 10)
    wanted = np.arange(len(found)) % 3 == 1
    assert found.select(wanted).frame().equals(rows(0, len(found)).filter(pl.Series(wanted)))


def test_many_rows_leave_no_file_behind(tmp_path: Path) -> None:
    """A killed process would leave a copy of the pool in the home, which the audit would call foreign."""
    found = spooled(tmp_path, 3 * PART_ROWS)
    assert list((tmp_path / "made for it").iterdir()) == []
    assert len(SpooledFrames({"a": found})["a"]) == 3 * PART_ROWS
