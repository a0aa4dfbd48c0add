"""What scores a task, and which model is scored."""

import importlib.metadata

from nait_assets.recipe import Recipe, Task
from nait_assets.resources import LanguageModel
from nait_assets.training.runs import base_of

LM_EVAL = "library:lm-eval"
"""Name of lm-eval's version among inputs: its own tasks have no other."""


def scoring_libraries(task: Task) -> list[str]:
    """Packages of the extra `evaluation` that a task is scored with."""
    if task.kind == "loss":
        return []
    return ["lm-eval", *(["sacrebleu"] if task.kind == "translation" else [])]


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
    return {f"library:{name}": importlib.metadata.version(name) for name in sorted(needed) if installed(name)}


def known_tasks() -> list[str]:
    """Names of lm-eval's own tasks and groups."""
    from lm_eval.tasks import TaskManager

    return list(TaskManager().all_tasks)
