"""The standardised centroid against the mean of standardised examples."""

import numpy as np

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.features.centroids import standardized_centroid


def test_centroid_is_the_mean_of_the_standardized_examples() -> None:
    """Why a feature file may keep the mean activation alone, and still serve another pool."""
    random = np.random.default_rng(0)
    pool, examples = random.normal(3, 2, (40, 4)), random.normal(4, 1, (6, 4)).astype(np.float32)
    deviation = pool.std(axis=0)
    statistics = NeuronStatistics(pool.mean(axis=0).astype(np.float32), deviation.astype(np.float32))
    expected = np.zeros(4)
    for example in examples:
        expected += (example.astype(np.float64) - pool.mean(axis=0)) / deviation / len(examples)
    centroid = standardized_centroid(examples.mean(axis=0), statistics)
    np.testing.assert_allclose(centroid, expected, rtol=1e-5, atol=1e-6)
    assert centroid.dtype == np.float32


def test_a_neuron_silent_over_the_pool_is_silent_in_the_centroid() -> None:
    """Its distance in standard deviations is undefined; infinity would decide every score."""
    statistics = NeuronStatistics(np.zeros(2, np.float32), np.array([0, 2], np.float32))
    np.testing.assert_array_equal(standardized_centroid(np.array([5.0, 3.0]), statistics), [0, 1.5])
