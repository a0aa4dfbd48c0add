"""Making models: a real trainer in a real process, on a two-layer network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nait_assets.conversation import Conversation
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.launch import launch_of
from nait_assets.training.making import Made, TrainingOptions, make
from nait_assets.training.runs import TrainingRun, in_order, settings_of
from nait_assets_tests.conftest import pool_rows

MakeRecipe = Callable[..., Recipe]
SMALL = {"batch_size": 4, "epochs": 2, "learning_rate": 0.01}


@pytest.fixture
def recipe_of(make_recipe: MakeRecipe, causal_folder: Path) -> MakeRecipe:
    """A recipe that trains the tiny model, with fields of its section `training` replaced."""

    def of(**training: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        return make_recipe(methods=["random"], model=model, training={**SMALL, **training})

    return of


def run_of(recipe: Recipe, n: int = 10, seed: int = 0, **settings: Any) -> TrainingRun:
    """A run on the first rows of the pool."""
    model = LanguageModel.of(recipe, recipe.path.parent / "home")
    rows = [Conversation.of(row["messages"]) for row in pool_rows(n)]
    base = {"source": model.source, "identity": model.identity(), "dtype": "float32"}
    pairs = in_order([(row.sample_id, row) for row in rows])
    given = {**settings_of(recipe), "max_tokens": 64, **settings}
    return TrainingRun(f"rows {n}, seed {seed}", pairs, seed, given, base, launch_of(recipe), seed)


def made_of(recipe: Recipe, home: Path, *runs: TrainingRun, **options: Any) -> list[Made]:
    """The models of runs."""
    base = LanguageModel.of(recipe, home)
    lines: list[str] = []
    return make(runs, recipe, base, home, TrainingOptions(**options), lines.append)


def weights(made: Made) -> dict[str, torch.Tensor]:
    """All weights of a model's folder."""
    assert made.model.folder is not None
    (file,) = made.model.folder.glob("*.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_there_is_not_trained_again(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Two methods that choose the same rows share a model: content decides."""
    recipe, home = recipe_of(), tmp_path / "home"
    first = made_of(recipe, home, run_of(recipe))[0]
    again, other = made_of(recipe, home, run_of(recipe), run_of(recipe, seed=1))
    assert (first.trained, again.trained, other.trained) == (True, False, True)
    assert again.model.folder == first.model.folder != other.model.folder
    assert not same(weights(first), weights(other))
