"""Codes: which latents of a sparse autoencoder a sample activates (MoNA, arXiv 2503.15573).

For each token z = TopK(ReLU(W_enc (h - b_pre) + b_enc)) (eq. 6), and the mean over the sample's tokens (eq. 7): a sum
would make long samples alike. h is the output of one layer, by default the last but one.

The first token is left out of the mean, as everywhere here; the paper takes all. Of fewer than K positive latents those
are kept, as `sparsify` does; eq. 6 does not say. Where the recipe's K is not the one that an autoencoder was trained
with, the recipe's counts. Cost: one forward pass to the layer, and W_enc for each token.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from nait_assets.measurements import autoencoder, published_autoencoder
from nait_assets.measurements.autoencoder_options import SparseAutoencoderOptions, layer_read, require_latents
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.measurements.top_k import SPARSE, Sparsify, largest, read_sparse
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that codes depend on, beside those that the autoencoder does."""
    options = SparseAutoencoderOptions.of(recipe)
    return [recipe.model, *recipe.extraction.reading, options.layer, options.k]


def preflight(recipe: Recipe, model: LanguageModel) -> None:
    """Raise UserError where the model lacks the layer, or the autoencoder does not fit it."""
    options = SparseAutoencoderOptions.of(recipe)
    layer_read(recipe, model)
    if options.source is not None:
        published_autoencoder.find(recipe, model, weights=False)
        return
    width = int(model.skeleton().config.hidden_size)
    require_latents(options.k, width * options.expansion, f"{options.expansion} x {width}, `expansion` x width")


def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Each sample's mean code."""
    k, layer = SparseAutoencoderOptions.of(context.recipe).k, layer_read(context.recipe, context.model)
    coder = autoencoder.load(context.recipe, context.model, autoencoder.AUTOENCODER.folder(context.warehouse))
    coder = coder.to(context.model.resolved_device())
    return read_sparse(context, samples, "residual", layer, encoder(coder, k), coder.num_latents)


def encoder(coder: Any, k: int) -> Sparsify:
    """From `(n_tokens, width)` hidden states to the values and indices of each token's `k` largest latents."""
    import torch

    weight, bias, center = (tensor.detach() for tensor in (coder.encoder.weight, coder.encoder.bias, coder.b_dec))

    def encode(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return largest(torch.nn.functional.linear(hidden.to(weight.dtype) - center, weight, bias), k)

    return encode


MEASUREMENT = Measurement(
    "codes",
    "Which latents of a sparse autoencoder each sample activates. One row is one sample: the mean code of its tokens, "
    "as indices and values.",
    SPARSE,
    read,
    settings,
    upstream=(autoencoder.AUTOENCODER.key,),
    preflight=preflight,
)
