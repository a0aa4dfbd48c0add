"""What a user got wrong in the section `evaluation`, found before anything is trained."""

import difflib

from nait_assets.errors import RecipeError, SetupError
from nait_assets.evaluation.isolation import require_isolation
from nait_assets.evaluation.scorers import (
    COMET,
    VLLM,
    installed,
    known_tasks,
    leaves,
    loaded_tasks,
    scoring_libraries,
    uses_vllm,
)
from nait_assets.models.answers import require_offsets
from nait_assets.models.encoding import encode
from nait_assets.recipe import CodeTask, NamedTask, Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.preflight import context_of

RESERVED = ("base", "full_reference", "random_reference", "probe")
"""Names of results, which no method may have."""


def require_fit(recipe: Recipe, base: LanguageModel) -> None:
    """Whether the tasks can be evaluated on this machine.

    Raises:
        SetupError: A package that scores a task is not installed, or programs cannot be isolated.
        RecipeError: The base cannot read as many tokens, a method has the name of a reference, or lm-eval has no such
            task, or runs code for it.
        SourceError: The data of one of lm-eval's own tasks cannot be reached.
        ModelError: The base has no language-model head, or its tokenizer does not fit.
    """
    taken = [name for name in recipe.methods if name in RESERVED]
    if taken:
        raise RecipeError(
            f"methods: {taken[0]!r} is the name of results in the evaluation; give the published list another name."
        )
    _require_tasks(recipe)
    tokenizer = base.tokenizer()
    require_offsets(tokenizer)
    encode([], tokenizer, recipe.extraction)
    base.require_head()
    context, evaluation = context_of(base), recipe.evaluation
    if context is not None and evaluation.max_tokens > context and "max_tokens" in evaluation.model_fields_set:
        raise RecipeError(
            f"evaluation.max_tokens: {evaluation.max_tokens} is more than the base's context of {context} tokens; "
            f"use {context} or less."
        )


def _require_tasks(recipe: Recipe) -> None:
    """Whether what scores the tasks is installed, and lm-eval has those that are its own."""
    tasks = recipe.evaluation.tasks
    missing = sorted({name for task in tasks.values() for name in scoring_libraries(task) if not installed(name)})
    if COMET in missing:
        name = next(name for name, task in tasks.items() if COMET in scoring_libraries(task))
        raise SetupError(
            f"evaluation.tasks.{name}.comet: {COMET} is not installed; `pip install {COMET}` installs it, as far as it "
            "goes with this transformers. Without `comet` BLEU and chrF are left."
        )
    if uses_vllm(recipe) and not installed(VLLM):
        raise SetupError(
            f"evaluation.backend: {VLLM} is not installed; `pip install {VLLM}` installs it on a machine with a GPU. "
            "`backend: hf` does without."
        )
    if missing:
        raise SetupError(
            f"evaluation.tasks need {', '.join(missing)}: `pip install 'nait_assets[evaluation]'` installs what is "
            "missing."
        )
    if any(isinstance(task, CodeTask) for task in tasks.values()):
        require_isolation()
    named = {name: task.task for name, task in tasks.items() if isinstance(task, NamedTask)}
    if named:
        known = known_tasks()
        for name, task in named.items():
            if task not in known:
                close = difflib.get_close_matches(task, known, n=3)
                hint = f"did you mean {', '.join(close)}?" if close else "`lm_eval ls tasks` lists them."
                raise RecipeError(f"evaluation.tasks.{name}: lm-eval has no task {task!r}; {hint}")
        for name, task in named.items():
            if any(getattr(one, "UNSAFE_CODE", False) for one in leaves(loaded_tasks([task]))):
                raise RecipeError(
                    f"evaluation.tasks.{name}: lm-eval runs what a model writes for {task} without isolation; take "
                    "`kind: pass@k` over the rows of its data set instead."
                )
