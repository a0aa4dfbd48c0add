"""What an evaluation is given: models, and tasks with their examples, and the versions of all that was read."""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nait_assets.conversation import Conversation, conversations_of
from nait_assets.corpora.catalogue import TASK_OUTPUT
from nait_assets.evaluation.catalogue import ResultsOutput
from nait_assets.evaluation.scorers import LM_EVAL, VLLM, evaluated_base, scoring_libraries, uses_vllm
from nait_assets.models.libraries import library_versions
from nait_assets.recipe import CodeTask, Extraction, Recipe, Task, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.training import storing
from nait_assets.training.models import Model, base_model, trained_models
from nait_assets.training.preflight import context_of

ALGORITHM, RUN_ALGORITHM = "1", "2"
"""Of all results; and of how programs are run with their tests."""


def scorers(task: Task) -> list[str]:
    """Versions of the libraries that score a task."""
    return [f"{name} {importlib.metadata.version(name)}" for name in scoring_libraries(task)]


@dataclass(frozen=True, eq=False)
class GivenTask:
    """A task with its examples.

    Attributes:
        name: Name of the task.
        task: What the recipe says of it.
        conversations: Pairs of `sample_id` and conversation, in the order of the ids.
        version: Version of the examples.
        extraction: How conversations are written out, and their most tokens.
        backend: What runs the model, where lm-eval scores the task.
    """

    name: str
    task: Task
    conversations: Sequence[tuple[str, Conversation]]
    version: str
    extraction: Extraction
    backend: str = "hf"

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of the recipe that a result depends on, beside the examples."""
        return _scored(self.task)

    def key(self, model: Model) -> str:
        """Hash of all that the results of a model depend on, save for rounding."""
        of_task = [self.settings, self.version, list(self.extraction.reading), scorers(self.task)]
        if self.backend == VLLM:
            of_task.append(f"{VLLM} {importlib.metadata.version(VLLM)}")
        return fingerprint(ALGORITHM, model.key, model.base.dtype_name(), library_versions(), *of_task)


@dataclass(frozen=True)
class Given:
    """What an output's partition is evaluated from.

    Attributes:
        models: Models, by number.
        tasks: All tasks of the recipe.
        inputs: Versions of all that was read.
        restore: Function that trains some of the models again whose weights were removed, with one that takes lines.
    """

    models: Sequence[Model]
    tasks: Sequence[GivenTask]
    inputs: Mapping[str, str]
    restore: Callable[[Sequence[Model], Callable[[str], None]], None]


def read_given(
    output: ResultsOutput, recipe: Recipe, warehouse: Warehouse, model: LanguageModel, partition: str
) -> Given:
    """What a partition of results is made from.

    Raises:
        WarehouseError: The models, or examples of a task, have not been made.
    """
    base, trained = evaluated_base(recipe, model), output.models
    context = context_of(base)
    max_tokens = min(recipe.evaluation.max_tokens, context or recipe.evaluation.max_tokens)
    extraction = recipe.extraction.model_copy(update={"max_tokens": max_tokens})
    backend = recipe.evaluation.backend
    tasks, inputs = [], output.external_versions(recipe, warehouse, model, partition)
    with warehouse.tables.snapshot() as tables:
        models = [base_model(base)] if trained is None else trained_models(warehouse, tables, trained, partition, base)
        for name, task in sorted(recipe.evaluation.tasks.items()):
            if not task.examples:
                tasks.append(GivenTask(name, task, (), str(inputs[LM_EVAL]), extraction, backend))
                continue
            frame, versions = TASK_OUTPUT.read(warehouse, tables, name)
            (version,) = versions.values()
            rows, own = conversations_of(frame.sort("sample_id")), "hf" if task.kind == "loss" else backend
            tasks.append(GivenTask(name, task, rows, version, extraction, own))
        inputs |= tables.inputs

    def restore(gone: Sequence[Model], log_line: Callable[[str], None]) -> None:
        if trained is not None:
            storing.restore(gone, trained, partition, recipe, warehouse, model, log_line)

    return Given(models, tasks, inputs, restore)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Fields of the recipe that results depend on, beside models and examples."""
    evaluation = recipe.evaluation
    tasks = {name: _scored(task) for name, task in evaluation.tasks.items()}
    _, *reading = recipe.extraction.reading  # the first is extraction's own max_tokens
    backend = {"backend": VLLM} if uses_vllm(recipe) else {}
    return {"tasks": tasks, "max_tokens": evaluation.max_tokens, "reading": reading, **backend}


def _scored(task: Task) -> dict[str, Any]:
    """What of a task a result depends on: not where its examples come from, nor which targets it tells of."""
    unsaid = {"comet"} if getattr(task, "comet", None) is None else set()  # results are what they were before it
    run = {"run_by": RUN_ALGORITHM} if isinstance(task, CodeTask) else {}
    return {**task.model_dump(mode="json", exclude={"examples", "targets", *unsaid}), **run}
