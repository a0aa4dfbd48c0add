"""NAIT, half-whitened: the cosine between a candidate and the capability among the pool's leading components.

Formula:
s(y) = a(y) . c / (|a(y)| |c|),  a(y) = S^-p V z(y)

z is an activation in standard deviations of the pool, as in `nait_standardized`; V has the pool's k leading principal
components as rows (`components`, 256), over all layers and neurons, and S their standard deviations; p = 1/2 (`power`).
c is the capability's centroid in the same coordinates, a(mean of its examples); the target `all` takes the mean of the
capabilities', each scaled to unit norm. With `similarity: dot` s(y) is a(y) . c, every capability's c of unit norm.

A few directions in which all of the pool varies, such as length and language, fill most of a cosine. Whitening (ZCA,
Bell and Sejnowski 1997), p = 1, gives every component the same say, also those that are noise; a linear discriminant
whose covariance is shrunk (Friedman 1989; Ledoit and Wolf 2004) gives the small ones less. p = 1/2 lies between.

Departures:
No paper gives this rule. A shrunk discriminant divides by a blend of S^2 and a constant, whose scale has to be chosen.

Limits:
The components are those of the pool: what few of its rows do is outside of them, and no score sees it. In a pool with
more rows than `reference`, they are the components of that many rows, chosen by hash. A row more in the pool changes
all scores a little.

Cost:
Two passes over the stored activations, the first to hold the reference; the components of its matrix of inner products
(seconds for 2,048 rows); n_candidates * k * neurons multiplications. Memory: the reference with all neurons, float32,
377 MB for 2,048 rows of SmolLM2-135M, k numbers for each neuron, and k for each candidate whose layers are being read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from nait_assets.extraction.projection import leading_components
from nait_assets.recipe import ACTIVATIONS, STATISTICS, ActivationOptions
from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs
from nait_assets.scoring.methods.nait_neighbours import LayerSums, reference_places, standardized_at
from nait_assets.scoring.ranking import largest
from nait_assets.scoring.stand_ins import CENTROIDS, EXAMPLES, by_centroid


class NaitWhitenedOptions(ActivationOptions):
    """Options of `nait_whitened`."""

    components: int = Field(256, ge=1, description="Leading principal components of the pool that are kept.")
    power: float = Field(
        0.5, ge=0, le=1, description="How far it is whitened: 0, not at all; 1, every component has the same say."
    )
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="cosine, or dot: the product, in which a candidate far from the pool's mean counts more."
    )
    reference: int = Field(
        2048, ge=2, description="Rows of the pool, chosen by hash, whose components are taken; memory grows with it."
    )


@dataclass(frozen=True)
class Whitening:
    """What turns standardised activations into coordinates.

    Attributes:
        components: By layer `(k, width)`, float32: orthonormal rows over all layers.
        scales: `(k,)`, float64: what each component's coordinate is multiplied with.
    """

    components: Mapping[int, np.ndarray]
    scales: np.ndarray

    def coordinates(self, standardized: Mapping[int, np.ndarray]) -> np.ndarray:
        """`(k,)` coordinates of a standardised vector, by layer `(width,)`."""
        return self.scales * sum(matrix @ standardized[layer] for layer, matrix in self.components.items())

    def weights(self, target: np.ndarray) -> dict[int, np.ndarray]:
        """By layer `(width,)`: what a neuron adds to the product with a target's `(k,)` coordinates, a deviation."""
        return {layer: (self.scales * target) @ matrix for layer, matrix in self.components.items()}


def fit(inputs: ScoringInputs) -> Whitening:
    """The whitening of the pool, from its reference rows."""
    options: NaitWhitenedOptions = inputs.options
    return whitening(*spread(inputs, options.components, options.reference), options)


