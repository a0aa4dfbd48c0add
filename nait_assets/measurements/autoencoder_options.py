"""The section of the recipe that says which autoencoder is used, or how one is trained."""

from pydantic import Field, model_validator

from nait_assets.errors import RecipeError
from nait_assets.measurements.top_k import layer_of
from nait_assets.recipe import Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.recipe.sections import hub_is_pinned
from nait_assets.resources import LanguageModel

FIELD = "measurements.sparse_autoencoder"


class SparseAutoencoderOptions(MeasurementOptions):
    """Which autoencoder is used, or how one is trained on the pool, and what is kept of its codes."""

    section = "sparse_autoencoder"
    source: str | None = Field(
        None,
        description="'hub:<org>/<name>', 'package:<module>' or a local folder; if unset, one is trained on the pool.",
    )
    revision: str | None = Field(None, description="Hub only, and required there: the commit of the autoencoder.")
    layer: int | None = Field(None, ge=0, description="Layer to read, counted from 0; the last but one if unset.")
    k: int = Field(192, ge=1, description="Latents that are kept of each token.")
    expansion: int = Field(8, ge=1, description="Latents of a trained autoencoder for each dimension of the model.")
    training_tokens: int = Field(1_000_000, ge=100, description="Most tokens of the pool used for training.")
    epochs: int = Field(1, ge=1, description="How often each of these tokens is trained on.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of Adam.")
    seed: int = Field(0, description="Seed of the first weights, of which candidates train, and of the tokens' order.")
    _hub_is_pinned = model_validator(mode="after")(hub_is_pinned)


def layer_read(recipe: Recipe, model: LanguageModel) -> int:
    """The layer whose output the autoencoder reads.

    Raises:
        RecipeError: The model has no such layer.
    """
    return layer_of(SparseAutoencoderOptions.of(recipe).layer, f"{FIELD}.layer", model)


def require_latents(k: int, n_latents: int, whence: str) -> None:
    """Whether an autoencoder has as many latents as are to be kept.

    Args:
        k: Latents that are kept of each token.
        n_latents: Size of its dictionary.
        whence: Source of that size, for the error.

    Raises:
        RecipeError: It has fewer.
    """
    if k > n_latents:
        raise RecipeError(
            f"{FIELD}.k: {k} is more than the {n_latents} latents of the autoencoder ({whence}); "
            f"use {n_latents} or less."
        )
