"""Intervals by resampling examples and models: every difference is taken example by example, over the same resamples.

A mean over few examples is uncertain, and so is one training: both are drawn again, with replacement. All models share
the draws of a task's examples, so that what makes an example hard for all of them drops out of differences.
Belongs here: what is drawn, and the ends of an interval, for everything that states some.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_RESAMPLES, SEED = 2000, 0
INTERVAL = (2.5, 97.5)
"""Percentiles at the ends of an interval of 95 %."""


def resamples(
    n: int, seed: int | Sequence[int] = SEED, n_resamples: int = N_RESAMPLES, n_drawn: int | None = None
) -> np.ndarray:
    """`(n_resamples, n_drawn)` places of things that are drawn with replacement.

    Args:
        n: Number of things that there are.
        seed: Seed of the draws; what has the same number and seed has the same draws, so that differences are paired.
        n_resamples: Number of resamples.
        n_drawn: Number of things in each; `n` by default.
    """
    return np.random.default_rng(seed).integers(0, n, (n_resamples, n if n_drawn is None else n_drawn))


@dataclass(frozen=True)
class Draws:
    """How often each example of a task is drawn; the first draw takes each once.

    Attributes:
        weights: `(1 + n_resamples, n_examples)`: counts times the examples' weights; rows sum to 1.
    """

    weights: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, seed: int = SEED) -> "Draws":
        """Draws of examples with these weights, `(n_examples,)`."""
        n = len(weights)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
        drawn = np.concatenate([np.ones((1, n)), counts]) * weights
        return cls(drawn / drawn.sum(axis=1, keepdims=True))

    def means(self, values: np.ndarray, seed: int) -> np.ndarray:
        """`(1 + n_resamples,)`: the mean over models and examples, of all and of each resample.

        Args:
            values: `(n_models, n_examples)`.
            seed: Seed by which models are drawn, where there are several.
        """
        of_models = self.weights @ values.T
        n_models = len(values)
        if n_models == 1:
            return np.asarray(of_models[:, 0])
        drawn = resamples(n_models, [SEED, seed], len(of_models))
        drawn[0] = np.arange(n_models)
        found: np.ndarray = np.take_along_axis(of_models, drawn, axis=1).mean(axis=1)
        return found


def interval(means: np.ndarray) -> tuple[float, float, float]:
    """The value, and the ends of its interval of 95 %, of `(1 + n_resamples,)` means or differences of means."""
    return float(means[0]), *ends_of(means[1:])


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """The ends of an interval of 95 %, of `(n_resamples,)` values; of none, NaN."""
    low, high = np.percentile(values, INTERVAL) if len(values) else (np.nan, np.nan)
    return float(low), float(high)
