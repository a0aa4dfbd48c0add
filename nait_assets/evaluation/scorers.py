"""What scores a task, and which model is scored."""

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nait_assets.errors import SourceError
from nait_assets.recipe import AnswerTask, Recipe, Task
from nait_assets.resources import LanguageModel
from nait_assets.training.runs import base_of

LM_EVAL = "library:lm-eval"
"""Name of lm-eval's version among inputs: its own tasks have no other."""

COMET, VLLM = "unbabel-comet", "vllm"
"""Packages that no extra installs: the first asks for other versions of transformers, the second for a GPU."""
OFFLINE = "HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE"


def scoring_libraries(task: Task) -> list[str]:
    """Packages of the extra `evaluation` that a task is scored with."""
    if task.kind == "loss":
        return []
    translates = isinstance(task, AnswerTask) and task.kind == "translation"
    comet = [COMET] if isinstance(task, AnswerTask) and task.comet else []
    return ["lm-eval", *(["sacrebleu"] if translates else []), *comet]


def uses_vllm(recipe: Recipe) -> bool:
    """Whether vLLM runs models on some task."""
    evaluation = recipe.evaluation
    return evaluation.backend == VLLM and any(task.kind != "loss" for task in evaluation.tasks.values())


def installed(package: str) -> bool:
    """Whether a package is there."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def evaluated_base(recipe: Recipe, model: LanguageModel) -> LanguageModel:
    """The base of all models that are evaluated: the one that is trained, or the recipe's where none is."""
    return base_of(recipe, model) if recipe.training else model


def scorer_versions(recipe: Recipe) -> dict[str, str]:
    """Versions of the libraries that score a recipe's tasks, by the name that records give them."""
    needed = {name for task in recipe.evaluation.tasks.values() for name in scoring_libraries(task)}
    needed |= {VLLM} if uses_vllm(recipe) else set()
    return {f"library:{name}": importlib.metadata.version(name) for name in sorted(needed) if installed(name)}


def loaded_tasks(tasks: Sequence[Any], include_defaults: bool = True) -> Any:
    """Tasks of lm-eval with their data, in nested groups.

    Args:
        tasks: Names, or mappings that say more.
        include_defaults: Whether its own are among them, whose index takes seconds.

    Raises:
        SourceError: The data of one cannot be reached.
    """
    if os.environ.get(OFFLINE[0]) == "1":
        os.environ.setdefault(OFFLINE[1], "1")  # a package of lm-eval's does not heed the first
    from lm_eval.tasks import TaskManager

    try:
        return TaskManager(include_defaults=include_defaults).load(list(tasks))
    except (ConnectionError, OSError, ValueError) as error:
        names = ", ".join(one if isinstance(one, str) else one["task"] for one in tasks)
        raise SourceError(
            f"evaluation.tasks: the data of lm-eval's {names} cannot be had ({str(error)[:200]}). It is on the hub; "
            "without a connection take `kind: multiple_choice`, `exact_match`, `f1` or `pass@k` over files of your own."
        ) from error


def leaves(loaded: Any) -> Iterator[Any]:
    """The tasks in nested groups."""
    if isinstance(loaded, Mapping):
        for one in loaded.values():
            yield from leaves(one)
    else:
        yield loaded


def known_tasks() -> list[str]:
    """Names of lm-eval's own tasks and groups."""
    from lm_eval.tasks import TaskManager

    return list(TaskManager().all_tasks)
