"""A sample's neurons in few numbers: a seeded random projection of all layers, and the neurons that stand out.

p = S z / sqrt(d), where z is the sample's mean activation in standard deviations of a calibration sample, over all
layers and neurons, and S has d rows of random signs (Achlioptas 2003): inner products, and so cosines, are kept within
about 1 / sqrt(d) of the norms' product.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nait_assets.extraction.statistics import NeuronStatistics

if TYPE_CHECKING:
    import torch

NETWORK = -1
"""Stands for a layer in tables where a row is the whole network."""
N_STRONGEST = 64


def signs(seed: int, layer: int, width: int, dimensions: int) -> np.ndarray:
    """`(width, dimensions)` random signs, int8, the same on every machine and with every version of every library.

    Args:
        seed: Of the recipe.
        layer: Each has its own signs.
        width: Neurons of the layer.
        dimensions: Of the projection.
    """
    n_bytes = -(-width * dimensions // 8)
    stream = hashlib.shake_128(f"{seed}:{layer}:{width}:{dimensions}".encode()).digest(n_bytes)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=width * dimensions)
    return (2 * bits.astype(np.int8) - 1).reshape(width, dimensions)


@dataclass(frozen=True)
class Projector:
    """What turns activations into a projection.

    Attributes:
        statistics: Of the calibration sample, by layer.
        dimensions: Of the projection.
        seed: Of the signs.
    """

    statistics: Mapping[int, NeuronStatistics]
    dimensions: int
    seed: int

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

        self.n_strongest, self.dimensions = projector.n_strongest, projector.dimensions
        self.means, self.scales, self.signs = {}, {}, {}
        for layer, statistics in projector.statistics.items():
            self.means[layer] = torch.from_numpy(statistics.mean).to(device)
            self.scales[layer] = torch.from_numpy(statistics.inverse_deviation).to(device)
            drawn = signs(projector.seed, layer, len(statistics.mean), projector.dimensions)
            self.signs[layer] = torch.from_numpy(drawn).to(device)

    def start(self) -> "ProjectedBatch":
        """An empty projection of a batch, to which its layers are added."""
        return ProjectedBatch(self)


class ProjectedBatch:
    """The projection of a batch while its layers come in."""

    def __init__(self, projector: DeviceProjector):
        self._projector = projector
        self._sum: torch.Tensor | None = None
        self._strongest: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def add(self, layer: int, means: "torch.Tensor") -> None:
        """Add a layer's mean activations, `(n_samples, width)` float32."""
        import torch

        projector = self._projector
        standardized = (means - projector.means[layer]) * projector.scales[layer]
        part = standardized @ projector.signs[layer].to(torch.float32)
        self._sum = part if self._sum is None else self._sum + part
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
        assert self._sum is not None
        assert self._strongest is not None
        names = ("strongest_layer", "strongest_neuron", "strongest_value")
        columns = {name: tensor[:, None] for name, tensor in zip(names, self._strongest, strict=True)}
        return {"activation": self._sum[:, None] * self._projector.dimensions**-0.5, **columns}
