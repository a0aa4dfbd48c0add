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
all scores a little. Of a pool of not many more rows than `components` the components fit its rows: these are less alike
along them than new rows would be, and so is what chance reaches; the more so the larger `power` is.

Cost:
Two passes over the stored activations, the first to hold the reference; the components of its matrix of inner products
(seconds for 2,048 rows); n_candidates * k * neurons multiplications. Memory: the reference with all neurons, float32,
377 MB for 2,048 rows of SmolLM2-135M, k numbers for each neuron, and k for each candidate whose layers are being read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from nait_assets.extraction.projection import leading_components
from nait_assets.recipe import ACTIVATIONS, STATISTICS, ActivationOptions
from nait_assets.scoring.linear import LinearScore, by_number, in_deviations
from nait_assets.scoring.method import Explanation, Face, Method, Parts, ScoringInputs
from nait_assets.scoring.methods.nait_neighbours import LayerSums, reference_places, standardized_at
from nait_assets.scoring.near import nearest_by_activations
from nait_assets.scoring.stand_ins import CENTROIDS, EXAMPLES, by_centroid

N_FACES = 3
"""Components that are given faces, and faces of each."""


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
class Along:
    """Where rows of the pool lie along its components.

    Attributes:
        sample_ids: The rows.
        deviations: `(n_rows, k)` in standard deviations of each component.
    """

    sample_ids: Sequence[str]
    deviations: np.ndarray


@dataclass(frozen=True)
class Whitening:
    """What turns standardised activations into coordinates.

    Attributes:
        components: By layer `(k, width)`, float32: orthonormal rows over all layers.
        scales: `(k,)`, float64: what each component's coordinate is multiplied with.
        along: Where the rows lie whose components these are.
    """

    components: Mapping[int, np.ndarray]
    scales: np.ndarray
    along: Along

    def coordinates(self, standardized: Mapping[int, np.ndarray]) -> np.ndarray:
        """`(k,)` coordinates of a standardised vector, by layer `(width,)`."""
        return self.scales * sum(matrix @ standardized[layer] for layer, matrix in self.components.items())

    def weights(self, target: np.ndarray) -> dict[int, np.ndarray]:
        """By layer `(width,)`: what a neuron adds to the product with a target's `(k,)` coordinates, a deviation."""
        return {layer: (self.scales * target) @ matrix for layer, matrix in self.components.items()}

    def faces(self, shares: np.ndarray, own: np.ndarray) -> dict[str, list[Face]]:
        """Of the components of the largest shares, `(k,)`, the reference rows that lie farthest on a candidate's side.

        Args:
            shares: `(k,)` what each component adds to the candidate's score.
            own: `(k,)` the candidate's coordinates.
        """
        faces = {}
        for component in np.argsort(-np.abs(shares), kind="stable")[:N_FACES]:
            along = self.along.deviations[:, component]
            order = np.argsort(-along * np.sign(own[component]), kind="stable")[:N_FACES]
            rows = [Face(self.along.sample_ids[place], float(along[place])) for place in order]
            faces[f"component {component + 1}"] = rows
        return faces


def fit(inputs: ScoringInputs) -> Whitening:
    """The whitening of the pool, from its reference rows."""
    options: NaitWhitenedOptions = inputs.options
    return whitening(*spread(inputs, options.components, options.reference), options)


def spread(inputs: ScoringInputs, n: int, reference: int) -> tuple[dict[int, np.ndarray], np.ndarray, Along]:
    """The pool's leading components and the deviations along them, from some of its rows.

    Args:
        inputs: Inputs of the method, whatever its options.
        n: How many components, at most.
        reference: How many rows, chosen by hash.

    Returns:
        By layer `(n_components, width)`, float32; `(n_components,)` deviations from the pool's mean, float64; where
        the rows lie.
    """
    places = reference_places(inputs.sample_ids, reference)
    rows = standardized_at(inputs.blocks, inputs.statistics, places, len(inputs.sample_ids))
    components = leading_components(rows, n)
    along = sum(rows[layer].astype(np.float64) @ matrix.T.astype(np.float64) for layer, matrix in components.items())
    deviations = np.sqrt(np.mean(np.square(along), axis=0))  # about the pool's mean, which is 0
    return components, deviations, Along([inputs.sample_ids[place] for place in places], along / deviations)


