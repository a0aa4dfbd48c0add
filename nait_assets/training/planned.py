"""Which runs an output consists of: the rows of subsets, of the pool, of random draws and of probes, and their seeds.

Belongs here: from an output's partition to its runs, and the versions of what was read for them. Does not belong here:
how random rows are drawn (`controls`, `probes`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nait_assets.conversation import Conversation, conversations_of
from nait_assets.corpora.eligibility import ineligible
from nait_assets.errors import WarehouseError
from nait_assets.partitions import cell_of
from nait_assets.recipe import Recipe, rounded_up
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.selection.catalogue import subset_output
from nait_assets.tables import CANDIDATE_POOL
from nait_assets.training.catalogue import ModelsOutput
from nait_assets.training.controls import matched_draws, random_draw
from nait_assets.training.launch import launch_of
from nait_assets.training.preflight import context_of
from nait_assets.training.runs import (
    TrainingRun,
    base_of,
    in_order,
    probe_settings_of,
    settings_of,
    training_of,
)
from nait_assets.training.tables import PROBE_SUBSETS

Rows = Sequence[tuple[str, Conversation]]


@dataclass(frozen=True)
class Planned:
    """The runs of an output's partition.

    Attributes:
        runs: Runs by number.
        inputs: Versions of all that was read.
        base: The model that is trained.
    """

    runs: tuple[TrainingRun, ...]
    inputs: Mapping[str, str]
    base: LanguageModel


@dataclass(frozen=True)
class _Draw:
    """Rows, the seed that they are trained with, and the number by which the output tells them apart."""

    rows: Rows
    seed: int
    number: int


def plan_runs(
    output: ModelsOutput, recipe: Recipe, warehouse: Warehouse, model: LanguageModel, partition: str
) -> Planned:
    """The runs of an output's partition.

    Args:
        output: Output that the models are of.
        recipe: Recipe with a section `training`.
        warehouse: Warehouse of the home, in which subsets and pool have been made.
        model: Model of the recipe.
        partition: Partition key, or "".

    Raises:
        WarehouseError: A subset or the pool has not been made, or a subset's folder is damaged.
    """
    base = base_of(recipe, model)
    with warehouse.tables.snapshot() as tables:
        draws = _DRAWS[output.rows](_Source(output, recipe, warehouse, tables, base, partition))
        inputs = dict(tables.inputs)
    inputs |= output.external_versions(recipe, warehouse, model, partition)
    settings = probe_settings_of(recipe) if output.rows == "probes" else settings_of(recipe)
    context = context_of(base)
    settings["max_tokens"] = min(settings["max_tokens"], context or settings["max_tokens"])
    named = {"source": base.source, "identity": base.identity(), "dtype": base.dtype_name()}
    launch = launch_of(recipe)
    runs = tuple(
        TrainingRun(
            _label(output, partition, draw.number), in_order(draw.rows), draw.seed, settings, named, launch, draw.number
        )
        for draw in draws
    )
    return Planned(runs, inputs, base)


def _label(output: ModelsOutput, partition: str, number: int) -> str:
    what = {"random": "draw", "matched": "draw", "probes": "probe"}.get(output.rows, "seed")
    return f"{output.key}{f' [{partition}]' if partition else ''}, {what} {number}"


def pool_to_train_on(recipe: Recipe, tables: Snapshot) -> pl.DataFrame:
    """The candidates that may be trained on."""
    return tables.read(CANDIDATE_POOL).join(
        ineligible(recipe, tables), on="sample_id", how="anti", maintain_order="left"
    )


@dataclass(frozen=True)
class _Source:
    """What rows are taken from."""

    output: ModelsOutput
    recipe: Recipe
    warehouse: Warehouse
    tables: Snapshot
    base: LanguageModel
    partition: str

    def subset(self) -> list[tuple[str, Conversation]]:
        """The rows of the partition's subset, from its own file."""
        output = subset_output(self.output.method)
        self.tables.note(output.key, self.partition)
        return read_rows(output.folder(self.warehouse, *cell_of(self.partition)) / "train.jsonl")

    def pool(self) -> pl.DataFrame:
        """The candidates that a subset may take."""
        return pool_to_train_on(self.recipe, self.tables)

    @property
    def seeds(self) -> tuple[int, ...]:
        return training_of(self.recipe).seeds

    def draws(self, number_of: int, rows: Callable[[int], Rows]) -> list[_Draw]:
        """Draws of rows, trained with the recipe's seeds in turn."""
        return [_Draw(rows(number), self.seeds[number % len(self.seeds)], number) for number in range(number_of)]


def _of_subset(source: _Source) -> list[_Draw]:
    rows = source.subset()
    return [_Draw(rows, seed, seed) for seed in source.seeds]


def _of_pool(source: _Source) -> list[_Draw]:
    rows = conversations_of(source.pool())
    return [_Draw(rows, seed, seed) for seed in source.seeds]


def _of_random(source: _Source) -> list[_Draw]:
    pool, recipe = source.pool(), source.recipe
    size = rounded_up(source.partition, len(pool))
    return source.draws(
        training_of(recipe).reference.random, lambda number: conversations_of(random_draw(pool, size, number))
    )


def _of_matched(source: _Source) -> list[_Draw]:
    subset, pool = source.subset(), source.pool()
    n_draws = training_of(source.recipe).reference.random_matched
    draws = matched_draws([name for name, _ in subset], conversations_of(pool), source.recipe, source.base, n_draws)
    return source.draws(n_draws, lambda number: draws[number])


def _of_probes(source: _Source) -> list[_Draw]:
    probes = source.tables.read(PROBE_SUBSETS)
    pool = dict(conversations_of(source.tables.read(CANDIDATE_POOL)))
    gone = sorted(set(probes["sample_id"]) - set(pool))
    if gone:
        raise WarehouseError(
            f"{len(gone)} rows of probes are no longer in the pool, such as {gone[0]}: {PROBE_SUBSETS.asset} is older "
            "than the pool. Materialize it first; `nait run` does so in order."
        )
    seed = source.seeds[0]
    return [
        _Draw([(name, pool[name]) for name in rows["sample_id"]], seed, int(str(number)))
        for (number,), rows in probes.sort("probe", "sample_id").group_by("probe", maintain_order=True)
    ]


_DRAWS: Mapping[str, Callable[[_Source], list[_Draw]]] = {
    "subset": _of_subset,
    "matched": _of_matched,
    "full": _of_pool,
    "random": _of_random,
    "probes": _of_probes,
}


def read_rows(file: Path) -> list[tuple[str, Conversation]]:
    """Pairs of `sample_id` and conversation of a subset's `train.jsonl`.

    Raises:
        WarehouseError: The file is gone, or a row of it is not what was written.
    """
    if not file.is_file():
        raise WarehouseError(f"{file} is gone; `nait run` makes the subset again.")
    rows = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            sample_id = json.loads(line)["sample_id"]
            conversation = Conversation.stored([], line)
            if conversation.sample_id != sample_id:
                raise WarehouseError(
                    f"{file}, line {number}: the row was changed since it was chosen: its id would be "
                    f"{conversation.sample_id}, not {sample_id}. Remove the folder, and `nait run` makes it again."
                )
            rows.append((sample_id, conversation))
    return rows
