"""The gradient features of LESS: where one step on a sample would move a LoRA adapter, in few numbers.

At each checkpoint of the warm-up (`less_checkpoints`), by Xia et al. 2024 (arXiv 2402.04333, sections 2 and 4.1), of
the gradient g of the mean loss of one sample's response tokens by the adapter's weights, without dropout:

    an in-domain example   g
    a candidate            Adam's direction  m' / sqrt(v' + 1e-8),  m' = .9 m + .1 g,  v' = .999 v + .001 g^2

As in the published code: epsilon stands inside the root, and m and v, Adam's moments at the checkpoint, are not
corrected for their bias. Either is projected to `dimensions` numbers, scaled to norm 1 (the gradient of a short answer
is larger), and by sqrt(w), where w is the checkpoint's mean learning rate over the sum of them all. The checkpoints'
blocks lie one behind the other, so that a candidate's and an example's vector multiply to  sum_c w_c cos_c.

Projections, both seeded and the same at all checkpoints, with the same mean and variance of every inner product (a
cosine c has a standard error of sqrt((1 + c^2) / dimensions) at most, 0.011 of 8,192):

    rademacher   the paper's: the vector times a matrix of random signs, which is made block by block and never whole,
                 where the gradients are, and once for as many samples as fit the memory
    sketch       each weight is added, with a random sign, to one of the dimensions: the same up to a thousand times
                 cheaper (count sketch; Charikar et al. 2002)

Why no library: `bergson` 2.5.1 divides by the root of v alone, with epsilon outside, and projects from both sides of
each module; `dattri-llm` 0.1.0 corrects the bias and has epsilon outside, as torch's AdamW. Neither is this formula.
Published defects: the code makes half-precision numbers of a direction before it projects, and bfloat16 of a model that
is asked for in float32; here the adapter, its gradients and the projection are float32, whatever the model is.

Cost: a sample takes one forward and one backward pass at each checkpoint, with the sign matrix 2 x weights x dimensions
operations, and 4 x checkpoints x dimensions bytes: 131 kB by default, 6.8 GB for 52,000 candidates; `dimensions: 1024`
takes an eighth. Measured on one core of a busy machine, with SmolLM2-135M at rank 8 (0.92 million weights): 2.9 s
forwards and back (mean of 6 samples of 180 tokens, in the warm-up), 1.2 s for a projection to 8,192 dimensions in a
group of 32 samples, 6 ms as a sketch. From that, not from a whole run, 1,000 candidates at four checkpoints take 4.6
hours, or 3.2 by the sketch. The projection grows with the weights: without a GPU, use the sketch at large ranks.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.errors import WarehouseError
from nait_assets.extraction.projection import counted_signs
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.measurements.less_checkpoints import (
    CHECKPOINTS,
    FIRST,
    SECOND,
    WEIGHTS,
    Checkpoint,
    LessCheckpointsOptions,
    answered,
    checkpoints_in,
)
from nait_assets.measurements.outputs import require_outputs
from nait_assets.models.adapter import Adapter, resolve_targets
from nait_assets.models.answers import AnsweredSample
from nait_assets.models.cost import Cost
from nait_assets.recipe import POOL, Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources import LanguageModel
from nait_assets.tables import VECTOR

if TYPE_CHECKING:
    import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8
BLOCK_WEIGHTS = 4096
"""Weights whose signs are made at once: 134 MB of 8,192 dimensions."""
GROUP_SAMPLES, GROUP_BYTES = 32, 2**30
"""Samples that are stored together, which meet each block of signs once; fewer where their gradients take more memory
than these bytes, a sixteenth of the machine's, or half of what is free on a GPU."""
PRODUCT_ROWS = 16
"""Rows of a product with signs.

Trap: a product of matrices adds up in another order for another number of rows. So it always has as many, filled up
with zeros, or a sample's last digits would depend on how many others a run happened to read.
"""
GENERATOR = "splitmix64"
"""Of the signs: its name is part of how vectors were made."""


class GradientsOptions(MeasurementOptions):
    """What is kept of a gradient."""

    section = "gradients"
    dimensions: int = Field(8192, ge=16, le=100_000, description="Numbers kept of a gradient at each checkpoint.")
    projection: Literal["rademacher", "sketch"] = Field(
        "rademacher",
        description="rademacher: the paper's random signs; sketch: equally accurate on average and far cheaper.",
    )
    seed: int = Field(0, ge=0, description="Seed of the projection.")


