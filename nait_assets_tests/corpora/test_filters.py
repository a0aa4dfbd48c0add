"""The filters of a recipe: what they find is never chosen, everywhere said, and no more than needed is made again."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.definitions import build_definitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import SUBSETS
from nait_assets.training.planned import pool_to_train_on
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import WORDS, conversation, pool_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
LONG = " ".join(WORDS[place % len(WORDS)] + str(place) for place in range(40))
NEAR = {"near_duplicates": {}}
FILTERED, SUBSET = "corpora/filtered_candidates", "selection/random_subset[math|1.00]"


def with_repeats(make_recipe: MakeRecipe, folder: Path, **fields: Any) -> Recipe:
    """Twelve rows, three of them of a second file nearly as one of the first, and one with the same answer."""
    first = [*pool_rows(8), conversation("What is said?", LONG)]
    second = [conversation("what is said", f"{LONG} {word}") for word in ("x", "y")]
    write_jsonl(folder / "pool.jsonl", first)
    write_jsonl(folder / "more.jsonl", [*second, conversation("And who says so at all?", LONG)])
    candidates = [{"source": "pool.jsonl"}, {"source": "more.jsonl"}]
    return make_recipe(**{"methods": ["random"], "ratios": [0.5, 1.0], "candidates": candidates, **fields})


def rows_of(home: Path, table: Any, **where: str) -> list[str]:
    """Sample ids of a table's rows, in order."""
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        return sorted(tables.rows(table, **where)["sample_id"].to_list())


def test_a_recipe_without_the_section_has_no_trace_of_it(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """What is not asked for costs nothing and is not shown."""
    specs = build_definitions(make_recipe(methods=["random"]), tmp_path / "home").resolve_all_asset_specs()
    assert FILTERED not in {"/".join(spec.key.path) for spec in specs}


def test_near_duplicates_are_never_chosen_and_everywhere_said(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Across files; the ratio is a share of the rest; whoever looks for the row learns why it is not there."""
    recipe, home = with_repeats(make_recipe, tmp_path, filters=NEAR), quick_home(tmp_path / "home")
    run(recipe, home)
    left_out = rows_of(home, FILTERED_CANDIDATES)
    chosen = rows_of(home, SUBSETS, target="math", ratio="1.00")
    assert (len(left_out), len(chosen)) == (2, 10)
    assert not set(left_out) & set(chosen)
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        assert sorted(pool_to_train_on(recipe, tables)["sample_id"]) == chosen
        query = "SELECT DISTINCT sample_id, ineligible FROM scoring.scores WHERE ineligible IS NOT NULL ORDER BY 1"
        shown = tables.connection.execute(query).fetchall()
    assert [name for name, _ in shown] == left_out
    for command in (("explain", left_out[0], "--target", "math"), ("audit", "--row", left_out[0])):
        told = nait(*command, "--recipe", recipe.path, "--home", home)
        assert f"may not be chosen: {shown[0][1]}" in told.out, told.out + told.err
    summary = nait("summary", "--recipe", recipe.path, "--home", home).out
    assert "corpora/filtered_candidates: 12 rows read: 10 used, 2 rejected (2 x near_duplicates)" in summary
    sentence = "0 ask what another of the rows asks, 1 answer what another answers, 0 nearly repeat another"
    assert f"math/1.00: of 10 rows, {sentence}" in summary
    folder = home / "subsets" / "random" / "math" / "1.00"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"Of the 10 rows, {sentence}." in card
    assert "2 x near_duplicates" in card
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["n_repeated_answers"], manifest["n_near_duplicates"]) == (1, 0)
    page = (home / "report" / "index.html").read_text(encoding="utf-8")
    assert "may not be chosen: near_duplicates" in page
    assert re.search("<td[^>]*>0 / 1 / 0</td>", page)
    for command in ("status", "audit"):
        answer = nait(command, "--recipe", recipe.path, "--home", home)
        assert answer.code == 0, answer.out + answer.err


def test_only_what_rests_on_a_changed_filter_is_made_again(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """No score is made again for another threshold, and no subset where it finds the same."""
    recipe, home = with_repeats(make_recipe, tmp_path, filters=NEAR), quick_home(tmp_path / "home")
    run(recipe, home)
    same = with_repeats(make_recipe, tmp_path, filters={"near_duplicates": {"jaccard_threshold": 0.85}})
    assert run(same, home) == {FILTERED}
    stricter = with_repeats(make_recipe, tmp_path, filters={"near_duplicates": {"jaccard_threshold": 1.0}})
    made = run(stricter, home)
    assert {FILTERED, SUBSET} <= made
    assert {name.split("/")[0] for name in made} == {"corpora", "selection", "report"}
    reported = with_repeats(make_recipe, tmp_path, filters={**NEAR, "action": "report"})
    assert {FILTERED, SUBSET} <= run(reported, home)
    assert len(rows_of(home, SUBSETS, target="math", ratio="1.00")) == 12
    card = (home / "subsets" / "random" / "math" / "1.00" / "README.md").read_text(encoding="utf-8")
    assert "2 nearly repeat another." in card
    without = with_repeats(make_recipe, tmp_path)
    assert SUBSET in run(without, home)
    status = nait("status", "--recipe", without.path, "--home", home)
    assert status.code == 0
    assert FILTERED in status.out.split("outputs that the recipe no longer has")[1]
    assert nait("clean", "--recipe", without.path, "--home", home, "--yes").code == 0
    assert nait("audit", "--recipe", without.path, "--home", home).code == 0


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        (
            "INSERT INTO corpora.filtered_candidates VALUES ('0', 'min_answer_words', 1.0, NULL, 'x')",
            "rows_are_candidates",
        ),
        ("UPDATE corpora.filtered_candidates SET duplicate_of = sample_id", "first_ones_stay"),
    ],
)
def test_the_checks_fail_where_they_should(make_recipe: MakeRecipe, tmp_path: Path, statement: str, check: str) -> None:
    """A group of which no row stays is lost without a trace."""
    from nait_assets.corpora.checks import check_filtered

    recipe, home = with_repeats(make_recipe, tmp_path, filters=NEAR), quick_home(tmp_path / "home")
    run(recipe, home, "--select", "group:corpora")
    warehouse = Warehouse(home=str(home))
    assert all(result.passed for result in check_filtered(warehouse).values())
    with warehouse.tables.transaction() as tables:
        tables.connection.execute(statement)
    found = check_filtered(warehouse)
    assert [name for name, result in found.items() if not result.passed] == [check]
