"""A home from Python: what is read is what the files and tables hold, and what is not there is said."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from nait_assets import Home
from nait_assets.audit.why import why
from nait_assets.errors import DamagedError, NotFoundError, WarehouseError
from nait_assets.recipe import PROJECT_ROOT, Recipe
from nait_assets.resources import Warehouse

METHOD, TARGET = "nait_standardized", "code"


@pytest.fixture
def opened(recipe: Recipe, home: Path) -> Home:
    """The finished home of `recipe`."""
    return Home(recipe.path, home)


def test_a_subset_is_a_data_set_of_the_rows_in_its_files(opened: Home) -> None:
    found = opened.subset(METHOD, TARGET, 0.3)
    file = opened.folder / "subsets" / METHOD / TARGET / "0.30" / "train.jsonl"
    written = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert found["messages"][:] == written
    assert found["rank"][:] == sorted(found["rank"])
    assert len(found) == 6


def test_a_subset_is_verified_before_it_is_handed_out(opened: Home) -> None:
    file = opened.folder / "subsets" / METHOD / TARGET / "0.30" / "train.parquet"
    pl.read_parquet(file).head(3).write_parquet(file)
    with pytest.raises(DamagedError, match=r"train\.parquet"):
        opened.subset(METHOD, TARGET, "0.30")


def test_scores_are_the_ranking_best_first(opened: Home) -> None:
    scores = opened.scores(METHOD, TARGET)
    assert scores["rank"].to_list() == list(range(1, 21))
    assert scores["score"].is_sorted(descending=True)
    assert set(scores["sample_id"]) == set(opened.candidates()["sample_id"])
    assert opened.subset(METHOD, TARGET, 0.3)["sample_id"][:] == scores["sample_id"].head(6).to_list()


def test_every_output_that_is_a_table_can_be_read(opened: Home) -> None:
    made = opened.outputs()
    assert len(made) == len(Warehouse(home=str(opened.folder)).records())
    of_files = made.filter(pl.col("output").str.contains("_subset$|^report/selection_report$"))
    assert len(of_files) == 3 * 3 + 1  # methods x targets, and the report
    for output, partition in made.select("output", "partition").iter_rows():
        if output in of_files["output"]:
            with pytest.raises(NotFoundError, match=re.escape(str(opened.folder))):  # it says where the files lie
                opened.read(output, partition)
        elif output == "report/method_comparison":
            with pytest.raises(NotFoundError, match="no table of its own"):
                opened.read(output, partition)
        else:
            assert opened.read(output, partition).columns


def test_an_explanation_is_that_of_the_command(opened: Home) -> None:
    best = opened.scores(METHOD, TARGET)["sample_id"][0]
    found = opened.explain(best, TARGET, METHOD)
    assert found.sample["sample_id"] == best
    assert found.score == why(opened.recipe, Warehouse(home=str(opened.folder)), best, TARGET, 5, METHOD).score


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda home: home.subset("nait_best", TARGET, 0.3), "it has nait, "),
        (lambda home: home.subset(METHOD, "cooking", 0.3), "it has code, "),
        (lambda home: home.subset(METHOD, TARGET, 0.5), "it has 0.30"),
        (lambda home: home.subset(METHOD, TARGET, 30), "0, 1"),
        (lambda home: home.scores(METHOD, "cooking"), "it has code, "),
        (lambda home: home.examples("all"), "it has code, "),
        (lambda home: home.read("scoring/nothing"), "scoring/random_scores"),
        (lambda home: home.explain("zz", TARGET), "zz"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(opened: Home, ask: object, said: str) -> None:
    with pytest.raises(NotFoundError, match=said):
        ask(opened)  # type: ignore[operator]


@pytest.mark.parametrize("asked", [Home.results, Home.foresight])
def test_a_recipe_that_trains_nothing_has_no_results(opened: Home, asked: Callable[[Home], pl.DataFrame]) -> None:
    with pytest.raises(NotFoundError, match=r"recipe\.yaml trains nothing"):
        asked(opened)


def test_a_home_in_which_nothing_was_made_is_refused_and_not_created(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="nait run"):
        Home(recipe.path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_reading_writes_nothing(opened: Home) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size) for path in opened.folder.rglob("*") if path.is_file()
        }

    before = state()
    opened.subset(METHOD, TARGET, 0.3)
    opened.explain(opened.scores(METHOD, TARGET)["sample_id"][0], TARGET)
    assert state() == before


def test_the_package_is_imported_without_what_home_needs() -> None:
    said = "import sys, nait_assets; print(sorted({'dagster', 'polars', 'torch'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_notebook_runs(opened: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the demo; this home has the capability, the method and the ratio that it asks for."""
    notebook = json.loads((PROJECT_ROOT / "docs" / "from_python.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.setenv("NAIT_RECIPE", str(opened.recipe.path))
    monkeypatch.setenv("NAIT_HOME", str(opened.folder))
    names: dict[str, object] = {}
    for cell in cells:
        exec(cell, names)
    assert len(cells) >= 8
    assert names["chosen"]["sample_id"].to_list() == opened.subset(METHOD, "math", 0.3)["sample_id"][:]  # type: ignore[index]


def test_the_notebook_shows_what_its_cells_give() -> None:
    """A page without results says little, and one with a machine's paths says too much."""
    notebook = json.loads((PROJECT_ROOT / "docs" / "from_python.ipynb").read_text(encoding="utf-8"))
    shown = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert sum(map(bool, shown)) >= 7
    assert "/home/" not in json.dumps(shown)
    assert not any(output["output_type"] == "error" for outputs in shown for output in outputs)
