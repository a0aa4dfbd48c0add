"""A sample's neurons in few numbers: its leading components, a random projection of the rest, and what stands out.

z is the sample's mean activation in standard deviations of a calibration sample, over all layers and neurons, and V the
leading principal components of the calibration sample's z. What is kept is

    [V z,  w S (z - V' V z) / sqrt(r)]

where S has r rows of random signs (Achlioptas 2003). Inner products, and so cosines, are exact within the components
and kept within about w^2 / sqrt(r) of the norms' product outside of them. Without the components the error is that of
the whole norm, which is as large as the differences between candidates. The weight w = 0.7 trades that error against
what is lost of the products outside: of 0, 0.25, 0.5, 0.7 and 1, those beside it ranked best on two pools
(`benchmarks/projection.py`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nait_assets.extraction.statistics import NeuronStatistics

if TYPE_CHECKING:
    import torch

NETWORK = -1
"""Stands for a layer in tables where a row is the whole network."""
N_STRONGEST = 64
OUTSIDE_WEIGHT = 0.7
"""Of what lies outside of the components."""


def counted_signs(seed: int, first: int, n: int, dimensions: int, device: "torch.device") -> "torch.Tensor":
    """`(n, dimensions)` random signs, int8, of the rows from `first` on, of a matrix that is too large to be kept.

    They are made on the device from a row's number alone, and are the same on every device and in blocks of any size:
    the bits of splitmix64 (Steele et al. 2014, figure 17), 64 of each counter. `signs`, whose matrices are made once
    and kept, has others: what is stored of a projection rests on them.

    Args:
        seed: Each has its own signs; so has each number of dimensions.
        first: Number of the first row.
        n: Number of rows.
        dimensions: Dimensions of the projection.
        device: Where they are made.
    """
    import torch

    n_words = -(-dimensions // 64)
    key = int.from_bytes(hashlib.sha256(f"{seed}:{dimensions}".encode()).digest()[:8], "little", signed=True)
    counters = torch.arange(first * n_words, (first + n) * n_words, dtype=torch.int64, device=device)
    words = counters * _signed(0x9E3779B97F4A7C15) + key  # products of int64 wrap around
    words = (words ^ _shifted(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shifted(words, 27)) * _signed(0x94D049BB133111EB)
    octets = (words ^ _shifted(words, 31)).view(torch.uint8)  # little-endian, as every machine that torch runs on
    bits = (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)) & 1
    of_octet = (2 * bits - 1).to(torch.int8).view(torch.int64)[:, 0]  # eight signs in one number: twice as fast
    return torch.take(of_octet, octets.long()).view(torch.int8).reshape(n, n_words * 64)[:, :dimensions]


def _signed(number: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return number - (1 << 64)


def _shifted(words: "torch.Tensor", n: int) -> "torch.Tensor":
    """int64 shifted to the right as if they were unsigned."""
    return (words >> n) & ((1 << (64 - n)) - 1)


def signs(seed: int, layer: int, width: int, dimensions: int) -> np.ndarray:
    """`(width, dimensions)` random signs, int8, the same on every machine and with every version of every library.

    Args:
        seed: Seed of the recipe.
        layer: Each has its own signs.
        width: Neurons of the layer.
        dimensions: Dimensions of the projection.
    """
    n_bytes = -(-width * dimensions // 8)
    stream = hashlib.shake_128(f"{seed}:{layer}:{width}:{dimensions}".encode()).digest(n_bytes)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=width * dimensions)
    return (2 * bits.astype(np.int8) - 1).reshape(width, dimensions)


@dataclass(frozen=True)
class Projector:
    """What turns activations into a projection.

    Attributes:
        statistics: Statistics of the calibration sample, by layer.
        dimensions: Dimensions of the projection, components included.
        seed: Seed of the signs.
        components: Leading components of the calibration sample, by layer `(n_components, width)`: orthonormal rows
            over all layers; none by default.
    """

    statistics: Mapping[int, NeuronStatistics]
    dimensions: int
    seed: int
    components: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def n_components(self) -> int:
        """Dimensions that are components."""
        return len(next(iter(self.components.values()))) if self.components else 0

    @property
    def n_strongest(self) -> int:
        """Neurons that are kept of each sample."""
        return min(N_STRONGEST, sum(len(layer.mean) for layer in self.statistics.values()))

    def project(self, activations: Mapping[int, np.ndarray]) -> np.ndarray:
        """`(n_samples, dimensions)` projections of mean activations, by layer `(n_samples, width)`."""
        import torch

        batch = self.to(torch.device("cpu")).start()
        for layer, means in activations.items():
            batch.add(layer, torch.from_numpy(np.asarray(means, np.float32)))
        return batch.columns()["activation"][:, 0].numpy()

    def to(self, device: "torch.device") -> "DeviceProjector":
        """Its matrices in the memory of a device."""
        return DeviceProjector(self, device)


class DeviceProjector:
    """A projector whose matrices lie in the memory of a device."""

    def __init__(self, projector: Projector, device: "torch.device"):
        import torch

        self.n_strongest = projector.n_strongest
        self.n_random = projector.dimensions - projector.n_components
        self.outside_scale = (OUTSIDE_WEIGHT if projector.n_components else 1.0) * self.n_random**-0.5
        self.means, self.scales, self.components, self.signs = {}, {}, {}, {}
        self.overlap = torch.zeros(projector.n_components, self.n_random, device=device)
        for layer, statistics in projector.statistics.items():
            width = len(statistics.mean)
            none = np.zeros((0, width), np.float32)
            self.means[layer] = torch.from_numpy(statistics.mean).to(device)
            self.scales[layer] = torch.from_numpy(statistics.inverse_deviation).to(device)
            self.components[layer] = torch.from_numpy(projector.components.get(layer, none)).to(device)
            self.signs[layer] = torch.from_numpy(signs(projector.seed, layer, width, self.n_random)).to(device)
            self.overlap += self.components[layer] @ self.signs[layer].float()

    def start(self) -> "ProjectedBatch":
        """An empty projection of a batch, to which its layers are added."""
        return ProjectedBatch(self)


class ProjectedBatch:
    """The projection of a batch while its layers come in."""

    def __init__(self, projector: DeviceProjector):
        self._projector = projector
        self._sums: tuple[torch.Tensor, torch.Tensor] | None = None
        self._strongest: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def add(self, layer: int, means: "torch.Tensor") -> None:
        """Add a layer's mean activations, `(n_samples, width)` float32."""
        import torch

        projector = self._projector
        standardized = (means - projector.means[layer]) * projector.scales[layer]
        parts = standardized @ projector.components[layer].T, standardized @ projector.signs[layer].float()
        self._sums = parts if self._sums is None else (self._sums[0] + parts[0], self._sums[1] + parts[1])
        n = min(projector.n_strongest, standardized.shape[1])
        neurons = standardized.abs().topk(n, dim=1).indices
        found = (
            torch.full_like(neurons, layer, dtype=torch.int16),
            neurons.to(torch.int32),
            standardized.gather(1, neurons),
        )
        if self._strongest is not None:
            layers, neurons_, values = (torch.cat(pair, dim=1) for pair in zip(self._strongest, found, strict=True))
            best = values.abs().topk(min(projector.n_strongest, values.shape[1]), dim=1).indices
            found = layers.gather(1, best), neurons_.gather(1, best), values.gather(1, best)
        self._strongest = found

    def columns(self) -> "dict[str, torch.Tensor]":
        """`activation` `(n_samples, 1, dimensions)`, and the strongest neurons `(n_samples, 1, n)`, strongest first."""
        import torch

        assert self._sums is not None
        assert self._strongest is not None
        names = ("strongest_layer", "strongest_neuron", "strongest_value")
        columns = {name: tensor[:, None] for name, tensor in zip(names, self._strongest, strict=True)}
        inside, signed = self._sums
        outside = (signed - inside @ self._projector.overlap) * self._projector.outside_scale
        return {"activation": torch.cat([inside, outside], dim=1)[:, None], **columns}


def leading_components(standardized: Mapping[int, np.ndarray], n: int) -> dict[int, np.ndarray]:
    """The directions in which standardised activations vary most, over all layers.

    They come from the samples' matrix of inner products, which is small, while that of the neurons is not.

    Args:
        standardized: By layer, `(n_samples, width)`.
        n: How many, at most; fewer where the samples span fewer dimensions.

    Returns:
        By layer `(n_components, width)`, float32: orthonormal rows over all layers.
    """
    products = sum(values.astype(np.float64) @ values.T.astype(np.float64) for values in standardized.values())
    variances, samples = np.linalg.eigh(products)
    order = np.argsort(-variances)[:n]
    order = order[variances[order] > 1e-6 * max(variances.max(), np.finfo(float).tiny)]
    chosen = samples[:, order]
    chosen *= np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(order))])  # an eigenvector's sign is free
    weights = chosen / np.sqrt(variances[order])
    return {layer: (weights.T @ values).astype(np.float32) for layer, values in standardized.items()}