def spread(inputs: ScoringInputs, n: int, reference: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """The pool's leading components and the deviations along them, from some of its rows.

    Args:
        inputs: Inputs of the method, whatever its options.
        n: How many components, at most.
        reference: How many rows, chosen by hash.

    Returns:
        By layer `(n_components, width)`, float32, and `(n_components,)` deviations from the pool's mean, float64.
    """
    places = reference_places(inputs.sample_ids, reference)
    rows = standardized_at(inputs.blocks, inputs.statistics, places, len(inputs.sample_ids))
    components = leading_components(rows, n)
    along = sum(rows[layer].astype(np.float64) @ matrix.T.astype(np.float64) for layer, matrix in components.items())
    return components, np.sqrt(np.mean(np.square(along), axis=0))  # about the pool's mean, which is 0


def whitening(components: Mapping[int, np.ndarray], deviations: np.ndarray, options: NaitWhitenedOptions) -> Whitening:
    """The whitening that the options ask for, by the first of as many components as they do, or more."""
    k = options.components
    return Whitening({layer: rows[:k] for layer, rows in components.items()}, deviations[:k] ** -options.power)


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` cosines in [-1, 1], or dot products."""
    whitening: Whitening = inputs.fitted
    targets = [_target(inputs, target) for target in inputs.targets]
    sums = LayerSums(len(inputs.sample_ids), len(inputs.statistics), len(whitening.scales))
    scores = np.zeros((len(inputs.sample_ids), len(targets)))
    for layer, places, activations in inputs.blocks:
        standardized = inputs.statistics[layer].standardize(activations)
        done, found = sums.add(places, standardized @ whitening.components[layer].T)
        coordinates = found * whitening.scales
        for index, target in enumerate(targets):  # one by one: a joint product's rounding depends on the others
            scores[places[done], index] = _similarities(coordinates, target, inputs.options)
    return scores


def _similarities(coordinates: np.ndarray, target: np.ndarray, options: NaitWhitenedOptions) -> np.ndarray:
    """`(n,)` similarities of `(n, k)` coordinates to a target's; 0 for a candidate equal to the pool's mean."""
    products = coordinates @ target
    if options.similarity == "dot":
        return np.asarray(products)
    norms = np.linalg.norm(coordinates, axis=1) * np.linalg.norm(target)
    return np.clip(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0), -1.0, 1.0)


def _target(inputs: ScoringInputs, target: str) -> np.ndarray:
    """`(k,)` coordinates of a target: the mean of its capabilities', each of unit norm."""
    frames, found = inputs.of_capabilities(CENTROIDS), []
    for name in inputs.targets[target]:
        vectors = (np.asarray(vector, dtype=np.float64) for vector in frames[name]["centroid"].to_list())
        of_layer = dict(zip(frames[name]["layer"].to_list(), vectors, strict=True))
        coordinates = inputs.fitted.coordinates(of_layer)
        found.append(coordinates / (np.linalg.norm(coordinates) or 1.0))
    return np.asarray(np.mean(found, axis=0))


def shares(inputs: ScoringInputs, sample_id: str, target: str) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """What each neuron adds to a candidate's score.

    Returns:
        Layers in order; `(n_layers, width)` standardised activations, weights, and shares, which add up to the score.
    """
    whitening: Whitening = inputs.fitted
    activations, coordinates = inputs.activations_of(sample_id), _target(inputs, target)
    layers = sorted(whitening.components)
    own = {layer: inputs.statistics[layer].standardize(activations[layer]).astype(np.float64) for layer in layers}
    norm = 1.0
    if inputs.options.similarity == "cosine":
        norm = float(np.linalg.norm(whitening.coordinates(own)) * np.linalg.norm(coordinates))
    weights = whitening.weights(coordinates)
    sample, weight = np.stack([own[layer] for layer in layers]), np.stack([weights[layer] for layer in layers])
    return layers, sample, weight, sample * weight / norm if norm else np.zeros_like(sample)


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The neurons that add most to the score: all steps but the norms are linear, so each has its share."""
    layers, sample, weights, found = shares(inputs, sample_id, target)
    reasons = [
        Reason(
            f"{layers[row]}:{neuron}",
            f"{sample[row, neuron]:+.2f} sd here, weight {weights[row, neuron]:+.5f}, share {found[row, neuron]:+.5f}",
        )
        for row, neuron in largest(found, n)
    ]
    return Explanation("neurons that add most to its score (layer:neuron, against the pool)", reasons)


METHOD = Method(
    name="nait_whitened",
    description="Cosine between a candidate and the capability among the pool's leading principal components, whose "
    "spread is half evened out.",
    reads=(ACTIVATIONS, STATISTICS, CENTROIDS),
    reads_if_there=(EXAMPLES,),
    stand_ins=by_centroid(),
    score=score,
    options=NaitWhitenedOptions,
    by_target=True,
    fit=fit,
    explain=explain,
)
