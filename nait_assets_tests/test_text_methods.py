"""Methods that read words and lists of others, all rooms together: without a model, and audited."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.inputs import gathered
from nait_assets.scoring.methods.bm25 import METHOD, Bm25Options
from nait_assets.tables import SUBSETS, published_table, scores_table
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import conversation, pool_rows, write_jsonl

METHODS = ["bm25", "bm25_nearest", "dsir", "length_long", "length_short", "balanced_random", "cherry"]
LISTED = [11, 2, 17, 5, 8]
"""Rows of the pool, counted from 0, in the order of the list."""


def list_rows(numbers: list[int]) -> list[dict[str, Any]]:
    """Rows of the pool as a list, one row that the pool lacks, and rows of another list."""
    pool = pool_rows()
    listed = [pool[number] for number in numbers]
    return [
        *({**row, "list": "cherry"} for row in [*listed, conversation("not in the pool?", "no")]),
        *({**row, "list": "other"} for row in pool[:3]),
    ]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the home of the module is kept once it is made."""
    return {"home": tmp_path_factory.mktemp("texts") / "home"}


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Recipe:
    """All of these methods for one capability; the list is 5 of the 20 candidates."""
    write_jsonl(tmp_path / "lists.jsonl", list_rows(LISTED))
    lists = {"cherry": {"source": "lists.jsonl", "where": {"list": "cherry"}}, "unused": {"source": "not-there.jsonl"}}
    return make_recipe(
        capabilities={"math": {"source": "math.jsonl"}},
        methods=METHODS,
        options={"dsir": {"per_ngram": True}, "bm25_nearest": {"method": "bm25", "over": "max"}},
        published=lists,
        ratios=[0.3],
    )


@pytest.fixture
def home(homes: dict[str, Path], recipe: Recipe, tmp_path: Path) -> Path:
    """A home in which everything of the recipe has been made: a copy, which the test may break."""
    if not homes["home"].exists():
        run(recipe, quick_home(homes["home"]))
    return Path(shutil.copytree(homes["home"], tmp_path / "home"))


def frames(home: Path, method: str, target: str) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """Scores of a target by rank, and its subsets by ratio."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        rows = snapshot.rows(SUBSETS, method=method, target=target).sort("rank")
        subsets = {ratio: found["sample_id"].to_list() for (ratio,), found in rows.group_by(["ratio"])}
        return snapshot.rows(scores_table(method), target=target).sort("rank", nulls_last=True), subsets


def test_no_model_is_read(home: Path) -> None:
    """Of methods that read words, a person without a GPU expects seconds."""
    made = {path.name for path in home.iterdir()}
    assert "warehouse.duckdb" in made
    assert "activations" not in made
    assert not [name for name in Warehouse(home=str(home)).records() if name.startswith(("extraction/", "features/"))]


def test_a_method_stands_in_a_recipe_twice_with_other_options(recipe: Recipe, home: Path) -> None:
    """So that two of its options can be compared in one home: each name has its own scores, subsets and description."""
    with gathered(recipe, Warehouse(home=str(home)), "bm25", "math") as found:
        inputs = replace(found.inputs, options=Bm25Options(over="max"))
        expected = dict(zip(inputs.sample_ids, METHOD.scores(inputs).values[:, 0].tolist(), strict=True))
    scores, _ = frames(home, "bm25_nearest", "math")
    assert dict(zip(scores["sample_id"], scores["score"], strict=True)) == expected
    assert expected != dict(frames(home, "bm25", "math")[0].select("sample_id", "score").iter_rows())
    assert "Here `bm25` with over: max." in (home / "subsets/bm25_nearest/math/0.30/README.md").read_text()
    named = ("--method", "bm25_nearest", "--target", "math")
    answer = nait("explain", scores["sample_id"][0], *named, "--recipe", recipe.path, "--home", home)
    assert answer.code == 0
    assert "bm25_nearest: what is its score made of?" in answer.out


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_scores_and_subsets_of_every_target(recipe: Recipe, home: Path, method: str) -> None:
    """6 of 20; of a list of 5, all that it has."""
    for target in recipe.targets:
        scores, subsets = frames(home, method, target)
        assert len(scores) == 20
        ranked = scores.filter(pl.col("reason").is_null())["sample_id"].to_list()
        assert subsets == {"0.30": ranked[:6]}
        assert len(ranked) == (5 if method == "cherry" else 20)


def test_turns_are_there_for_the_round_robin_over_examples(home: Path) -> None:
    """RDS+ chooses by turns; of methods that score by example each target has them."""
    scores, _ = frames(home, "bm25", "math")
    assert sorted(scores["turn"].to_list()) == list(range(1, 21))
    assert frames(home, "dsir", "math")[0]["turn"].null_count() == 20


def test_words_find_the_capability(home: Path) -> None:
    """Half of the pool says "math" in every row, as the in-domain examples do."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        topics = dict(snapshot.connection.execute("SELECT sample_id, topic FROM corpora.candidate_pool").fetchall())
    best = frames(home, "bm25", "math")[0]["sample_id"].to_list()[:10]
    assert [topics[name] for name in best].count("math") >= 9


