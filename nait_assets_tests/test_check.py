"""`nait check`, and the schema by which an editor checks: right recipes pass, and what is wrong is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nait_assets.recipe import PROJECT_ROOT, Recipe
from nait_assets.recipe.json_schema import recipe_schema
from nait_assets_tests.command import nait
from nait_assets_tests.test_docs import everything

MakeRecipe = Callable[..., Recipe]
SHIPPED = sorted((PROJECT_ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="session")
def validator() -> jsonschema.Draft202012Validator:
    """Of the schema that `nait check --schema` prints."""
    schema = json.loads(nait("check", "--schema").out)
    assert schema == recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_accepts_every_recipe_that_we_ship(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []


def test_the_schema_accepts_recipes_with_every_section(
    validator: jsonschema.Draft202012Validator, make_recipe: MakeRecipe
) -> None:
    for recipe in everything(make_recipe):
        fields = yaml.safe_load(recipe.path.read_text())
        assert [error.message for error in validator.iter_errors(fields)] == []


def _demo(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((PROJECT_ROOT / "recipes" / "demo.yaml").read_text()), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"ratio": [0.1]},
        {"extraction": {"max_token": 8}},
        {"extraction": {"site": "attention"}},
        {"candidates": {"source": "pool.jsonl", "formt": "auto"}},
        {"capabilities": {}},
        {"capabilities": {"math": {"source": "a.jsonl", "size": [4]}}},
        {"options": {"bm25": {"k": 1}}},
        {"measurements": {"gates": {"k": 0}}},
        {"selection": {"strategy": "best"}},
        {"evaluation": {"tasks": {"math": {"kind": "lossy", "source": "a.jsonl"}}}},
    ],
)
def test_the_schema_marks_what_a_recipe_cannot_say(
    validator: jsonschema.Draft202012Validator, changes: dict[str, Any]
) -> None:
    assert validator.is_valid(_demo())
    assert not validator.is_valid(_demo(**changes))


def test_a_recipe_that_runs_is_said_to_and_nothing_is_made(recipe: Recipe, tmp_path: Path) -> None:
    answer = nait("check", recipe.path, "--home", tmp_path / "home")
    assert (answer.code, answer.err) == (0, "")
    assert f"{recipe.path}: nothing is wrong with it." in answer.out
    assert "methods: nait, nait_standardized, random" in answer.out
    assert "subsets: 9, of 3 targets and the ratios 0.30" in answer.out
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ratios": [2]}, "must lie in"),
        ({"candidates": {"source": "nothing.jsonl"}}, "nothing.jsonl"),
        ({"model": {"source": "no-model"}}, "no-model"),
        ({"extraction": {"layers": [99]}}, "99"),
        ({"methods": ["less"], "extraction": {"max_tokens": 100_000}}, "max_tokens"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_made(
    make_recipe: MakeRecipe, recipe: Recipe, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    written = {**yaml.safe_load(recipe.path.read_text()), **fields}
    recipe.path.write_text(yaml.safe_dump(written))
    answer = nait("check", recipe.path, "--home", tmp_path / "home")
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert not (tmp_path / "home").exists()
