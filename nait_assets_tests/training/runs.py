"""Runs on the tiny model, and what tests look at of the models that they make."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nait_assets.conversation import Conversation
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.launch import launch_of
from nait_assets.training.making import Made, TrainingOptions, make
from nait_assets.training.runs import TrainingRun, in_order, settings_of
from nait_assets_tests.conftest import pool_rows

SMALL = {"batch_size": 4, "epochs": 2, "learning_rate": 0.01}


def run_of(recipe: Recipe, n: int = 10, seed: int = 0, **settings: Any) -> TrainingRun:
    """A run on the first rows of the pool."""
    model = LanguageModel.of(recipe, recipe.path.parent / "home")
    rows = [Conversation.of(row["messages"]) for row in pool_rows(n)]
    base = {"source": model.source, "identity": model.identity(), "dtype": "float32"}
    pairs = in_order([(row.sample_id, row) for row in rows])
    given = {**settings_of(recipe), "max_tokens": 128, **settings}
    return TrainingRun(f"rows {n}, seed {seed}", pairs, seed, given, base, launch_of(recipe), seed)


def made_of(
    recipe: Recipe, home: Path, *runs: TrainingRun, lines: list[str] | None = None, **options: Any
) -> list[Made]:
    """The models of runs; what is said of them is added to `lines`."""
    said = [] if lines is None else lines
    return make(runs, recipe, LanguageModel.of(recipe, home), home, TrainingOptions(**options), said.append)


def weights(made: Made) -> dict[str, torch.Tensor]:
    """All weights in a model's folder."""
    assert made.model.folder is not None
    (file,) = made.model.folder.glob("*.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether weights are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main(recipe: str, home: str, seed: str) -> None:
    """Train a run with a checkpoint at every step: what a test kills."""
    loaded = load_recipe(recipe)
    made_of(loaded, Path(home), run_of(loaded, seed=int(seed)), checkpoint_seconds=0)
