"""Models side by side: every task, the average, and the change against the references, each with its interval.

Table 2 of arXiv 2603.13201 for any recipe, figure 2 as a part of it, and equation 9 (figure 5). Figure 3 is in
`sizes`.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from nait_assets.evaluation.bootstrap import interval
from nait_assets.evaluation.measured import BASE, FULL, MATCHED, RANDOM, Cell, Measure, Measured, verdict
from nait_assets.evaluation.tables import COMPARISON, PROPORTION_CURVE, TRANSFERABILITY
from nait_assets.recipe import SIZE_MARK

OWN = "(own)"
"""In the place of a target: each task by the models of the target that it belongs to."""
Means = Mapping[Cell, Mapping[Measure, np.ndarray]]
"""By cell and measure, `(1 + n_resamples,)`: the mean of all examples and models, and of each resample."""


def means_of(measured: Measured) -> dict[Cell, dict[Measure, np.ndarray]]:
    """The means of all cells over shared resamples, with the average over several tasks of a metric under task ""."""
    draws = measured.draws()
    found = {}
    for cell, values in measured.values.items():
        seed = zlib.crc32("|".join(cell).encode())
        found[cell] = with_averages({one: draws[one].means(array, seed) for one, array in values.items()})
    return found


def with_averages(of_tasks: Mapping[Measure, np.ndarray]) -> dict[Measure, np.ndarray]:
    """The same with the average over the tasks of each metric that several have."""
    metrics = sorted({measure.metric for measure in of_tasks})
    by_metric = {metric: [means for one, means in of_tasks.items() if one.metric == metric] for metric in metrics}
    averages = {Measure("", metric): np.mean(means, axis=0) for metric, means in by_metric.items() if len(means) > 1}
    return {**of_tasks, **averages}


def with_own(means: Means, own: Mapping[str, str]) -> Means:
    """The same with each method's results on every task by the models of that task's own target.

    Where a metric has several tasks and but one of them such a target, there is no average to compare: then the models
    of that target say it all.

    Args:
        means: As `means_of` gives them.
        own: By task, its target.
    """
    found = dict(means)
    all_measures = {measure for of_cell in means.values() for measure in of_cell}
    for model, ratio in sorted({(cell.model, cell.ratio) for cell in means if cell.target}):
        of_tasks = {
            measure: means[cell][measure]
            for task, target in own.items()
            if (cell := Cell(model, target, ratio)) in means
            for measure in means[cell]
            if measure.task == task
        }
        n_all, n_own = (Counter(one.metric for one in measures if one.task) for measures in (all_measures, of_tasks))
        compared_too = {
            one: value for one, value in of_tasks.items() if n_own[one.metric] > 1 or n_all[one.metric] == 1
        }
        if compared_too:
            found[Cell(model, OWN, ratio)] = with_averages(compared_too)
    return found


def compared(means: Means, n_models: Mapping[Cell, int], n_examples: Mapping[Measure, int]) -> pl.DataFrame:
    """Rows of `tables.COMPARISON`.

    Args:
        means: As `with_own` gives them.
        n_models: Seeds or draws of each cell.
        n_examples: Examples of each measure; of averages, of all tasks together.
    """
    rows = []
    for cell, of_cell in sorted(means.items()):
        for measure, own in sorted(of_cell.items()):
            of_tasks = [n_examples[one] for one in _tasks(measure, of_cell)]
            counts = (_n_models(cell, n_models), sum(of_tasks))
            rows.append((*cell, *measure, "", *interval(own), "", *counts))
            for name, other in references(cell, means):
                against = _average_of_same(measure, of_cell, other)
                if against is not None:
                    value, low, high = interval(own - against)
                    said = verdict(low, high, measure.metric, of_tasks)
                    rows.append((*cell, *measure, name, value, low, high, said, *counts))
    return pl.DataFrame(rows, schema=COMPARISON.columns, orient="row")


def _n_models(cell: Cell, n_models: Mapping[Cell, int]) -> int:
    """Seeds or draws of a cell; those of `OWN` are of any target's."""
    same = (n for other, n in n_models.items() if (other.model, other.ratio) == (cell.model, cell.ratio))
    return n_models.get(cell) or max(same)


def _tasks(measure: Measure, of_cell: Mapping[Measure, np.ndarray]) -> list[Measure]:
    """The measure, or those that an average is of."""
    return [measure] if measure.task else [one for one in of_cell if one.task and one.metric == measure.metric]


def references(cell: Cell, means: Means) -> Iterator[tuple[str, Mapping[Measure, np.ndarray]]]:
    """What a cell is compared with, by name: base, full, random of its ratio, and its own matched draws."""
    matched = cell.model + MATCHED
    wanted = {
        BASE: Cell(BASE, "", ""),
        FULL: Cell(FULL, "", ""),
        RANDOM: Cell(RANDOM, "", cell.ratio),
        matched: Cell(matched, cell.target, cell.ratio),
    }
    for name, other in wanted.items():
        if other in means and other != cell and cell.model != BASE:
            yield name, means[other]


def _average_of_same(
    measure: Measure, of_cell: Mapping[Measure, np.ndarray], other: Mapping[Measure, np.ndarray]
) -> np.ndarray | None:
    """A reference's means of a measure; an average is of the same tasks as the cell's."""
    if measure.task:
        return other.get(measure)
    tasks = [other[one] for one in _tasks(measure, of_cell) if one in other]
    return np.mean(tasks, axis=0) if tasks else None


def transferred(means: Means, own: Mapping[str, str], n_examples: Mapping[Measure, int]) -> pl.DataFrame:
    """Rows of `tables.TRANSFERABILITY`: a model trained for one target on the task of another, against that one's own.

    Args:
        means: As `means_of` gives them.
        own: By task, its target.
        n_examples: Examples of each measure.
    """
    rows = []
    for cell, of_cell in sorted(means.items()):
        for measure, given in sorted(of_cell.items()):
            home = Cell(cell.model, own.get(measure.task, ""), cell.ratio)
            if cell.target and SIZE_MARK not in cell.target and measure.task in own and home in means:
                value, low, high = interval(given - means[home][measure])
                said = verdict(low, high, measure.metric, [n_examples[measure]])
                rows.append((*cell, own[measure.task], *measure, value, low, high, said))
    return pl.DataFrame(rows, schema=TRANSFERABILITY.columns, orient="row")


def proportions(comparison: pl.DataFrame) -> pl.DataFrame:
    """Rows of `tables.PROPORTION_CURVE`: values by ratio, where the base has 0 and the whole pool 1.

    Args:
        comparison: Rows of `tables.COMPARISON`.
    """
    ratio = (
        pl.when(pl.col("model") == BASE)
        .then(pl.lit("0"))
        .when(pl.col("model") == FULL)
        .then(pl.lit("1"))
        .otherwise(pl.col("ratio"))
        .cast(pl.Float64)
    )
    of_models = comparison.filter(pl.col("against") == "").with_columns(share=ratio)
    return of_models.select(list(PROPORTION_CURVE.columns)).sort("model", "target", "task", "metric", "share")
