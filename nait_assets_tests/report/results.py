"""Results of trainings that never were, with names that would be markup if anything let them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nait_assets.evaluation.tables import COMPARISON, FORESIGHT, PROPORTION_CURVE, TRANSFERABILITY
from nait_assets.plots import thinned
from nait_assets.recipe import Prices
from nait_assets.report.comparison import priced
from nait_assets.report.page_data import PageData, read
from nait_assets.report.trainings import Trainings
from nait_assets.training.tables import TRAINED_MODELS
from nait_assets_tests.report.pages import home_with_subsets
from nait_assets_tests.small_home import small_recipe

REFERENCES = ("base", "full_reference", "random_reference")


def page_data_with_results(folder: Path, name: str = "exam", methods: tuple[str, ...] = ("nait", "random")) -> PageData:
    """The small home's page, with everything that a training brings.

    Args:
        folder: Folder of recipe and home.
        name: Name of a task, a metric, and a target.
        methods: Methods of which models were trained.
    """
    folder.mkdir(exist_ok=True)
    recipe = small_recipe(folder)
    page_data = read(recipe, home_with_subsets(recipe, folder / "home"))
    assert page_data.comparison is not None
    prices = Prices(gpu_hour=3600.0, million_tokens=1.0, pool_size=1000)
    return replace(
        page_data,
        recipe=recipe.model_copy(update={"prices": prices}),
        results=results(name, methods),
        trainings=trainings(name, methods),
        prices=priced(page_data.comparison.costs, prices, 10),
    )


def results(name: str, methods: tuple[str, ...]) -> dict[str, pl.DataFrame]:
    """By table, what is concluded."""
    foresight = [
        (target, name, one, kind, value, value - 0.2, value + 0.2, value / 2, 0.0, 0.5, 0.4, 0.1, 0.7, value, 24, 1.0)
        for target in (name, "all")
        for one, kind, value in [*((method, "method", 0.5) for method in methods), ("tokens", "control", 0.1)]
    ]
    cells = [("base", "", ""), ("full_reference", "", "")]
    cells += [("random_reference", "", ratio) for ratio in ("0.10", "0.30")]
    cells += [(method, target, ratio) for method in methods for target in (name, "math") for ratio in ("0.10", "0.30")]
    comparison: list[tuple[Any, ...]] = []
    for model, target, ratio in cells:
        for against in ("", *(() if model in REFERENCES else REFERENCES)):
            verdict = "better" if against else ""
            comparison.append((model, target, ratio, name, name, against, -0.5, -0.7, -0.2, verdict, 2, 9))
    curve = [
        (model, target, {"base": 0.0, "full_reference": 1.0}.get(model) or float(ratio or 0), name, name, 1.0, 0.9, 1.1)
        for model, target, ratio in cells
    ]
    transfer = [(model, target, ratio, name, name, name, 0.5, 0.4, 0.6, "worse") for model, target, ratio in cells[4:]]
    frames = [(FORESIGHT, foresight), (COMPARISON, comparison), (PROPORTION_CURVE, curve), (TRANSFERABILITY, transfer)]
    return {table.name: pl.DataFrame(rows, schema=table.columns, orient="row") for table, rows in frames}


def trainings(name: str, methods: tuple[str, ...], n_steps: int = 100) -> Trainings:
    """A model a method and target, of two seeds, and one of the whole pool; targets share those of `random`."""
    rows, curves = [], []
    for method in methods:
        for target in (name, "math"):
            for seed in (0, 1):
                key = f"{method}-{seed}" if method == "random" else f"{method}-{target}-{seed}"
                rows.append((f"training/{method}_model", f"{target}|0.10", seed, seed, key, target, "0.10"))
    rows.append(("training/full_reference", "", 0, 0, "full", "", ""))
    models = pl.DataFrame(
        [(*row[:5], 10, 1000, 100, n_steps, 4, 1.0, 20.0, 3_000_000_000, "") for row in rows],
        schema=TRAINED_MODELS.columns,
        orient="row",
    )
    models = models.with_columns(
        pl.Series("target", [row[5] for row in rows]), pl.Series("ratio", [row[6] for row in rows]), n_tokens_read=2000
    )
    epochs = np.linspace(0, 2, n_steps)
    for key in models["key"].unique(maintain_order=True):
        curves.append(pl.DataFrame({"key": [key] * n_steps, "epoch": epochs, "loss": 3 - epochs}))
    return Trainings(models, thinned(pl.concat(curves), "epoch", "loss", by="key"))
