"""Several processes: a real pair of them on the CPU, and what a file for accelerate can get wrong."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nait_assets.errors import RecipeError, SetupError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.launch import launch_of
from nait_assets.training.preflight import require_fit
from nait_assets_tests.training.runs import SMALL, made_of, run_of, weights

MakeRecipe = Callable[..., Recipe]
TWO: dict[str, Any] = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "use_cpu": True,
    "num_machines": 1,
    "num_processes": 2,
    "machine_rank": 0,
    "main_process_ip": "127.0.0.1",
    "main_process_port": 29520,
    "mixed_precision": "no",
    "rdzv_backend": "static",
    "same_network": True,
    "main_training_function": "main",
}


@pytest.fixture
def recipe_of(make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path) -> MakeRecipe:
    """A recipe that trains the tiny model, in the processes of a file, entries of which are replaced."""

    def of(entries: dict[str, Any] | None = None, **training: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        if entries is not None:
            (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump({**TWO, **entries}))
            training["accelerate"] = "accelerate.yaml"
        return make_recipe(methods=["random"], model=model, training={**SMALL, **training})

    return of


@pytest.mark.slow
def test_two_processes_train_what_one_does(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Gloo, on the CPU, by `accelerate launch`: the same steps on the same rows, save for rounding."""
    alone = recipe_of()
    (one,) = made_of(alone, tmp_path / "one", run_of(alone, n=16))
    together = recipe_of({})
    (two,) = made_of(together, tmp_path / "two", run_of(together, n=16))
    assert two.model.manifest["n_processes"] == 2
    assert two.model.key != one.model.key
    assert two.curve["loss"].to_list() == pytest.approx(one.curve["loss"].to_list(), rel=1e-3)
    found = weights(two)
    assert all(torch.allclose(found[name], weight, atol=1e-2) for name, weight in weights(one).items())
    (again,) = made_of(together, tmp_path / "again", run_of(together, n=16))
    assert all(torch.equal(found[name], weight) for name, weight in weights(again).items())


@pytest.mark.parametrize(
    ("entries", "error", "said"),
    [
        ({"num_processes": 10_000}, SetupError, "asks for 10000 processes on a machine, and this one has"),
        ({"distributed_type": "MULTI_CPU"}, RecipeError, "write `distributed_type: MULTI_GPU` and `use_cpu: true`"),
        ({"distributed_type": "FSDP"}, RecipeError, "asks for FSDP on a CPU"),
        ({"num_processes": "many"}, RecipeError, "does not hold the settings of accelerate"),
    ],
)
def test_a_file_that_cannot_work_is_refused_before_training(
    recipe_of: MakeRecipe, tmp_path: Path, entries: dict[str, Any], error: type[Exception], said: str
) -> None:
    """It would start fewer processes, or other ones, and trains something else without a word."""
    recipe = recipe_of(entries)
    with pytest.raises(error, match=said):
        require_fit(recipe, LanguageModel.of(recipe, tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "does not exist"), ("a: [", "is not readable as YAML"), ("- a", "does not hold the settings")],
)
def test_a_file_that_is_none_is_refused(recipe_of: MakeRecipe, tmp_path: Path, text: str | None, said: str) -> None:
    """The message names the file and what writes one."""
    if text is not None:
        (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(RecipeError, match=rf"own.yaml {said}[\s\S]*`accelerate config"):
        launch_of(recipe_of(accelerate="own.yaml"))


def test_where_processes_are_changes_no_model(recipe_of: MakeRecipe) -> None:
    """Another port is the same training; another mixed precision is not."""
    key = run_of(recipe_of({})).key
    assert run_of(recipe_of({"main_process_port": 1})).key == key
    assert run_of(recipe_of({"mixed_precision": "bf16"})).key != key


def test_rows_of_a_step_are_divided_among_processes(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Else a step would have more rows than the recipe says."""
    recipe = recipe_of({"num_processes": 2}, batch_size=5)
    with pytest.raises(
        RecipeError, match=r"training.batch_size: 5 rows cannot be divided among the 2 processes.*use 4"
    ):
        made_of(recipe, tmp_path / "home", run_of(recipe))


def test_as_many_processes_as_devices_fit(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """The limit is the machine's, not a number of ours."""
    recipe = recipe_of({"num_processes": os.cpu_count()})
    require_fit(recipe, LanguageModel.of(recipe, tmp_path))
