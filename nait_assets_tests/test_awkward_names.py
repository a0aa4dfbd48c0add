"""Names that tools read otherwise than people: YAML's words for truth, a taken port, signs of patterns in a path."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nait_assets.recipe import Recipe
from nait_assets.recipe.yaml_file import read_yaml
from nait_assets_tests.command import nait
from nait_assets_tests.conftest import conversation, write_jsonl

MakeRecipe = Callable[..., Recipe]
WORDS = ["no", "No", "NO", "yes", "Yes", "YES", "on", "On", "ON", "off", "Off", "OFF", "y", "n", "Y", "N"]


@given(st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_words_of_yaml_1_1_are_words(tmp_path_factory: pytest.TempPathFactory, key: str, value: str) -> None:
    """`no` is Norwegian more often than it is false."""
    file = tmp_path_factory.mktemp("words") / "recipe.yaml"
    file.write_text(f"{key}: [{value}, true, False]", encoding="utf-8")
    assert read_yaml(file) == {key: [value, True, False]}


def test_a_capability_and_a_value_may_be_called_no(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Without quotes, as people write them."""
    rows = [{**conversation(f"q {lang} {n}", "a"), "lang": lang} for n in range(3) for lang in ("no", "en", "on")]
    write_jsonl(tmp_path / "pool.jsonl", rows)
    write_jsonl(tmp_path / "no.jsonl", [conversation("hva", "ja"), conversation("hvem", "nei")])
    recipe = make_recipe(methods=["random"])
    text = recipe.path.read_text(encoding="utf-8")
    fields = {**yaml.safe_load(text), "capabilities": "X", "candidates": "Y"}
    text = yaml.safe_dump(fields).replace("capabilities: X", "capabilities: {no: {source: no.jsonl}}")
    text = text.replace("candidates: Y", "candidates: {source: pool.jsonl, where: {lang: no}}")
    recipe.path.write_text(text, encoding="utf-8")

    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "home")

    assert answer.code == 0, answer.err
    assert "9 rows read: 3 used, 6 left out by the recipe, 0 rejected" in answer.out
    assert (tmp_path / "home/subsets/random/no/0.30/train.jsonl").exists()


def test_a_taken_port_is_one_sentence_before_anything_starts(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's server would end among its lines of log, and the browser show the other program."""
    started: list[object] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server: started.append(server))
    monkeypatch.setattr("nait_assets.cli.ui._daemon", contextlib.nullcontext)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = nait("ui", "--recipe", make_recipe().path, "--home", tmp_path / "home", "--port", str(port))
        assert answer.code == 2
        assert answer.err.startswith(f"Error: port {port} of 127.0.0.1 is taken by another program; name a free one")
        assert "Traceback" not in answer.err + answer.out
        assert not (tmp_path / "home").exists()
    answer = nait("ui", "--recipe", make_recipe().path, "--home", tmp_path / "home", "--port", str(port))
    assert (answer.code, len(started)) == (0, 1), answer.err
    answer = nait("ui", "--recipe", make_recipe().path, "--home", tmp_path / "home", "--host", "no.such.host.invalid")
    assert answer.code == 2
    assert "nothing can listen on port 3000 of no.such.host.invalid" in answer.err


@pytest.mark.parametrize("name", ["pool [1] *", "a#b %c", "it's {x}", "ä & ö;"])
def test_a_home_may_have_signs_of_patterns_and_urls_in_its_path(
    make_recipe: MakeRecipe, tmp_path: Path, name: str
) -> None:
    """A path is a path: for DuckDB, SQLite, Parquet and the checks that read them again."""
    recipe, home = make_recipe(methods=["random", "length_long"]), tmp_path / name / "home"

    for command, code in (("run", 0), ("status", 0), ("audit", 0), ("summary", 0)):
        answer = nait(command, "--recipe", recipe.path, "--home", home)
        assert answer.code == code, (command, answer.out, answer.err)
    assert (home / "warehouse.duckdb").exists()
    assert {file.name for file in tmp_path.iterdir()} <= {name, "pool.jsonl", "math.jsonl", "code.jsonl", "recipe.yaml"}


@pytest.mark.parametrize("name", ["what?", "a%20b"])
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_home_that_dagster_cannot_use_is_refused_in_a_sentence(
    make_recipe: MakeRecipe, tmp_path: Path, name: str, command: str
) -> None:
    """SQLAlchemy would look for its database at half of the path, and end in eighty lines."""
    answer = nait(command, "--recipe", make_recipe().path, "--home", tmp_path / name / "home")
    assert answer.code == 2
    assert f"{name}/home cannot be a home: Dagster reads" in answer.err
    assert not (tmp_path / name).exists()
