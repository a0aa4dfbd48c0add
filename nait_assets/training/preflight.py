"""What a user got wrong in the section `training`, found before anything is trained."""

import importlib.util

from nait_assets.errors import RecipeError, SetupError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.launch import launch_of
from nait_assets.training.runs import base_of, training_of

EXTRA = ("accelerate", "peft", "trl")
"""Packages of the extra `training`."""


def context_of(base: LanguageModel) -> int | None:
    """Tokens that a model can read at once; None where its configuration does not say."""
    context: int | None = getattr(base.skeleton().config, "max_position_embeddings", None)
    return context


def require_fit(recipe: Recipe, model: LanguageModel) -> None:
    """Whether what the recipe asks for can be trained on this machine.

    Raises:
        SetupError: A package is missing, or this machine has fewer devices than processes are asked for.
        RecipeError: The base cannot read as many tokens, or the file for accelerate is not one.
        ModelError: The base has no language-model head, or cannot be read.
    """
    training = training_of(recipe)
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"training needs {', '.join(missing)}: `pip install 'nait_assets[training]'` installs what is missing."
        )
    launch_of(recipe).require_devices()
    for tracker in training.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise SetupError(f"training.report_to: {tracker} is not installed; install it, or take it out.")
    base = base_of(recipe, model)
    base.require_head()
    context = context_of(base)
    if context is not None and training.max_tokens > context and "max_tokens" in training.model_fields_set:
        raise RecipeError(
            f"training.max_tokens: {training.max_tokens} is more than the base's context of {context} tokens; "
            f"use {context} or less."
        )
