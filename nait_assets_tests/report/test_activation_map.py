"""The map: the same points each time, and what is alike beside each other."""

import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA

from nait_assets.report import activation_map
from nait_assets.report.activation_map import coordinates, plane, principal_components, sampled, similarities


def clouds() -> tuple[list[np.ndarray], np.ndarray]:
    """Two layers of 90 points in three clouds, and the cloud of each point."""
    random = np.random.default_rng(0)
    cloud = np.repeat([0, 1, 2], 30)
    return [random.normal(size=(3, 20))[cloud] * 3 + random.normal(size=(90, 20)) for _ in range(2)], cloud


def test_similarities_are_cosines_of_all_standardised_neurons() -> None:
    """Adding up products layer by layer saves memory and changes nothing; examples do not shift the candidates."""
    layers, _ = clouds()
    whole = np.concatenate(layers, axis=1)
    standardised = (whole - whole[:60].mean(axis=0)) / whole[:60].std(axis=0)
    unit = standardised / np.linalg.norm(standardised, axis=1, keepdims=True)
    np.testing.assert_allclose(similarities(layers, n_candidates=60), unit @ unit.T, atol=1e-5)


def test_a_neuron_that_never_varies_says_nothing() -> None:
    """Its standard deviation is zero, and one over it would fill the map with NaN."""
    layers, _ = clouds()
    layers[0][:, 3] = 7.0
    assert np.isfinite(similarities(layers, n_candidates=90)).all()


def test_components_are_those_of_a_pca_of_the_points() -> None:
    """Of a thousand points and a hundred thousand neurons, the products of points are the smaller matrix."""
    points = np.random.default_rng(1).normal(size=(12, 40))
    mine = principal_components(points @ points.T, 5)
    theirs = PCA(n_components=5).fit_transform(points)
    np.testing.assert_allclose(np.abs(mine), np.abs(theirs), atol=1e-8)
    assert (mine[np.abs(mine).argmax(axis=0), range(5)] > 0).all()


def test_what_is_alike_lies_together_and_the_map_is_the_same_each_time() -> None:
    """A map that turns over at every run cannot be compared with yesterday's, and would be a new version each time."""
    layers, cloud = clouds()
    points = coordinates(layers, n_candidates=90)
    assert np.array_equal(points, coordinates(layers, n_candidates=90))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * 90)
    assert (cloud[distances.argmin(axis=1)] == cloud).mean() > 0.95


@pytest.mark.parametrize("n_points", [1, 2, 3, 7, 8, 12])
def test_a_few_points_have_a_map_too(n_points: int) -> None:
    """t-SNE refuses a perplexity above the number of points, and a beginner starts with a pool of ten."""
    points = np.random.default_rng(2).normal(size=(n_points, 6))
    found = plane(principal_components(points @ points.T, activation_map.N_COMPONENTS))
    assert found.shape == (n_points, 2)
    assert np.isfinite(found).all()


def test_a_sample_does_not_depend_on_the_order_of_the_pool() -> None:
    """Row order is no content: the same pool in another order is the same map."""
    names = pl.Series([f"s{number:03}" for number in range(100)])
    assert sampled(names, 10) == sampled(names[::-1], 10)
    assert len(set(sampled(names, 10))) == 10
    assert sampled(names[::-1], 100) == names.to_list()
