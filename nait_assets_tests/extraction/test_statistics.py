"""Neuron statistics against numpy in float64."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics, by_layer, neuron_statistics
from nait_assets.tables import NEURON_STATISTICS

Block = tuple[int, np.ndarray, np.ndarray]


def blocks(layers: dict[int, np.ndarray], sizes: list[int]) -> Iterator[Block]:
    """The layers' samples in blocks of these sizes, layers in turn, as a scan of the table yields them."""
    assert all(sum(sizes) == len(matrix) for matrix in layers.values())
    start = 0
    for size in sizes:
        places = np.arange(start, start + size)
        for layer, matrix in layers.items():
            yield layer, places, matrix[places]
        start += size


@pytest.mark.parametrize("sizes", [[30], [1] * 30, [1, 28, 1], [7, 16, 7]], ids=str)
def test_statistics_equal_those_of_the_whole_matrix_however_it_is_split(sizes: list[int]) -> None:
    """The table is streamed in blocks whose borders nobody chooses; they must not show in the result."""
    random = np.random.default_rng(0)
    layers = {
        3: random.normal(2, 5, (30, 4)).astype(np.float32),
        0: random.exponential(1, (30, 4)).astype(np.float32),
    }
    frame = neuron_statistics(blocks(layers, sizes))
    assert frame["layer"].to_list() == [0, 3]
    assert frame["n_samples"].to_list() == [30, 30]
    for layer, statistics in by_layer(frame).items():
        exact = layers[layer].astype(np.float64)
        np.testing.assert_allclose(statistics.mean, exact.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(statistics.standard_deviation, exact.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("sizes", [[1000], [10] * 100], ids=["one block", "a hundred blocks"])
def test_a_tiny_variance_beside_a_large_mean_is_kept(sizes: list[int]) -> None:
    """Sums of squares, in float32 or merged carelessly, cancel: some neurons of real models sit far from 0."""
    matrix = np.random.default_rng(1).normal(1000, 0.01, (1000, 3)).astype(np.float32)
    statistics = by_layer(neuron_statistics(blocks({0: matrix}, sizes)))[0]
    np.testing.assert_allclose(statistics.standard_deviation, matrix.astype(np.float64).std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.mean, 1000, rtol=1e-5)


def test_statistics_are_a_table_of_one_row_per_layer() -> None:
    """What is written to the warehouse has the columns that the other rooms read."""
    frame = neuron_statistics([(0, np.arange(2), np.ones((2, 3), np.float32))])
    assert dict(frame.schema) == dict(pl.DataFrame(schema=NEURON_STATISTICS.columns).schema)


def test_a_neuron_that_never_varies_standardizes_to_zero_wherever_it_stands() -> None:
    """0.1 has no exact float: a rounded mean would turn a dead neuron into one of infinite z, or NaN."""
    matrix = np.full((70, 2), 0.1, np.float32)
    matrix[:, 1] = np.arange(70)
    statistics = by_layer(neuron_statistics(blocks({0: matrix}, [3, 60, 7])))[0]
    assert statistics.standard_deviation[0] == 0
    elsewhere = np.array([[0.1, 34.5], [900.0, 34.5]], np.float32)
    np.testing.assert_array_equal(statistics.standardize(elsewhere), np.zeros((2, 2)))


def test_a_neuron_whose_deviation_is_subnormal_standardizes_to_zero() -> None:
    """A gate that is always shut leaves numbers such as 1e-40, of which the reciprocal is infinite in float32."""
    statistics = NeuronStatistics(np.zeros(2, np.float32), np.array([1e-40, 1], np.float32))
    np.testing.assert_array_equal(statistics.standardize(np.array([[1e-40, 2], [0, 2]], np.float32)), [[0, 2], [0, 2]])


def test_the_pool_standardizes_to_mean_zero_and_deviation_one() -> None:
    """The meaning of `in standard deviations of the pool`, here for any leading shape."""
    matrix = np.random.default_rng(2).normal(-3, 7, (50, 4)).astype(np.float32)
    statistics = by_layer(neuron_statistics(blocks({0: matrix}, [20, 30])))[0]
    standardized = statistics.standardize(matrix)
    np.testing.assert_allclose(standardized.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standardized.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(statistics.standardize(matrix[0]), standardized[0])
