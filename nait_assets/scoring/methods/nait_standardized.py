"""NAIT, standardised: the cosine between a candidate and the capability, in standard deviations of the pool.

Formula:
s(y) = z(y) . c / (|z(y)| |c|)

z(y) is the candidate's activation and c the capability's mean activation, over all layers and neurons, each less the
pool's mean and over the pool's standard deviation of that neuron. Standardising gives every neuron an equal say and
removes what all examples share; the cosine removes length. The target `all` takes the mean of the capabilities'
centroids, each scaled to unit norm. With `similarity: dot` s(y) is z(y) . c, with every capability's c of unit norm: a
candidate that is far from the pool's mean counts more, whether near the capability or far from it.

Departures:
From `nait`: no direction of change, but the mean itself, standardised. No paper gives this rule.

Limits:
One vector stands for a capability: the centroid of one of many kinds (27 tasks of BBH) is close to none of them, for
which there is `nait_neighbours`.

Cost:
As `nait`: one forward pass over the pool, shared by every method that reads activations; then one product per layer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import ACTIVATIONS, STATISTICS, ActivationOptions
from nait_assets.scoring.linear import LinearScore
from nait_assets.scoring.method import Block, Explanation, Method, Parts, ScoringInputs
from nait_assets.scoring.near import nearest_by_activations
from nait_assets.scoring.ranking import stacked
from nait_assets.scoring.stand_ins import CENTROIDS, EXAMPLES, by_centroid

STANDARDIZED = "cosine of activations in standard deviations of the pool"
"""What the nearness of examples is, of methods that compare so."""


class NaitStandardizedOptions(ActivationOptions):
    """Options of `nait_standardized`."""

    similarity: Literal["cosine", "dot"] = Field(
        "cosine",
        exclude_if=lambda similarity: similarity == "cosine",  # what was scored before there was a choice stays
        description="cosine, or dot: the product, in which a candidate far from the pool's mean counts more.",
    )


def cosines(
    blocks: Iterable[Block],
    statistics: Mapping[int, NeuronStatistics],
    centroids: Mapping[int, np.ndarray],
    n_samples: int,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> np.ndarray:
    """`(n_samples, n_targets)` cosines over all layers and neurons, float64; 0 for a candidate equal to the mean.

    Args:
        blocks: The pool's activations.
        statistics: By layer.
        centroids: By layer, `(n_targets, width)`, in standard deviations.
        n_samples: Number of samples of the pool.
        similarity: `dot` for the products alone.
    """
    (n_targets,) = {len(matrix) for matrix in centroids.values()}
    vectors = {layer: matrix.astype(np.float32) for layer, matrix in centroids.items()}
    products, squares = np.zeros((n_samples, n_targets)), np.zeros(n_samples)
    for layer, indices, activations in blocks:
        standardized = statistics[layer].standardize(activations)
        for target in range(n_targets):  # one by one: in a joint product a target's rounding depends on the others
            products[indices, target] += standardized @ vectors[layer][target]
        squares[indices] += np.einsum("ij,ij->i", standardized, standardized)
    if similarity == "dot":
        return products
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
    """`(n_candidates, n_targets)` cosines in [-1, 1], or dot products."""
    centroids = stacked([_centroids(inputs, names) for names in inputs.targets.values()])
    similarity = _similarity(inputs)
    return cosines(inputs.blocks, inputs.statistics, centroids, len(inputs.sample_ids), similarity)


def _similarity(inputs: ScoringInputs) -> Literal["cosine", "dot"]:
    options: NaitStandardizedOptions = inputs.options or NaitStandardizedOptions()
    return options.similarity


def contributions(
    activations: Mapping[int, np.ndarray],
    statistics: Mapping[int, NeuronStatistics],
    centroids: Mapping[int, np.ndarray],
    similarity: Literal["cosine", "dot"] = "cosine",
) -> LinearScore:
    """What every neuron adds to a sample's score.

    Args:
        activations: The sample's, by layer, `(width,)`.
        statistics: The pool's, by layer.
        centroids: The target's, by layer, `(width,)`.
        similarity: Similarity of the score.
    """
    found = LinearScore.of(_standardized(activations, statistics), centroids)
    norm = 1.0 if similarity == "dot" else float(np.linalg.norm(found.values) * np.linalg.norm(found.weights))
    return replace(found, norm=norm)


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The score by layer and, for `all`, by capability; the neurons that add most; the nearest examples."""
    activations, statistics = inputs.activations_of(sample_id), inputs.statistics
    found = contributions(activations, statistics, _centroids(inputs, inputs.targets[target]), _similarity(inputs))
    parts = found.parts
    if len(inputs.targets[target]) > 1:
        parts.append(Parts("capability", _of_capabilities(inputs, target, found)))
    centroids = inputs.once(("mean", target), lambda: _in_deviations(inputs, target))

    def said(layer: int, neuron: int, value: float, _weight: float) -> str:
        return f"{value:+.2f} sd here, {centroids[layer][neuron]:+.2f} sd on average in the examples"

    return Explanation(
        "neurons that weigh most in its score's direction (layer:neuron, against the pool)",
        found.strongest(n, said),
        parts,
        spread=found.spread,
        **nearest_by_activations(
            inputs, sample_id, target, n, lambda rows: side_by_side(rows, statistics), STANDARDIZED
        ),
    )


def _in_deviations(inputs: ScoringInputs, target: str) -> dict[int, np.ndarray]:
    """By layer `(width,)`: the examples' mean activation in standard deviations of the pool, each capability alike."""
    frames = [inputs.of_capabilities(CENTROIDS)[name] for name in inputs.targets[target]]
    by_layer = [dict(frame.select("layer", "centroid").iter_rows()) for frame in frames]
    return {layer: np.mean([centroid[layer] for centroid in by_layer], axis=0) for layer in by_layer[0]}


def side_by_side(rows: Mapping[int, np.ndarray], statistics: Mapping[int, NeuronStatistics]) -> np.ndarray:
    """`(n, n_layers * width)` standardised activations of all layers, of rows by layer `(n, width)`."""
    standardized = _standardized(rows, statistics)
    return np.concatenate([standardized[layer] for layer in sorted(standardized)], axis=1)


def _standardized(rows: Mapping[int, np.ndarray], statistics: Mapping[int, NeuronStatistics]) -> dict[int, np.ndarray]:
    return {layer: neurons.standardize(rows[layer]) for layer, neurons in statistics.items()}


def _of_capabilities(inputs: ScoringInputs, target: str, found: LinearScore) -> dict[str, float]:
    """What each capability's centroid adds to the score for a target that combines several."""
    shares = {}
    for name in inputs.targets[target]:
        own = _centroids(inputs, [name])
        weights = np.stack([own[layer] for layer in found.layers]) / len(inputs.targets[target])
        shares[name] = float(replace(found, weights=weights).shares.sum())
    return shares


def _centroids(inputs: ScoringInputs, names: Sequence[str]) -> dict[int, np.ndarray]:
    """`combined_centroids` of some capabilities."""
    frames = inputs.of_capabilities(CENTROIDS)
    return inputs.once(("centroids", *names), lambda: combined_centroids({name: frames[name] for name in names}))


METHOD = Method(
    name="nait_standardized",
    description="The recommended rule: cosine between a candidate and the capability, both standardised neuron by "
    "neuron against the pool.",
    reads=(ACTIVATIONS, STATISTICS, CENTROIDS),
    reads_if_there=(EXAMPLES,),
    stand_ins=by_centroid(),
    score=score,
    options=NaitStandardizedOptions,
    by_target=True,
    recommended=True,
    explain=explain,
)
