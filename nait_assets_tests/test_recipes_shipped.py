"""The recipes that come with the project: each loads, and its assets can be put in order, without data or a model."""

from pathlib import Path

import pytest

from nait_assets.definitions import build_definitions
from nait_assets.lineage import asset_path
from nait_assets.planning import Plan
from nait_assets.recipe import PROJECT_ROOT, load_recipe
from nait_assets.resources import LanguageModel, Warehouse

RECIPES = sorted((PROJECT_ROOT / "recipes").glob("*.yaml"))


def stages(file: Path, home: Path) -> list[list[str]]:
    """Keys of a recipe's assets in the order in which they can be made."""
    recipe = load_recipe(file)
    defs = build_definitions(recipe, home)
    plan = Plan(defs, recipe, Warehouse(home=str(home)), LanguageModel.of(recipe, home), None)
    return [[asset_path(key) for key in stage] for stage in plan.stages()]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_it_is_loaded_and_planned(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that was renamed shows here, and not after a night on a GPU."""
    monkeypatch.setenv("NAIT_DATA", str(tmp_path))
    assert stages(file, tmp_path)[-1] == ["report/selection_report"]


@pytest.mark.parametrize("name", ["learn", "methods", "paper"])
def test_what_trains_measures_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trained model has results, and probes foretell for all methods."""
    monkeypatch.setenv("NAIT_DATA", str(tmp_path))
    made = {key for stage in stages(PROJECT_ROOT / "recipes" / f"{name}.yaml", tmp_path) for key in stage}
    trained = {key.removeprefix("training/") for key in made if key.startswith("training/")} - {"probe_subsets"}
    results = {key.removeprefix("evaluation/").removesuffix("_results") for key in made if key.endswith("_results")}
    assert {key.removesuffix("_models").removesuffix("_model") for key in trained} | {"base"} == results
    assert "evaluation/comparison" in made
    assert ("evaluation/foresight" in made) == ("training/probe_models" in made)
