"""Gates: which neurons of one layer a sample opens, the polysemantic control of MoNA (arXiv 2503.15573, section 4).

For each token TopK(SiLU(x W_gate)), the activated gate projection of the MLP (CATS, arXiv 2404.08763), and the mean
over the sample's tokens: eq. 6 and 7 of MoNA with the model's own neurons in the place of an autoencoder's latents. So
it differs from `mona` in the units alone. A family whose gate has another activation than SiLU (Gemma) keeps its own.

The first token is left out of the mean, as everywhere here; the paper takes all. Of fewer than K gates that are open
(positive), those are kept: a closed gate of SiLU is a little negative, and the similarity has no place for that.
Cost: one forward pass to the layer.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import Field

from nait_assets.errors import RecipeError
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.measurements.top_k import SPARSE, largest, layer_of, read_sparse
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources import LanguageModel


class GatesOptions(MeasurementOptions):
    """Which gates are read."""

    section = "gates"
    layer: int | None = Field(None, ge=0, description="Layer to read, counted from 0; the last but one if unset.")
    k: int = Field(192, ge=1, description="Gates that are kept of each token.")


def layer_read(recipe: Recipe, model: LanguageModel) -> int:
    """The layer whose gates are read.

    Raises:
        RecipeError: The model has no such layer.
    """
    return layer_of(GatesOptions.of(recipe).layer, "measurements.gates.layer", model)


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that gates depend on."""
    options = GatesOptions.of(recipe)
    return [recipe.model, *recipe.extraction.reading, options.layer, options.k]


def preflight(recipe: Recipe, model: LanguageModel) -> None:
    """Raise RecipeError where the model lacks the layer or gates, or has fewer of them than are kept."""
    layer, k = layer_read(recipe, model), GatesOptions.of(recipe).k
    width = resolve_site(model.skeleton(), "gate", [layer]).width
    if k > width:
        raise RecipeError(
            f"measurements.gates.k: {k} is more than the {width} gates of layer {layer} of "
            f"{model.source}; use {width} or less."
        )


def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Each sample's mean gates."""
    layer, k = layer_read(context.recipe, context.model), GatesOptions.of(context.recipe).k
    width = resolve_site(context.model.skeleton(), "gate", [layer]).width
    return read_sparse(context, samples, "gate", layer, lambda gates: largest(gates, k), width)


MEASUREMENT = Measurement(
    "gates",
    "How far each sample opens the gates of one layer's MLP. One row is one sample: the mean over its tokens of the K "
    "widest gates of each, as indices and values.",
    SPARSE,
    read,
    settings,
    preflight=preflight,
)
