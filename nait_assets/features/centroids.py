"""The standardised centroid of a capability: how much more active each neuron is on its examples than on the pool."""

import numpy as np

from nait_assets.extraction.statistics import NeuronStatistics


def standardized_centroid(mean_activation: np.ndarray, statistics: NeuronStatistics) -> np.ndarray:
    """`(width,)` mean activation of the in-domain examples in standard deviations of the pool, float32.

    Standardising is linear, so the centroid of standardised examples is their standardised mean: a capability's mean
    activation, kept in its feature file, serves with the statistics of any pool.

    Args:
        mean_activation: Mean over the in-domain examples, `(width,)`.
        statistics: Statistics of the same layer over the pool.
    """
    return statistics.standardize(np.asarray(mean_activation, dtype=np.float64)).astype(np.float32)
