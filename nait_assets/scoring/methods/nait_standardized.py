"""NAIT, standardised: the cosine between a candidate and the capability, in standard deviations of the pool.

s(y) = z(y) . c / (|z(y)| |c|), where z(y) is the candidate's activation, and c the capability's mean activation, over
all layers and neurons, each less the pool's mean and over the pool's standard deviation of that neuron.

Standardising gives every neuron an equal say and removes what all examples share; the cosine removes length.
Cost: as `nait`.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.scoring.method import Block, Method, ScoringInputs, stacked


def cosines(
    blocks: Iterable[Block],
    statistics: Mapping[int, NeuronStatistics],
    centroids: Mapping[int, np.ndarray],
    n_samples: int,
) -> np.ndarray:
    """`(n_samples, n_targets)` cosines over all layers and neurons, float64; 0 for a candidate equal to the mean.

    Args:
        blocks: The pool's activations.
        statistics: By layer.
        centroids: By layer, `(n_targets, width)`, in standard deviations.
        n_samples: Of the pool.
    """
    (n_targets,) = {len(matrix) for matrix in centroids.values()}
    vectors = {layer: matrix.astype(np.float32) for layer, matrix in centroids.items()}
    products, squares = np.zeros((n_samples, n_targets)), np.zeros(n_samples)
    for layer, places, activations in blocks:
        standardized = statistics[layer].standardize(activations)
        for target in range(n_targets):  # one by one: in a joint product a target's rounding depends on the others
            products[places, target] += standardized @ vectors[layer][target]
        squares[places] += np.einsum("ij,ij->i", standardized, standardized)
    norms = np.sqrt(squares)[:, None] * np.sqrt(
        sum((matrix.astype(np.float64) ** 2).sum(axis=1) for matrix in centroids.values())
    )
    quotients = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return np.clip(quotients, -1.0, 1.0)  # rounding in float32 steps over 1 by about 1e-7


def combined_centroids(features: Mapping[str, pl.DataFrame]) -> dict[int, np.ndarray]:
    """The mean of several capabilities' centroids, each first scaled to unit norm over all layers, by layer.

    Unit norm gives every capability the same say in the comprehensive target, whatever its distance from the pool.
    """
    combined: dict[int, np.ndarray] = {}
    for frame in features.values():
        vectors = [np.asarray(vector, dtype=np.float64) for vector in frame["centroid"].to_list()]
        norm = np.sqrt(sum((vector**2).sum() for vector in vectors))
        for layer, vector in zip(frame["layer"].to_list(), vectors, strict=True):
            combined[layer] = combined.get(layer, 0) + vector / (norm or 1.0) / len(features)
    return combined


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` cosines in [-1, 1]."""
    centroids = stacked([combined_centroids(features) for features in inputs.features.values()])
    return cosines(inputs.blocks, inputs.statistics, centroids, len(inputs.sample_ids))


METHOD = Method(
    "nait_standardized",
    "The recommended rule: cosine between a candidate and the capability, both standardised neuron by neuron "
    "against the pool.",
    score,
)
