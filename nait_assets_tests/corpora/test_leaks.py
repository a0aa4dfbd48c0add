"""Held-out rows that are candidates or in-domain examples too: named, before anything is trained or read by a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.corpora.leaks import MOST_NAMED, require_apart
from nait_assets.errors import DataError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import CONTAMINATED_CANDIDATES, EXAMPLE
from nait_assets.training.tables import PROBE_SUBSETS
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import in_domain_rows, pool_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
CORPORA = ("--select", "group:corpora")
TRAINING = {"probes": {"number": 4, "rows": 15, "uniform": 4}}


def rows_of(*numbers: int) -> pl.DataFrame:
    """Rows of a corpus, by the number in their id."""
    rows = [{"sample_id": f"row{number}", "source": "exam.jsonl", "source_row": number} for number in numbers]
    return pl.DataFrame(rows, schema={name: EXAMPLE[name] for name in ("sample_id", "source", "source_row")})


def leaking(make_recipe: MakeRecipe, folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Recipe:
    """A recipe whose task and held-out set have some rows beside their own."""
    for name in ("exam", "quiz"):
        own = [{"messages": row["messages"]} for row in (*in_domain_rows(name), *rows)]
        write_jsonl(folder / f"{name}.jsonl", own)
    held_out = {"quiz": {"source": "quiz.jsonl"}}
    evaluation = {"held_out": held_out, "tasks": {"math": {"source": "exam.jsonl"}}}
    return make_recipe(methods=["random"], evaluation=evaluation, **fields)


def test_a_row_of_the_pool_is_named(make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path) -> None:
    """With its file and number, and what to do; no model was read, and nothing trained."""
    model = {"source": str(causal_folder), "dtype": "float32"}
    recipe = leaking(make_recipe, tmp_path, pool_rows(3)[2:], training=TRAINING, model=model)
    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "home")
    assert answer.code == 2
    for corpus in ("tasks/math", "evaluation/quiz"):
        assert f"{corpus} and the candidate pool share 1 row, " in answer.err
    assert "(exam.jsonl, row 5)" in answer.err
    assert "`decontamination: {action: drop}`" in answer.err
    assert not (tmp_path / "home" / "training").exists()


def test_dropped_candidates_are_no_leak_of_anything_that_is_trained(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Nor of probes, which were drawn from the whole pool."""
    fields = {"training": TRAINING, "decontamination": {"action": "drop"}}
    recipe = leaking(make_recipe, tmp_path, pool_rows(3), **fields)
    home = quick_home(tmp_path / "home")
    run(recipe, home, "--select", "+key:training/probe_subsets")
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        dropped = set(tables.rows(CONTAMINATED_CANDIDATES)["sample_id"])
        drawn = set(tables.rows(PROBE_SUBSETS)["sample_id"])
    assert len(dropped) == 3
    assert len(drawn) == 17
    assert not dropped & drawn


def test_an_in_domain_row_is_named_whatever_is_dropped(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """It has helped to choose."""
    fields = {"training": TRAINING, "decontamination": {"action": "drop"}}
    recipe = leaking(make_recipe, tmp_path, in_domain_rows("code")[:2], **fields)
    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "home", *CORPORA)
    assert answer.code == 2
    assert "tasks/math and capability code share 2 rows, " in answer.err
    assert "`skip` and `limit`" in answer.err
    assert "action: drop" not in answer.err


def test_a_recipe_that_trains_nothing_reports_alone(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """As before; training added to it makes the same home's rows a leak."""
    recipe, home = leaking(make_recipe, tmp_path, pool_rows(3)), quick_home(tmp_path / "home")
    run(recipe, home, *CORPORA)
    recipe = leaking(make_recipe, tmp_path, pool_rows(3), training=TRAINING)
    answer = nait("run", "--recipe", recipe.path, "--home", home, *CORPORA)
    assert answer.code == 2
    assert "share 3 rows" in answer.err


def test_of_many_rows_the_first_are_named(make_recipe: MakeRecipe) -> None:
    """And how many more there are; corpora that share none are not mentioned."""
    recipe = make_recipe(training={})
    examples = {"math": rows_of(100), "evaluation/quiz": rows_of(100), "tasks/exam": rows_of(*range(9))}
    require_apart(make_recipe(), rows_of(*range(20)), examples)
    recipe = make_recipe(training={})
    with pytest.raises(DataError) as raised:
        require_apart(recipe, rows_of(*range(20)), examples)
    said = str(raised.value)
    assert "tasks/exam and the candidate pool share 9 rows, row0 (exam.jsonl, row 0), row1 " in said
    assert f"and {9 - MOST_NAMED} more" in said
    assert "evaluation/quiz and capability math share 1 row, row100" in said
    assert "tasks/exam and capability" not in said
    require_apart(recipe, rows_of(50), {"math": rows_of(1), "tasks/exam": rows_of(2)})
