"""A subset beside others: numbers that people watch over time."""

from pathlib import Path

import polars as pl
import pytest

from nait_assets.resources import Warehouse
from nait_assets.selection.comparison import changes, overlap, overlaps, stored_subsets
from nait_assets.tables import SUBSETS


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [("ab", "ab", 1), ("ab", "cd", 0), ("abcd", "cdef", 0.5), ("abcd", "a", 1), ("abcd", "ax", 0.5), ("", "ab", 0)],
)
def test_overlap_is_the_share_of_the_smaller_selection(one: str, other: str, share: float) -> None:
    """Methods drop different rows, so subsets of one ratio can differ in size; one inside the other shares it all."""
    assert overlap(one, other) == overlap(other, one) == share


def test_a_change_counts_what_came_and_what_went() -> None:
    """A subset that keeps its size can have changed altogether; one number for the size would hide it."""
    assert changes(["a", "b", "c"], ["c", "d", "e", "f"]) == {
        "n_rows_gained": 3.0,
        "n_rows_lost": 2.0,
        "overlap_with_previous": 1 / 3,
    }
    assert changes(["a", "b"], ["b", "a"])["n_rows_gained"] == 0.0


def test_the_first_version_has_nothing_to_be_compared_with() -> None:
    """A thousand rows gained at the first run would dwarf every later point of the plot."""
    assert changes(None, ["a", "b"]) == {}
    assert changes([], ["a"]) == {"n_rows_gained": 1.0, "n_rows_lost": 0.0, "overlap_with_previous": 0.0}


def test_other_targets_come_in_the_order_of_what_they_share() -> None:
    """Which capability competes for the same rows is what the table is looked at for."""
    frame = overlaps(["a", "b", "c", "d"], {"chat": ["x"], "all": ["a", "b", "c", "e"], "math": ["d", "x"]})
    assert frame.equals(
        pl.DataFrame({"target": ["all", "math", "chat"], "n_shared": [3, 1, 0], "overlap": [0.75, 0.5, 0.0]})
    )
    assert overlaps(["a"], {}).is_empty()


def test_subsets_of_targets_that_the_recipe_no_longer_has_are_not_compared(tmp_path: Path) -> None:
    """A capability that was renamed would fail the check of its own new subset, which has the same rows."""
    row = pl.DataFrame({"sample_id": ["a"], "score": [1.0], "rank": [1]})
    with Warehouse(home=str(tmp_path)).tables.transaction() as tables:
        for target in ("math", "maths", "all"):
            tables.replace(SUBSETS, row, method="random", target=target, ratio="0.10")
        assert stored_subsets(tables, "random", "0.10", ["maths", "all"]) == {"all": ["a"], "maths": ["a"]}
