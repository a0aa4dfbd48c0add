"""What is trained is trained again when what it reads changed, and only then: what is measured by it rests on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.conftest import conversation, less_sections, pool_rows, write_jsonl

LESS, EXPERIENCED = "measurements/less_checkpoints", "measurements/pre_experienced_model"
MEASURED = {
    "measurements/candidate_gradients",
    "measurements/candidate_experienced_outputs",
    "measurements/candidate_experienced_answers",
}


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe], causal_folder: Path) -> Recipe:
    """Both trainings, small."""
    less = less_sections(share=0.5, epochs=2, rank=2, alpha=4, learning_rate=0.01, batch_size=4, dimensions=16)
    return make_recipe(
        methods=["less", "ifd_pre_experienced"],
        model={"source": str(causal_folder), "dtype": "float32"},
        measurements={**less, "pre_experienced_model": {"clusters": 2, "per_cluster": 2, "rank": 2}},
        ratios=[0.3],
    )


def versions(home: Path) -> dict[str, str]:
    """Of what was trained."""
    records = Warehouse(home=str(home)).records()
    return {name: records[name].data_version for name in (LESS, EXPERIENCED)}


def changed(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The pool with other topics, from other rows of its file, in another order."""
    return {
        "topic": [{**row, "topic": "another"} for row in rows],
        "source_row": [{"messages": "refused"}, *rows],
        "order": rows[::-1],
    }


@pytest.mark.slow
def test_a_row_s_topic_or_place_trains_nothing_again(recipe: Recipe, tmp_path: Path) -> None:
    """The pool's version covers them, and no training reads them; a warm-up made again may cost a day of a GPU."""
    home, rows = quick_home(tmp_path / "home"), pool_rows()
    run(recipe, home)
    before = versions(home)
    times = {file: file.stat().st_mtime_ns for file in (home / "trained").rglob("*.safetensors")}
    for pool in changed(rows).values():
        write_jsonl(tmp_path / "pool.jsonl", pool)
        made = {name.split("[")[0] for name in run(recipe, home)}
        assert "corpora/candidate_pool" in made
        assert versions(home) == before
        assert {file: file.stat().st_mtime_ns for file in (home / "trained").rglob("*.safetensors")} == times


@pytest.mark.slow
def test_other_rows_and_damaged_files_train_again(recipe: Recipe, tmp_path: Path) -> None:
    """And what is measured by it is measured again."""
    home, rows = quick_home(tmp_path / "home"), pool_rows()
    run(recipe, home)
    before = versions(home)
    write_jsonl(tmp_path / "pool.jsonl", [conversation("two dogs?", "a mat of cats"), *rows[10:]])
    assert {name.split("[")[0] for name in run(recipe, home)} >= MEASURED
    after = versions(home)
    assert all(after[name] != before[name] for name in before)
    for file in (home / "trained").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    write_jsonl(tmp_path / "pool.jsonl", [{**rows[0], "topic": "another"}, *rows[1:]])
    run(recipe, home)
    assert versions(home) == before
