"""Mean and standard deviation of every neuron over a corpus: what an activation is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.tables import STATISTICS


@dataclass(frozen=True)
class NeuronStatistics:
    """Statistics of one layer's neurons over a corpus.

    Attributes:
        mean: `(width,)`, float32, in units of activation.
        standard_deviation: `(width,)`, float32, of the population; 0 for a neuron that never varies.
    """

    mean: np.ndarray
    standard_deviation: np.ndarray

    @property
    def inverse_deviation(self) -> np.ndarray:
        """`(width,)` one over the standard deviation; 0 for neurons that never vary."""
        spread = self.standard_deviation
        varies = spread >= np.finfo(np.float32).tiny  # one over a subnormal number is infinite
        return np.divide(1, spread, out=np.zeros_like(spread), where=varies)

    def standardize(self, activations: np.ndarray) -> np.ndarray:
        """`(..., width)` activations in standard deviations from the mean; 0 for neurons that never vary."""
        return (activations - self.mean) * self.inverse_deviation


def neuron_statistics(scan: Iterable[tuple[int, np.ndarray, np.ndarray]]) -> pl.DataFrame:
    """Statistics per layer and neuron, in one pass and bounded memory.

    Blocks are merged by the update of Chan, Golub and LeVeque (1979) in float64: a sum of squares in float32 loses a
    small variance beside a large mean.

    Args:
        scan: Layer, indices of samples, and their activations `(n, width)`.

    Returns:
        One row per layer, columns of `tables.STATISTICS`.
    """
    moments: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}
    for layer, _, block in scan:
        values = block.astype(np.float64)
        n_block, mean_block = len(values), values.mean(axis=0)
        squares_block = ((values - mean_block) ** 2).sum(axis=0)
        n_seen, mean, squares = moments.get(layer, (0, np.zeros_like(mean_block), np.zeros_like(mean_block)))
        n_total, delta = n_seen + n_block, mean_block - mean
        moments[layer] = (
            n_total,
            mean + delta * n_block / n_total,
            squares + squares_block + delta**2 * n_seen * n_block / n_total,
        )
    rows = [
        {
            "layer": layer,
            "mean": mean.astype(np.float32),
            "standard_deviation": np.sqrt(squares / n_samples).astype(np.float32),
            "n_samples": n_samples,
        }
        for layer, (n_samples, mean, squares) in sorted(moments.items())
    ]
    return pl.DataFrame(rows, schema=STATISTICS)


def of_projection(frame: pl.DataFrame) -> pl.DataFrame:
    """Statistics of a projection's dimensions: their means, and no scale of their own.

    A dimension is a sum of neurons that are in standard deviations already; to scale it again would bend the angles
    that the projection keeps.
    """
    ones = pl.Series([[1.0] * len(mean) for mean in frame["mean"].to_list()], dtype=STATISTICS["standard_deviation"])
    return frame.with_columns(standard_deviation=ones)


def by_layer(frame: pl.DataFrame) -> dict[int, NeuronStatistics]:
    """Rows of statistics by layer."""
    return {
        row["layer"]: NeuronStatistics(
            np.asarray(row["mean"], np.float32), np.asarray(row["standard_deviation"], np.float32)
        )
        for row in frame.iter_rows(named=True)
    }
