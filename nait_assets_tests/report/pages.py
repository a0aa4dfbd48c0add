"""A page over the small home, with texts that would be markup if anything let them."""

from pathlib import Path

import polars as pl

from nait_assets.lineage import Record
from nait_assets.recipe import Recipe, rounded_up
from nait_assets.report.assets import _compared
from nait_assets.report.contents import Page, build_page
from nait_assets.report.page_data import read
from nait_assets.resources import Warehouse
from nait_assets.tables import CANDIDATE_POOL, SUBSETS, scores_table
from nait_assets_tests.small_home import build_home

HOSTILE = (
    "</script><img src=x onerror=\"window.hacked='text'\"><!--<script>window.hacked='script'</script>{{ 7 * 7 }}\u2028"
)
HOSTILE_TOPIC = "<b onmouseover=\"window.hacked='topic'\">topic</b>"


def home_with_subsets(recipe: Recipe, folder: Path, text: str = "", topic: str = HOSTILE_TOPIC) -> Warehouse:
    """The small home with every subset; with `text` in front of each question, and `topic` with it."""
    warehouse = build_home(recipe, folder)
    with warehouse.tables.snapshot() as tables:
        scores = {
            (method, target): tables.read(scores_table(method), target=target)
            for method in recipe.methods
            for target in recipe.targets
        }
        pool = tables.read(CANDIDATE_POOL)
    if text:
        rows = pool.to_dicts()
        for row in rows:
            row["topic"] = topic
            row["messages"] = [{**part, "content": text + part["content"]} for part in row["messages"]]
        pool = pl.DataFrame(rows, schema=CANDIDATE_POOL.columns)
    with warehouse.tables.transaction() as tables:
        tables.replace(CANDIDATE_POOL, pool)
        for (method, target), frame in scores.items():
            for ratio in recipe.ratios:
                best = frame.sort("rank", nulls_last=True).head(rounded_up(ratio, len(frame)))
                chosen = best.drop("target", "turn", "reason")
                tables.replace(SUBSETS, chosen, method=method, target=target, ratio=ratio)
                tables.put_record(Record(f"selection/{method}_subset", f"{target}|{ratio}", "1", "version"))
    comparison, _ = _compared(recipe, warehouse)
    with warehouse.tables.transaction() as tables:
        for table, frame in comparison.tables():
            tables.replace(table, frame)
        tables.put_record(Record("report/method_comparison", "", "1", comparison.data_version))
    return warehouse


def page_of(recipe: Recipe, folder: Path, text: str = "", topic: str = HOSTILE_TOPIC) -> Page:
    """The page of a recipe over the small home."""
    return build_page(read(recipe, home_with_subsets(recipe, folder, text, topic)))
