"""What is kept of each token: its largest values, averaged over the tokens of a sample and stored sparse.

Belongs here: the mean of sparse tokens, and the pass to one layer that it is taken in, for the gates of an MLP and for
the codes of an autoencoder alike. Does not belong here: what is sparse of a token.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.errors import RecipeError
from nait_assets.extraction.neurons import Reader
from nait_assets.measurements.engine import Chunk, MeasurementContext
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import Shard, encode, plan
from nait_assets.models.sites import resolve_site
from nait_assets.resources import LanguageModel
from nait_assets.tables import INDICES, VECTOR

if TYPE_CHECKING:
    import torch

SPARSE = pl.Schema({"indices": INDICES, "values": VECTOR})
"""A sparse vector: ascending indices, and the positive numbers that stand there."""
CHUNK_TOKENS = 1024
"""Tokens that are dense at once: of an autoencoder with 131,072 latents they are 512 MB."""
Sparsify = Callable[["torch.Tensor"], "tuple[torch.Tensor, torch.Tensor]"]


def layer_of(layer: int | None, field: str, model: LanguageModel) -> int:
    """The layer that the recipe names, else the last but one.

    Args:
        layer: As the recipe names it, or None.
        field: Field of the recipe that does, for the error.
        model: The recipe's model.

    Raises:
        ModelError: The model cannot be found, or has no such layer.
    """
    n_layers = len(resolve_site(model.skeleton(), "residual", "all").layers)
    if layer is None:
        return max(0, n_layers - 2)
    if layer >= n_layers:
        raise RecipeError(f"{field}: {layer} is out of range; {model.source} has layers 0 to {n_layers - 1}.")
    return layer


def largest(values: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """The `k` largest of `(n_tokens, n)` and their indices, both `(n_tokens, k)`; negative ones as 0.

    Where a token has fewer than `k` positive values, the rest hold 0: the generalised Jaccard
    similarity is one of vectors without negative numbers.
    """
    found, indices = values.topk(k, dim=-1)
    return found.clamp(min=0), indices


class SparseMean:
    """The mean of sparse tokens over each sample of a packed batch, its first token left out.

    Args:
        packing: Packing of the batch.
        sparsify: Function from `(n_tokens, width)` to the values and indices kept of each token, `(n_tokens, k)`.
        n_columns: Length of the dense vector that indices count along.
    """

    def __init__(self, packing: Packing, sparsify: Sparsify, n_columns: int):
        self._packing, self._sparsify, self._n_columns = packing, sparsify, n_columns

    def mean(self, activations: "torch.Tensor") -> "torch.Tensor":
        """`(n_samples, n_columns)` float32 means of `(n_tokens, width)` activations."""
        import torch

        means = torch.zeros((len(self._packing.lengths), self._n_columns), device=activations.device)
        for first, end, begin, stop in _chunks(self._packing.lengths, CHUNK_TOKENS):
            values, indices = self._sparsify(activations[begin:stop])
            tokens = torch.zeros((stop - begin, self._n_columns), device=activations.device)
            tokens.scatter_(1, indices.long(), values.float())
            weights = _weights(self._packing.lengths, first, end, begin, stop)
            means[first:end] += to_device(weights, activations.device) @ tokens  # a product: the same sum every time
        return means


def _chunks(lengths: Sequence[int], size: int) -> Iterator[tuple[int, int, int, int]]:
    """First sample, the one behind the last, first token, the one behind the last, of each chunk of tokens."""
    ends = np.cumsum(lengths)
    for begin in range(0, int(ends[-1]), size):
        stop = min(begin + size, int(ends[-1]))
        first, last = np.searchsorted(ends, [begin, stop - 1], side="right")
        yield int(first), int(last) + 1, begin, stop


def _weights(lengths: Sequence[int], first: int, end: int, begin: int, stop: int) -> np.ndarray:
    """`(end - first, stop - begin)` float32: of each token in the mean of each sample, 0 for a sample's first token."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(begin, stop)[None]
    members = (tokens > starts[first:end, None]) & (tokens < starts[first + 1 : end + 1, None])
    return (members / (np.asarray(lengths[first:end])[:, None] - 1)).astype(np.float32)


def sparse_rows(sample_ids: Sequence[str], means: np.ndarray) -> pl.DataFrame:
    """Columns `sample_id`, `indices`, `values` of `(n_samples, n_columns)` means; zeros are not kept."""
    samples, indices = np.nonzero(means)
    counts = np.bincount(samples, minlength=len(sample_ids))
    ends = np.cumsum(counts)[:-1]
    return pl.DataFrame(
        {
            "sample_id": list(sample_ids),
            "indices": [pl.Series(part, dtype=pl.Int32) for part in np.split(indices.astype(np.int32), ends)],
            "values": [pl.Series(part, dtype=pl.Float32) for part in np.split(means[samples, indices], ends)],
        },
        schema={"sample_id": pl.String, **SPARSE},
    )


def read_sparse(
    context: MeasurementContext,
    samples: pl.DataFrame,
    kind: Literal["residual", "gate"],
    layer: int,
    sparsify: Sparsify,
    n_columns: int,
) -> Iterator[Chunk]:
    """The mean of each sample's sparse tokens, a part for each shard: one pass, which ends at the layer.

    Args:
        context: Context of the measurement.
        samples: Columns `sample_id`, `messages`.
        kind: Kind of the site.
        layer: Layer that is read.
        sparsify: As of `SparseMean`.
        n_columns: Length of the dense vector that indices count along.
    """
    encoded, refused = encode(conversations_of(samples), context.model.tokenizer(), context.recipe.extraction)
    yield Chunk(pl.DataFrame(schema={"sample_id": pl.String, **SPARSE}), refused)
    loaded = context.model.load()
    reader = Reader(
        loaded,
        resolve_site(loaded.network, kind, [layer]),
        keep_first_and_last=False,
        pool=lambda packing, _: SparseMean(packing, sparsify, n_columns),
    )
    for shard in plan(encoded, context.options.batch_tokens_on(loaded.device.type), context.options.shard_tokens):
        yield _part(reader, shard)


def _part(reader: Reader, shard: Shard) -> Chunk:
    frames = [pl.DataFrame(schema={"sample_id": pl.String, **SPARSE})]
    rejected: list[tuple[str, str]] = []
    for result in reader.read(shard.batches):
        rejected += result.rejected
        if result.pooled is not None:
            sample_ids = [sample.sample_id for sample in result.samples]
            frames.append(sparse_rows(sample_ids, result.pooled.columns["activation"][:, 0]))
    return Chunk(pl.concat(frames), rejected, Cost(n_forward=len(shard.samples), n_tokens=shard.n_tokens))
