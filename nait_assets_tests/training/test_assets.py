"""The training as assets: what a recipe asks for is made once, shared where rows are the same, and verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.training.catalogue import models_output
from nait_assets.training.models import trained_models
from nait_assets.training.runs import base_of
from nait_assets_tests.command import metadata_of, nait, quick_home, run

MakeRecipe = Callable[..., Recipe]
TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "epochs": 1,
    "learning_rate": 0.01,
    "max_tokens": 64,
    "reference": {"random": 2, "random_matched": 1},
    "probes": {"number": 4, "rows": 5, "uniform": 1, "batch_size": 2},
}


@pytest.fixture
def recipe_of(make_recipe: MakeRecipe, causal_folder: Path) -> MakeRecipe:
    """A recipe of two cheap methods that trains the tiny model."""

    def of(**fields: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        given = {"methods": ["random", "length_long"], "ratios": [0.3], "training": TRAINING, "model": model}
        return make_recipe(**{**given, **fields})

    return of


@pytest.fixture
def trained(recipe_of: MakeRecipe, tmp_path: Path) -> tuple[Recipe, Path]:
    """A home in which everything was trained."""
    recipe, home = recipe_of(), quick_home(tmp_path / "home")
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.out + answer.err
    return recipe, home


def test_a_recipe_has_models_of_its_cells_references_and_probes(trained: tuple[Recipe, Path]) -> None:
    """And nothing more to do."""
    recipe, home = trained
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    with warehouse.tables.snapshot() as tables:
        found = {
            (method, target): trained_models(
                warehouse, tables, models_output(method), f"{target}|0.30", base_of(recipe, model)
            )
            for method in ("random", "length_long")
            for target in ("all", "code", "math")
        }
    assert all(model.is_present for models in found.values() for model in models)
    assert len({model.key for (method, _), models in found.items() for model in models if method == "length_long"}) == 1
    assert run(recipe, home) == set()
    shown = metadata_of(home, "training/random_model[math|0.30]")
    assert (shown["n_trained"], shown["n_shared"], shown["dagster/row_count"]) == (1, 0, 1)
