"""Results against the number of in-domain examples that chose: figure 3 of arXiv 2603.13201 for any recipe."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.corpora.catalogue import EXAMPLES_OUTPUT
from nait_assets.evaluation.bootstrap import interval
from nait_assets.evaluation.comparison import OWN, Means, with_averages
from nait_assets.evaluation.measured import BASE, FULL, RANDOM, Cell, Measure
from nait_assets.evaluation.tables import IN_DOMAIN_SIZE_CURVE
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot


@dataclass(frozen=True)
class InDomainSet:
    """What a target's models were chosen by.

    Attributes:
        capability: The capability.
        n: Its examples.
    """

    capability: str
    n: int


def read_sets(recipe: Recipe, warehouse: Warehouse, tables: Snapshot) -> dict[str, InDomainSet]:
    """By target, smaller sets and their capabilities, as far as these have smaller sets.

    Raises:
        WarehouseError: The examples of a capability have not been read.
    """
    whole = {name: len(EXAMPLES_OUTPUT.read(warehouse, tables, name)[0]) for name in recipe.capabilities_with_examples}
    smaller = {name: InDomainSet(*place) for name, place in recipe.smaller_sets.items()}
    cut = {one.capability for one in smaller.values()}
    return {**{name: InDomainSet(name, whole[name]) for name in sorted(cut)}, **smaller}


def by_in_domain_size(means: Means, own: Mapping[str, str], sets: Mapping[str, InDomainSet]) -> pl.DataFrame:
    """Rows of `tables.IN_DOMAIN_SIZE_CURVE`.

    Args:
        means: As `comparison.means_of` gives them.
        own: By task, the capability that it belongs to.
        sets: By target, its in-domain set: capabilities that have smaller ones, and these.
    """
    capabilities = {one.capability for one in sets.values()}
    tasks = {task: capability for task, capability in own.items() if capability in capabilities}
    rows = []
    for cell, n, of_cell in (*_of_sets(means, tasks, sets), *_own(means, tasks, sets), *_references(means, tasks)):
        rows += [(*cell, n, *measure, *interval(found)) for measure, found in sorted(of_cell.items())]
    return pl.DataFrame(rows, schema=IN_DOMAIN_SIZE_CURVE.columns, orient="row").sort(IN_DOMAIN_SIZE_CURVE.key)


Row = tuple[Cell, int, Mapping[Measure, np.ndarray]]


def _of_sets(means: Means, tasks: Mapping[str, str], sets: Mapping[str, InDomainSet]) -> Iterator[Row]:
    """Each set's models on the tasks of its capability."""
    for cell, of_cell in means.items():
        if cell.target in sets:
            one = sets[cell.target]
            found = {
                measure: values for measure, values in of_cell.items() if tasks.get(measure.task) == one.capability
            }
            yield cell._replace(target=one.capability), one.n, found


def _own(means: Means, tasks: Mapping[str, str], sets: Mapping[str, InDomainSet]) -> Iterator[Row]:
    """The average over all tasks, each by the models of its capability's set, of every size that all of them have."""
    by_size: dict[int, dict[str, str]] = {}
    for target, one in sets.items():
        by_size.setdefault(one.n, {})[one.capability] = target
    for model, ratio in sorted({(cell.model, cell.ratio) for cell in means if cell.target in sets}):
        for n, targets in sorted(by_size.items()):
            cells = {task: Cell(model, targets.get(capability, ""), ratio) for task, capability in tasks.items()}
            if all(cell in means for cell in cells.values()):
                of_tasks = {
                    measure: values
                    for task, cell in cells.items()
                    for measure, values in means[cell].items()
                    if measure.task == task
                }
                yield Cell(model, OWN, ratio), n, _averages(of_tasks)


def _references(means: Means, tasks: Mapping[str, str]) -> Iterator[Row]:
    """What reads no example, on the same tasks, with their average."""
    for cell, of_cell in means.items():
        if cell.model in (BASE, FULL, RANDOM):
            of_tasks = {measure: values for measure, values in of_cell.items() if measure.task in tasks}
            yield cell, 0, {**of_tasks, **_averages(of_tasks)}


def _averages(of_tasks: Mapping[Measure, np.ndarray]) -> dict[Measure, np.ndarray]:
    return {measure: values for measure, values in with_averages(of_tasks).items() if not measure.task}


def drawn_sizes(curve: pl.DataFrame) -> Iterator[tuple[str, str, str, pl.DataFrame]]:
    """What is drawn together: metric, capability and ratio, and the rows, those of references among them."""
    of_methods = curve.filter(pl.col("n_in_domain") > 0)
    for (metric, target, ratio), rows in sorted(of_methods.group_by("metric", "target", "ratio")):
        if rows["n_in_domain"].n_unique() > 1:
            task = sorted(rows["task"].unique())[0]
            references = curve.filter(pl.col("ratio").is_in(["", ratio]), n_in_domain=0, metric=metric, task=task)
            yield str(metric), str(target), str(ratio), pl.concat([rows.filter(task=task), references])
