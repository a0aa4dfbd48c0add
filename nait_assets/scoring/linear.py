"""Scores that are sums over neurons: what each layer and each neuron adds to a candidate's.

Belongs here: the sum taken apart. Does not belong here: which values and weights a method has (`methods`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nait_assets.extraction.projection import NETWORK
from nait_assets.scoring.method import Parts, Reason
from nait_assets.scoring.ranking import largest
from nait_assets.shown import figure


@dataclass(frozen=True)
class LinearScore:
    """A candidate's score as a sum over neurons, value times weight, over a norm.

    Attributes:
        layers: In order; `projection.NETWORK` alone where a projection stands in the place of the neurons.
        values: `(n_layers, width)` float64, the candidate's, in the method's units.
        weights: `(n_layers, width)` float64, the target's.
        norm: What the sum is divided by; 0 for a candidate equal to the pool's mean, whose score is 0.
    """

    layers: Sequence[int]
    values: np.ndarray
    weights: np.ndarray
    norm: float = 1.0

    @classmethod
    def of(
        cls, values: Mapping[int, np.ndarray], weights: Mapping[int, np.ndarray], norm: float = 1.0
    ) -> "LinearScore":
        """The same from vectors by layer, `(width,)` each; the layers are those of the weights."""
        layers = sorted(weights)
        own, others = (
            np.stack([np.asarray(rows[layer], np.float64) for layer in layers]) for rows in (values, weights)
        )
        return cls(layers, own, others, norm)

    @cached_property
    def shares(self) -> np.ndarray:
        """`(n_layers, width)` what each neuron adds to the score; their sum is the score."""
        return self.values * self.weights / self.norm if self.norm else np.zeros_like(self.values)

    @property
    def parts(self) -> list[Parts]:
        """The score by layer; by dimension where there is a projection."""
        if list(self.layers) == [NETWORK]:
            return [by_number("dimension", self.shares[0])]
        named = zip(self.layers, self.shares.sum(axis=1).tolist(), strict=True)
        return [Parts("layer", {f"layer {layer}": share for layer, share in named})]

    @property
    def spread(self) -> str:
        """Over how many neurons the score is spread, in words."""
        shares = np.sort(self.shares, axis=None)[::-1]
        speaking_for, against = shares[shares > 0], shares[shares < 0]
        half = int(np.searchsorted(np.cumsum(speaking_for), speaking_for.sum() / 2)) + 1 if len(speaking_for) else 0
        scale = float(np.abs(shares).sum())
        said = f"{len(speaking_for):,} of {shares.size:,} neurons speak for it, {figure(speaking_for.sum(), scale)}"
        said += f", half of it by the {half:,} that add most"
        return f"{said}; {len(against):,} speak against it, {figure(against.sum(), scale)}"

    def strongest(self, n: int, detail: Callable[[int, int, float, float], str]) -> list[Reason]:
        """The neurons that add most, the largest first; to a negative score, those that take most from it.

        Args:
            n: How many, at most.
            detail: What is said of a neuron, by its layer, its index there, its value and its weight.
        """
        largest_share = float(np.abs(self.shares).max(initial=0))
        return [
            Reason(
                f"{self.layers[row]}:{neuron}",
                f"{detail(self.layers[row], neuron, self.values[row, neuron], self.weights[row, neuron])}, "
                f"share {figure(self.shares[row, neuron], largest_share)}",
                float(self.shares[row, neuron]),
                (int(self.layers[row]), int(neuron)),
                bool(self.weights[row, neuron] < 0),
            )
            for row, neuron in largest(self.shares if self.shares.sum() >= 0 else -self.shares, n)
        ]


def in_deviations(_layer: int, _neuron: int, value: float, weight: float) -> str:
    """What is said of a neuron whose values are standard deviations of the pool."""
    return f"{value:+.2f} sd here, weight {weight:+.5f}"


def by_number(by: str, values: np.ndarray) -> Parts:
    """Parts that have numbers and no names: `(n,)` values, the first one `component 1`."""
    return Parts(by, {f"{by} {number}": value for number, value in enumerate(values.tolist(), 1)})
