"""Evaluating models on tasks: what is known of a model and a task is read, and everything else is found out once.

The examples of a model and a task are stored as soon as they are known, so that a run that is cut off goes on behind
the last of them. Results of equal models are the same rows: two methods that choose the same subset are evaluated once.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from nait_assets.evaluation.given import Given, GivenTask
from nait_assets.evaluation.losses import AnswerReader, answer_losses, encoded
from nait_assets.evaluation.scorers import VLLM
from nait_assets.evaluation.tables import EXAMPLES, RESULTS
from nait_assets.models.cost import Cost
from nait_assets.models.progress import Progress
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.language_model import LoadedModel
from nait_assets.training.models import Model, release


@dataclass
class Evaluated:
    """The results of an output's partition.

    Attributes:
        rows: Rows of `tables.RESULTS` but the columns of the partition.
        examples: Their examples, in order.
        n_evaluated: Pairs of a model and a task that were not known before.
        notes: What is to be known, such as examples that are left out.
        cost: Cost of those.
    """

    rows: pl.DataFrame
    examples: pl.DataFrame
    n_evaluated: int
    notes: Sequence[str] = ()
    cost: Cost = field(default_factory=Cost)


def evaluate(given: Given, warehouse: Warehouse, options: RunOptions, log_line: Callable[[str], None]) -> Evaluated:
    """The results of models on all tasks, by number, task and metric.

    Args:
        given: Models and tasks.
        warehouse: Warehouse that keeps what was found out of each model and task.
        options: How models are run.
        log_line: Function that takes lines for the run's log.

    Raises:
        DataError: A task has no example that can be evaluated.
        NumericalError: A loss is NaN or infinite.
    """
    keys = {(model.key, task.name): task.key(model) for model in given.models for task in given.tasks}
    known = _known(warehouse, set(keys.values()))
    missing = {
        model.key: [task for task in given.tasks if keys[model.key, task.name] not in known] for model in given.models
    }
    work = {key: tasks for key, tasks in missing.items() if tasks}
    present = list({model.key: model for model in given.models if model.key in work}.values())
    given.restore(present, log_line)
    n_examples = sum(len(task.conversations) for tasks in work.values() for task in tasks)
    progress = Progress(f"{len(present)} models", [(n_examples, n_examples)], log_line, "example")
    runner = _Runner(options)
    try:
        progress.begin()
        for model in present:
            runner.take(model)
            for task in work[model.key]:
                frame = runner.run(task)
                with warehouse.tables.transaction() as transaction:
                    transaction.replace(EXAMPLES, frame, evaluation_key=keys[model.key, task.name])
                progress.advance(len(task.conversations), len(task.conversations))
            runner.drop()
    finally:
        progress.close()
    rows, examples = _rows(given, keys, warehouse)
    return Evaluated(rows, examples, sum(map(len, work.values())), runner.notes, runner.cost)


class _Runner:
    """Runs tasks on one model after the other; examples are made into tokens once for all models.

    Args:
        options: How models are run.
    """

    def __init__(self, options: RunOptions):
        self.options = options
        self.cost, self.notes = Cost(), list[str]()
        self._encoded: dict[str, Any] = {}
        self._model: Model | None = None
        self._loaded: LoadedModel | None = None
        self._reader: AnswerReader | None = None
        self._packs: bool | None = None  # found out with the first model, as all are of a kind

    def take(self, model: Model) -> None:
        """Go on to a model, which is loaded when a task asks for it."""
        self._model = model

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory."""
        assert self._model is not None
        if self._loaded is None:
            self._loaded = self._model.load()
        return self._loaded

    def drop(self) -> None:
        """Free its memory."""
        self._loaded = self._reader = None
        gc.collect()

    def run(self, task: GivenTask) -> pl.DataFrame:
        """Rows of `tables.EXAMPLES` of the model on a task, but the key."""
        began = time.monotonic()
        frame, cost = self._losses(task) if task.task.kind == "loss" else self._answers(task)
        self.cost += replace(cost, seconds=time.monotonic() - began)
        return frame

    def _losses(self, task: GivenTask) -> tuple[pl.DataFrame, Cost]:
        assert self._model is not None
        if self._reader is None:
            self._reader = AnswerReader(self.loaded, self._packs)
            self._packs = self._reader.packs
        if task.name not in self._encoded:
            samples, refused = encoded(task.conversations, self._model.tokenizer(), task.extraction)
            self._encoded[task.name] = samples
            if refused:
                name, reason = refused[0]
                self.notes.append(f"{task.name}: {len(refused)} examples are left out, such as {name}: {reason}")
        samples = self._encoded[task.name]
        frame = answer_losses(samples, self._reader, self.options.batch_tokens_on(self.loaded.device.type))
        return frame, Cost(n_forward=len(samples), n_tokens=sum(len(sample.token_ids) for sample in samples))

    def _answers(self, task: GivenTask) -> tuple[pl.DataFrame, Cost]:
        from nait_assets.evaluation.harness import harness_examples

        assert self._model is not None
        if task.backend == VLLM:
            self.drop()  # it loads the model by itself, beside which there may be no room
        served = self._model if task.backend == VLLM else self.loaded
        frame = harness_examples(task, served, self._model.tokenizer())
        return frame, Cost(n_forward=frame["sample_id"].n_unique())


def _known(warehouse: Warehouse, keys: set[str]) -> set[str]:
    """Those of some keys whose examples are stored."""
    with warehouse.tables.snapshot() as tables:
        if not tables.has_table(EXAMPLES.name):
            return set()
        return keys & set(tables.counted(EXAMPLES, "evaluation_key"))


def _rows(given: Given, keys: Mapping[tuple[str, str], str], warehouse: Warehouse) -> tuple[pl.DataFrame, pl.DataFrame]:
    with warehouse.tables.snapshot() as tables:
        examples = {key: tables.rows(EXAMPLES, evaluation_key=key) for key in sorted(set(keys.values()))}
    rows = []
    for model in given.models:
        for task in given.tasks:
            key = keys[model.key, task.name]
            for (metric,), of_metric in sorted(examples[key].group_by("metric")):
                own = (model.number or 0, model.key, task.name, str(metric))
                rows.append((*own, weighted_mean(of_metric), len(of_metric), key))
    frame = pl.DataFrame(rows, schema=RESULTS.written_columns, orient="row")
    return frame, pl.concat(examples.values()).sort("evaluation_key", "sample_id", "metric")


def weighted_mean(examples: pl.DataFrame) -> float:
    """The mean of examples' values by their weights, in the order of the ids, as sums depend on it."""
    ordered = examples.sort("sample_id")
    return float(np.average(ordered["value"].to_numpy(), weights=ordered["weight"].to_numpy()))


def released(given: Given, recipe: Recipe) -> int:
    """Remove the weights of evaluated models where the recipe keeps none; how many were removed."""
    if recipe.training is None or recipe.training.kept != "none":
        return 0
    folders = {model.folder for model in given.models if model.folder is not None and model.is_present}
    for folder in sorted(folders):
        release(folder)
    return len(folders)