def test_published_list_is_in_its_order_and_says_what_is_missing(home: Path) -> None:
    """The subset of a list is the list, as far as the pool has it."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        rows = snapshot.rows(published_table("cherry")).sort("position")
        ids = dict(snapshot.connection.execute("SELECT sample_id, source_row FROM corpora.candidate_pool").fetchall())
    assert [ids[name] - 1 for name in rows["sample_id"].to_list()] == LISTED
    assert frames(home, "cherry", "math")[1]["0.30"] == rows["sample_id"].to_list()
    shown = metadata_of(home, "corpora/published_cherry")
    assert (shown["n_rows_read"], shown["dagster/row_count"], shown["n_not_in_pool"]) == (9, 5, 1), "and 3 of another"


def test_second_run_makes_nothing_and_the_audit_holds(recipe: Recipe, home: Path) -> None:
    """Every hash from the subsets back to the file of the lists."""
    assert run(recipe, home) == set()
    answer = nait("audit", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.out + answer.err


def test_edited_list_is_noticed_and_reaches_its_own_subsets_alone(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """Another edition of the list must not pass for the first, nor make other methods' work again."""
    write_jsonl(tmp_path / "lists.jsonl", list_rows([2, 11, 17]))
    answer = nait("audit", "--recipe", recipe.path, "--home", home)
    assert answer.code != 0
    assert "source:0:lists.jsonl" in answer.out
    made = run(recipe, home)
    assert {name.partition("/")[0] for name in made if "cherry" not in name} <= {"report"}
    assert "corpora/published_cherry" in made
    assert {f"selection/cherry_subset[{target}|0.30]" for target in recipe.targets} <= made
    assert len(frames(home, "cherry", "math")[1]["0.30"]) == 3


def test_candidate_that_is_not_on_the_list_is_explained(recipe: Recipe, home: Path) -> None:
    """A row without a score is asked about, too."""
    scores, _ = frames(home, "cherry", "math")
    name = scores.filter(pl.col("reason").is_not_null())["sample_id"][0]
    audit = nait("audit", "--recipe", recipe.path, "--home", home, "--row", name)
    assert "cherry/math: no score: not on the list" in audit.out, audit.err
    explained = nait("explain", name, "--target", "math", "--recipe", recipe.path, "--home", home)
    assert "no score: not on the list" in explained.out, explained.err


def test_checks_that_cannot_hold_of_a_method_are_not_made(recipe: Recipe, home: Path) -> None:
    """Warnings that say nothing teach people to read over warnings."""
    from nait_assets.definitions import build_definitions

    checks = {
        f"{key.asset_key.path[1]}/{key.name}"
        for definition in build_definitions(recipe, home).asset_checks or []
        for key in definition.check_keys
    }
    assert "bm25_scores/length_is_not_the_score" in checks
    assert not {name for name in checks if name.startswith("length_") and name.endswith("length_is_not_the_score")}
    assert ("method_comparison/targets_differ" in checks) == (len(recipe.capability_names) > 1)
