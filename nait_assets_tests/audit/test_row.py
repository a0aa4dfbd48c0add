"""Where a row came from, and why it was chosen."""

from pathlib import Path

import polars as pl

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import SUBSETS, scores_table
from nait_assets_tests.command import nait


def test_a_chosen_row_is_traced_to_its_source_and_to_its_subsets(recipe: Recipe, home: Path) -> None:
    """The question that a reviewer asks of a strange training example."""
    warehouse = Warehouse(home=str(home))
    with warehouse.tables.snapshot() as snapshot:
        rows = snapshot.rows(SUBSETS, method="nait_standardized", target="math").sort("rank")
        pool = {
            row[0]: row
            for row in snapshot.connection.execute(
                "SELECT sample_id, source, source_row FROM corpora.candidate_pool"
            ).fetchall()
        }
        revision = snapshot.records()["corpora/candidate_pool"].inputs["source:0:pool.jsonl"]
    best = rows.row(0, named=True)
    answer = nait("audit", "--row", best["sample_id"][:12], "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    _, source, source_row = pool[best["sample_id"]]
    assert f"row {source_row} of {source}" in answer.out
    assert f"source at revision {revision}, read 20" in answer.out
    last = rows.filter(pl.col("ratio") == "0.30")["score"][-1]
    why = f"rank 1 of 20, score {best['score']:+.5f}; in 0.30 (the lowest score of its 6 rows is {last:+.5f})"
    assert f"nait_standardized/math: {why}" in answer.out
    with warehouse.tables.snapshot() as snapshot:
        taken = snapshot.rows(scores_table("nait_standardized"), target="all").filter(target_turn=2)["sample_id"][0]
    answer = nait("audit", "--row", taken, "--recipe", recipe.path, "--home", home)
    assert "in 0.30 (in the turns of math, each of which took its best row left)" in answer.out


def test_a_row_that_was_left_out_says_so(recipe: Recipe, home: Path) -> None:
    """Why an example is not in is asked as often."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        query = "SELECT sample_id FROM scoring.nait_scores WHERE target = 'code' AND rank = 20"
        ((worst,),) = snapshot.connection.execute(query).fetchall()
    answer = nait("audit", "--row", worst, "--recipe", recipe.path, "--home", home)
    assert "nait/code: rank 20 of 20" in answer.out
    line = next(line for line in answer.out.splitlines() if "nait/code" in line)
    assert line.endswith("in no subset")


def test_a_row_that_nobody_knows_is_bad_input(recipe: Recipe, home: Path) -> None:
    """One message, which says where ids stand."""
    answer = nait("audit", "--row", "feedbeef", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    assert "no candidate has it" in answer.err
