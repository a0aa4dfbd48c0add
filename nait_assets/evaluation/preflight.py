"""What a user got wrong in the section `evaluation`, found before anything is trained."""

from nait_assets.errors import RecipeError
from nait_assets.models.answers import require_offsets
from nait_assets.models.encoding import encode
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.preflight import context_of

RESERVED = ("base", "full_reference", "random_reference", "probe")
"""Names of results, which no method may have."""


def require_fit(recipe: Recipe, base: LanguageModel) -> None:
    """Whether the tasks can be evaluated on this machine.

    Raises:
        RecipeError: The base cannot read as many tokens, or a method has the name of a reference.
        ModelError: The base has no language-model head, or its tokenizer does not fit.
    """
    taken = [name for name in recipe.methods if name in RESERVED]
    if taken:
        raise RecipeError(
            f"methods: {taken[0]!r} is the name of results in the evaluation; give the published list another name."
        )
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