def whitening(
    components: Mapping[int, np.ndarray], deviations: np.ndarray, along: Along, options: NaitWhitenedOptions
) -> Whitening:
    """The whitening that the options ask for, by the first of as many components as they do, or more."""
    k = options.components
    first = Along(along.sample_ids, along.deviations[:, :k])
    return Whitening({layer: rows[:k] for layer, rows in components.items()}, deviations[:k] ** -options.power, first)


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
    """`(k,)` coordinates of a target: the mean of its capabilities'."""
    return np.asarray(np.mean(list(_of_each(inputs, target).values()), axis=0))


def _of_each(inputs: ScoringInputs, target: str) -> dict[str, np.ndarray]:
    """By capability of a target, its `(k,)` coordinates, of unit norm."""
    frames, found = inputs.of_capabilities(CENTROIDS), dict[str, np.ndarray]()
    for name in inputs.targets[target]:
        vectors = (np.asarray(vector, dtype=np.float64) for vector in frames[name]["centroid"].to_list())
        of_layer = dict(zip(frames[name]["layer"].to_list(), vectors, strict=True))
        coordinates = inputs.fitted.coordinates(of_layer)
        found[name] = coordinates / (np.linalg.norm(coordinates) or 1.0)
    return found


def contributions(inputs: ScoringInputs, sample_id: str, target: str) -> tuple[LinearScore, np.ndarray, np.ndarray]:
    """What every neuron, and every component, adds to a candidate's score.

    Returns:
        The score as a sum over neurons; `(k,)` what each component adds, which adds up to the score too; `(k,)` the
        candidate's coordinates.
    """
    whitening: Whitening = inputs.fitted
    activations = inputs.activations_of(sample_id)
    coordinates = inputs.once(("coordinates", target), lambda: _target(inputs, target))
    weights = inputs.once(("weights", target), lambda: whitening.weights(coordinates))
    standardized = {layer: inputs.statistics[layer].standardize(activations[layer]) for layer in whitening.components}
    own = whitening.coordinates({layer: row.astype(np.float64) for layer, row in standardized.items()})
    cosine = inputs.options.similarity == "cosine"
    norm = float(np.linalg.norm(own) * np.linalg.norm(coordinates)) if cosine else 1.0
    of_components = own * coordinates / norm if norm else np.zeros_like(own)
    return LinearScore.of(standardized, weights, norm), of_components, own


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The score by layer, by component and, for `all`, by capability; the neurons that add most; the nearest examples.

    All steps but the norms are linear, so that each neuron has its share.
    """
    whitening: Whitening = inputs.fitted
    found, of_components, own = contributions(inputs, sample_id, target)
    parts = [*found.parts, by_number("component", of_components)]
    of_each = inputs.once(("of each", target), lambda: _of_each(inputs, target))
    if len(of_each) > 1:
        scale = len(of_each) * (found.norm or np.inf)
        parts.append(Parts("capability", {name: float(own @ one) / scale for name, one in of_each.items()}))

    def coordinates(rows: Mapping[int, np.ndarray]) -> np.ndarray:
        standardized = {layer: inputs.statistics[layer].standardize(rows[layer]) for layer in whitening.components}
        along = sum(standardized[layer] @ matrix.T for layer, matrix in whitening.components.items())
        return np.asarray(along * whitening.scales)

    return Explanation(
        "neurons that weigh most in its score's direction (layer:neuron, against the pool)",
        found.strongest(n, in_deviations),
        parts,
        whitening.faces(of_components, own),
        found.spread,
        **nearest_by_activations(inputs, sample_id, target, n, coordinates, "cosine among the whitened components"),
    )


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