def adam_direction(gradient: "torch.Tensor", first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
    """`(n_weights,)`: where Adam would step on a gradient, given its moments, same shape (LESS, equation 3's Gamma)."""
    mean = BETAS[0] * first + (1 - BETAS[0]) * gradient
    square = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    return mean / (square + EPSILON).sqrt()


@dataclass(frozen=True)
class RandomProjection:
    """From as many numbers as the adapter has weights to few, keeping inner products on average.

    Attributes:
        n_weights: Number of weights of the adapter.
        dimensions: Dimensions that are kept.
        kind: See the module's docstring.
        seed: Seed of the signs.
    """

    n_weights: int
    dimensions: int
    kind: Literal["rademacher", "sketch"]
    seed: int

    def __call__(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """`(n, n_weights)` to `(n, dimensions)`, float32 on the same device."""
        return self._sketched(vectors) if self.kind == "sketch" else self._multiplied(vectors)

    def signs(self, first: int, n: int, device: "torch.device") -> "torch.Tensor":
        """`(n, dimensions)` int8 signs of the weights from one on."""
        return counted_signs(self.seed, first, n, self.dimensions, device)

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Of a sketch, the dimension that each weight is added to, `(n_weights,)` int64, and its sign, float32."""
        import hashlib

        stream = hashlib.shake_128(f"{self.seed}:sketch:{self.n_weights}:{self.dimensions}".encode())
        numbers = np.frombuffer(stream.digest(4 * self.n_weights), "<u4")
        sign = 2 * (numbers >> 31).astype(np.float32) - 1
        return ((numbers & 0x7FFFFFFF) % self.dimensions).astype(np.int64), sign

    def _multiplied(self, vectors: "torch.Tensor") -> "torch.Tensor":
        import torch

        found = vectors.new_zeros(len(vectors), self.dimensions)
        for first in range(0, self.n_weights, BLOCK_WEIGHTS):
            block = vectors[:, first : first + BLOCK_WEIGHTS]
            signs = self.signs(first, block.shape[1], vectors.device).to(vectors.dtype)
            for begin in range(0, len(block), PRODUCT_ROWS):
                rows = block[begin : begin + PRODUCT_ROWS]
                full = torch.nn.functional.pad(rows, (0, 0, 0, PRODUCT_ROWS - len(rows)))
                found[begin : begin + PRODUCT_ROWS] += (full @ signs)[: len(rows)]
        return found / self.dimensions**0.5

    def _sketched(self, vectors: "torch.Tensor") -> "torch.Tensor":
        import torch

        indices, sign = (torch.from_numpy(each).to(vectors.device) for each in self.indices)
        return vectors.new_zeros(len(vectors), self.dimensions).index_add_(1, indices, vectors * sign)


def weights_of(checkpoints: Sequence[Checkpoint]) -> list[float]:
    """The checkpoints' mean learning rates, as shares of their sum."""
    rates = [checkpoint.state["learning_rate"] for checkpoint in checkpoints]
    return [rate / sum(rates) for rate in rates]


def features(
    samples: Sequence[AnsweredSample],
    adapter: Adapter,
    checkpoints: Sequence[Checkpoint],
    projection: RandomProjection,
    adams: bool,
) -> tuple[np.ndarray, dict[str, str]]:
    """`(n_samples, n_checkpoints * dimensions)` float32 vectors, and why some samples have none, by `sample_id`.

    Args:
        samples: One backward pass each, at each checkpoint; all of their gradients are held at once.
        adapter: Its weights become the last checkpoint's.
        checkpoints: Checkpoints of the warm-up.
        projection: Projection of as many weights as the adapter has.
        adams: Whether a gradient is turned into Adam's direction: of candidates, not of in-domain examples.
    """
    import torch

    blocks: list[np.ndarray] = []
    reasons: dict[str, str] = {}
    for checkpoint, weight in zip(checkpoints, weights_of(checkpoints), strict=True):
        adapter.put(checkpoint.tensors(WEIGHTS))
        moments = [adapter.flat(checkpoint.tensors(file)) for file in (FIRST, SECOND)] if adams else []
        full = torch.zeros(len(samples), adapter.n_weights, device=adapter.device)
        for index, sample in enumerate(samples):
            try:
                gradient = adapter.gradient(sample)
            except torch.OutOfMemoryError:
                reasons.setdefault(sample.sample_id, f"its {len(sample.token_ids)} tokens do not fit in memory")
                continue
            direction = adam_direction(gradient, *moments) if adams else gradient
            if direction.isfinite().all() and direction.any():
                full[index] = direction
            else:
                reasons.setdefault(sample.sample_id, f"its gradient is zero or not finite, {_where(checkpoint)}")
        found = projection(full)
        norms = torch.stack([row.norm() for row in found])[:, None]  # one by one, for the reason of PRODUCT_ROWS
        for index in (norms[:, 0] == 0).nonzero()[:, 0].tolist():
            reasons.setdefault(samples[index].sample_id, f"its gradient is projected to zero, {_where(checkpoint)}")
        blocks.append((found / norms.clamp_min(torch.finfo(norms.dtype).tiny) * weight**0.5).cpu().numpy())
    return np.concatenate(blocks, axis=1), reasons


def group_size(n_weights: int, device: "torch.device") -> int:
    """How many samples are projected at once, of an adapter with as many weights on a device."""
    import torch

    if device.type == "cuda":
        room = torch.cuda.mem_get_info(device)[0] // 2
    else:
        room = max(GROUP_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16)
    return max(1, min(GROUP_SAMPLES, room // (4 * n_weights)))


def _where(checkpoint: Checkpoint) -> str:
    return f"at the checkpoint of epoch {checkpoint.state['epoch']}"


def read(context: MeasurementContext, missing: pl.DataFrame) -> Iterator[Chunk]:
    """Vectors of the samples, some at a time."""
    options = GradientsOptions.of(context.recipe)
    samples, refused = answered(missing, context.recipe, context.model)
    if refused:
        yield Chunk(_rows([], np.zeros((0, 1), np.float32)), refused)
    folder = CHECKPOINTS.folder(context.warehouse)
    checkpoints = checkpoints_in(folder)
    if not samples:
        return
    if not checkpoints:
        raise WarehouseError(f"{CHECKPOINTS.key}: {folder} holds no checkpoint; materialize it first.")
    adapter = checkpoints[0].adapter(context.model.load_causal())
    projection = RandomProjection(adapter.n_weights, options.dimensions, options.projection, options.seed)
    size = group_size(adapter.n_weights, adapter.device)
    for first in range(0, len(samples), size):
        group = samples[first : first + size]
        vectors, reasons = features(group, adapter, checkpoints, projection, context.corpus == POOL)
        kept = [index for index, sample in enumerate(group) if sample.sample_id not in reasons]
        rows = _rows([group[index].sample_id for index in kept], vectors[kept])
        n_passes = len(group) * len(checkpoints)
        n_tokens = len(checkpoints) * sum(len(sample.token_ids) for sample in group)
        yield Chunk(rows, tuple(reasons.items()), Cost(n_passes, n_passes, n_tokens))


def _rows(sample_ids: Sequence[str], vectors: np.ndarray) -> pl.DataFrame:
    column = pl.Series("vector", vectors).arr.to_list() if len(sample_ids) else pl.Series("vector", [], VECTOR)
    return pl.DataFrame({"sample_id": pl.Series(sample_ids, dtype=pl.String), "vector": column})


def settings(recipe: Recipe) -> Mapping[str, Any]:
    """Fields of the recipe that the vectors depend on, beside those of the warm-up."""
    options = GradientsOptions.of(recipe)
    generator = [GENERATOR] if options.projection == "rademacher" else []
    return {
        "model": recipe.model,
        "reading": recipe.extraction.reading,
        "projection": [options.dimensions, options.projection, options.seed, *generator],
    }


def preflight(recipe: Recipe, model: LanguageModel) -> None:
    """Raise UserError where the model has no head, no module that gets an adapter, or too short a context."""
    require_outputs(recipe, model)
    targets = LessCheckpointsOptions.of(recipe).target_modules
    resolve_targets(model.skeleton(), targets, "measurements.less_checkpoints.target_modules")


MEASUREMENT = Measurement(
    name="gradients",
    description="Where one step on the sample would move a LoRA adapter (LESS). One row is one sample: its projected "
    "gradient at each checkpoint of the warm-up.",
    columns=pl.Schema({"vector": VECTOR}),
    read=read,
    settings=settings,
    upstream=(CHECKPOINTS.key,),
    preflight=preflight,
)
