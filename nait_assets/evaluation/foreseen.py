"""What the foresight of a recipe is made from, read from the warehouse."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.evaluation.catalogue import BASE_RESULTS, PROBE_RESULTS
from nait_assets.evaluation.foresight import (
    Predictor,
    controls,
    foresight,
    predictor_of_method,
    predictors_of_length,
)
from nait_assets.evaluation.losses import METRIC
from nait_assets.recipe import COMPREHENSIVE_TARGET, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.selection.choice import columns_read, in_order
from nait_assets.tables import CANDIDATE_POOL, N_ANSWER_CHARACTERS, N_CHARACTERS, scores_table
from nait_assets.training.catalogue import PROBE_MODELS, PROBE_SUBSETS_OUTPUT


@dataclass(frozen=True)
class Probed:
    """The probes of a home, and what training on them did.

    Attributes:
        subsets: Columns `probe`, `sample_id`.
        lengths: Lengths of their rows by name, each `(n_probes,)`.
        falls: By task, `(n_probes,)`: how far the loss fell.
    """

    subsets: pl.DataFrame
    lengths: Mapping[str, np.ndarray]
    falls: Mapping[str, np.ndarray]


def read_probes(warehouse: Warehouse, tables: Snapshot) -> Probed:
    """The probes of a home.

    Raises:
        WarehouseError: They have not been trained or evaluated.
    """
    texts = CANDIDATE_POOL.only("sample_id", "messages")
    characters = tables.reduced(
        texts,
        {
            "sample_id": pl.col("sample_id"),
            "characters": N_CHARACTERS,
            "answer_characters": N_ANSWER_CHARACTERS,
        },
    )
    subsets, _ = PROBE_SUBSETS_OUTPUT.read(warehouse, tables, "")
    models, _ = PROBE_MODELS.read(warehouse, tables, "")
    base, _ = BASE_RESULTS.read(warehouse, tables, "")
    results, _ = PROBE_RESULTS.read(warehouse, tables, "")
    return Probed(subsets, predictors_of_length(subsets, characters, models), _falls(base, results))


def read_predictor(recipe: Recipe, tables: Snapshot, method: str, probed: Probed) -> Predictor:
    """A method of a recipe as a predictor, by its stored scores in the order in which its strategy chooses.

    Raises:
        WarehouseError: It has no scores for a target.
    """
    scores = {}
    for target in recipe.targets:
        strategy = recipe.strategy_of(method, target)
        table = scores_table(method).only(*columns_read(strategy))
        scores[target] = in_order(tables.read(table, target=target), strategy)
    return predictor_of_method(method, scores, probed.subsets)


def read_foresight(recipe: Recipe, warehouse: Warehouse) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Rows of `tables.FORESIGHT` of a recipe, and the versions of what was read.

    Raises:
        WarehouseError: Something has not been made.
    """
    with warehouse.tables.snapshot() as tables:
        probed = read_probes(warehouse, tables)
        methods = [read_predictor(recipe, tables, method, probed) for method in recipe.methods]
        inputs = dict(tables.inputs)
    predictors = [*methods, *controls(recipe.targets, probed.lengths)]
    return foresight(predictors, probed.falls, tasks_by_target(recipe)), inputs


def _falls(base: pl.DataFrame, results: pl.DataFrame) -> dict[str, np.ndarray]:
    """By task, how far the loss of each probe's model lies below that of the base, by the number of the probe."""
    before = dict(base.filter(pl.col("metric") == METRIC).select("task", "value").rows())
    found = results.filter(pl.col("metric") == METRIC).sort("task", "number")
    return {
        str(task): before[str(task)] - rows["value"].to_numpy()
        for (task,), rows in found.group_by("task", maintain_order=True)
    }


def tasks_by_target(recipe: Recipe) -> dict[str, list[str]]:
    """The tasks of each target that has any; the comprehensive target has all that belong to one."""
    of_task = {name: recipe.evaluation.targets_of(name, recipe) for name in sorted(recipe.evaluation.tasks)}
    found = {
        target: [task for task, targets in of_task.items() if target in targets]
        for target in recipe.targets
        if target != COMPREHENSIVE_TARGET
    }
    if COMPREHENSIVE_TARGET in recipe.targets:
        found[COMPREHENSIVE_TARGET] = [task for task, targets in of_task.items() if targets]
    return {target: tasks for target, tasks in found.items() if tasks}
