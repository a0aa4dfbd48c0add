"""What subsets are held against, and what is not a measure of them."""

from pathlib import Path

import polars as pl
import pytest

from nait_assets.recipe import Recipe, Selection
from nait_assets.scoring.catalogue import THRESHOLDS
from nait_assets.selection.held_against import held_against, standing
from nait_assets_tests.small_home import build_home

METHOD = "nait_standardized"


@pytest.mark.parametrize(
    ("target", "selection", "n"),
    [("math", {}, 1), ("all", {}, 0), ("all", {"all": "top"}, 1), ("math", {"all": "top"}, 1)],
)
def test_rows_that_capabilities_took_in_turns_are_not_held_against_the_one_score_for_all(
    small_recipe: Recipe, tmp_path: Path, target: str, selection: dict[str, str], n: int
) -> None:
    """All rows that one capability of the demo took, the best of their kind, were said to be no better than chance."""
    warehouse = build_home(small_recipe, tmp_path / "home")
    row = pl.DataFrame([{"by_chance": 0.2, "n_judged": 40}], THRESHOLDS.written_columns)
    with warehouse.tables.transaction() as tables:
        for name in ("math", "all"):
            tables.append(THRESHOLDS, row, method=METHOD, target=name)
    recipe = small_recipe.model_copy(update={"selection": Selection(**selection)})
    with warehouse.tables.snapshot() as snapshot:
        found = held_against(recipe, snapshot, METHOD, target)
    assert len(found) == n
    stands = standing(found, pl.Series([0.1, 0.3]))
    assert (stands.n_below_chance, stands.sentence == "") == (n, not n)


def test_of_no_rows_nothing_is_said() -> None:
    """No row of none scores below chance, and none like the examples."""
    row = pl.DataFrame([{"method": "m", "target": "t", "by_chance": 0.2}], schema=THRESHOLDS.columns)
    assert standing(row, pl.Series([], dtype=pl.Float64)).sentence == ""
    assert standing(row, pl.Series([0.1])).of_one_row == "below 0.2, which 5 % of candidates reach by chance"
