"""All results of a recipe with their examples side by side, so that models can be compared example by example."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from nait_assets.evaluation.bootstrap import Draws
from nait_assets.evaluation.catalogue import ResultsOutput, all_results, examples_of
from nait_assets.evaluation.losses import METRIC
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse

LOWER_IS_BETTER = (METRIC,)
LEAST_EXAMPLES = 2
"""Of a single one every resample is the same, and the interval has no width."""
BASE, FULL, RANDOM, MATCHED = "base", "full_reference", "random_reference", "_random_matched"
"""Names of models in tables, as in the keys of their results; `MATCHED` stands behind a method."""


class Cell(NamedTuple):
    """Models of an output's partition: their name, and the target and ratio of their subset, "" where there is none."""

    model: str
    target: str
    ratio: str


class Measure(NamedTuple):
    """A task and a metric."""

    task: str
    metric: str


@dataclass(frozen=True)
class Measured:
    """Results of models.

    Attributes:
        values: By cell and measure, `(n_models, n_examples)`, examples in the order of their ids.
        weights: By measure, `(n_examples,)`.
    """

    values: Mapping[Cell, Mapping[Measure, np.ndarray]]
    weights: Mapping[Measure, np.ndarray]

    def draws(self) -> dict[Measure, Draws]:
        """Draws of the examples of each measure, the same for all models."""
        return {
            measure: Draws.of(weights, place) for place, (measure, weights) in enumerate(sorted(self.weights.items()))
        }

    def n_models(self) -> dict[Cell, int]:
        """Seeds or draws of each cell."""
        return {cell: len(next(iter(of_cell.values()))) for cell, of_cell in self.values.items() if of_cell}

    def n_examples(self) -> dict[Measure, int]:
        """Examples of each measure."""
        return {measure: len(weights) for measure, weights in self.weights.items()}


def compared_results(recipe: Recipe) -> list[ResultsOutput]:
    """Results that are compared: all but those of probes."""
    return [one for one in all_results(recipe) if one.models is None or one.models.rows != "probes"]


def read_measured(recipe: Recipe, warehouse: Warehouse) -> tuple[Measured, dict[str, str]]:
    """All results of a recipe but those of probes, and the versions of what was read.

    Raises:
        WarehouseError: Something has not been made.
    """
    values: dict[Cell, Mapping[Measure, np.ndarray]] = {}
    weights: dict[Measure, np.ndarray] = {}
    with warehouse.tables.snapshot() as tables:
        for output, partition in _partitions(recipe):
            rows, _ = output.read(warehouse, tables, partition)
            found = examples_of(tables, rows)
            values[cell_of_results(output, partition)] = _arrays(rows, found, weights)
        return Measured(values, weights), dict(tables.inputs)


def _partitions(recipe: Recipe) -> Iterator[tuple[ResultsOutput, str]]:
    partitions = Partitions.of(recipe)
    for output in compared_results(recipe):
        definition = partitions.of_output(output.partitions)
        for partition in definition.get_partition_keys() if definition else [""]:
            yield output, str(partition)


def cell_of_results(output: ResultsOutput, partition: str) -> Cell:
    """The cell of a partition of results."""
    name = output.key.removeprefix("evaluation/").removesuffix("_results")
    if output.partitions == "trained_ratio":
        return Cell(name, "", partition)
    return Cell(name, *(cell_of(partition) if partition else ("", "")))


def _arrays(
    rows: pl.DataFrame, examples: pl.DataFrame, weights: dict[Measure, np.ndarray]
) -> dict[Measure, np.ndarray]:
    """By measure `(n_models, n_examples)`, models by number; the weights of new measures are added to `weights`."""
    found: dict[Measure, list[np.ndarray]] = {}
    for row in rows.sort("number").iter_rows(named=True):
        measure = Measure(row["task"], row["metric"])
        own = examples.filter(evaluation_key=row["evaluation_key"], metric=row["metric"]).sort("sample_id")
        found.setdefault(measure, []).append(own["value"].to_numpy())
        weights.setdefault(measure, own["weight"].to_numpy())
    return {measure: np.stack(values) for measure, values in found.items()}


def verdict(low: float, high: float, metric: str, n_examples: Sequence[int]) -> str:
    """What an interval of a change says, in plain words: nothing where no task has two examples to draw from.

    Args:
        low: Lower end.
        high: Upper end.
        metric: Metric that changed.
        n_examples: Examples of each task.
    """
    if low <= 0 <= high or max(n_examples) < LEAST_EXAMPLES:
        return "not told apart"
    return "better" if (high < 0) == (metric in LOWER_IS_BETTER) else "worse"


def own_targets(recipe: Recipe) -> dict[str, str]:
    """By task, the target that it belongs to and that models are trained for; the first of several.

    A task of a smaller in-domain set is one of its capability.
    """
    trained: Sequence[str] = recipe.training.targets_of(recipe) if recipe.training else ()
    of_task = {
        name: [recipe.smaller_sets.get(target, (target,))[0] for target in recipe.evaluation.targets_of(name, recipe)]
        for name in sorted(recipe.evaluation.tasks)
    }
    return {
        task: next(target for target in targets if target in trained)
        for task, targets in of_task.items()
        if set(targets) & set(trained)
    }
