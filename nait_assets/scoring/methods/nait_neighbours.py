"""NAIT by neighbours: how close a candidate is to the nearest examples, less how close it is to anything.

Formula:
s(y) = mean of the k largest cos(z(y), z(e)) over the capability's examples e
     - h * mean of the m largest cos(z(y), z(p)) over the pool's other rows p

z is an activation in standard deviations of the pool, as in `nait_standardized`; k = 2 (`best`), h = 1/2 (`hubness`),
m = 50 (`neighbours`). The target `all` takes the largest of the capabilities' scores.

The centroid of a capability of many kinds (27 tasks of BBH) is close to none of them; nearest examples are. Nearest
neighbours in many dimensions have hubs, rows close to everything (Radovanovic et al., JMLR 2010). The second term takes
them back, as CSLS does (Conneau et al., arXiv 1710.04087, eq. 2), with half its weight and on the candidate's side
alone: the example's side would be the same for all candidates. With m = 10 it finds less where what is sought is of
other kinds than the examples: there the nearest rows may all be of the row's own kind, and take it back
(`benchmarks/choice.py`).

Departures:
No paper gives the rule whole. The mean of the capabilities' scores would choose, for `all`, rows that are half close to
each: of 200 rows planted for five capabilities 100 were among its best 200, and 174 by the largest.

Limits:
One odd example finds its own odd neighbours. In a pool with more rows than `reference`, neighbours are sought among
that many of them, chosen by hash, so that m of them stand for more: the mean area under the ROC curve of finding
planted rows among 2,200, with m = 10, fell from 0.9989 to 0.9985 with 1,024, and to 0.9965 with 128.

Cost:
Two passes over the stored activations, the first to hold the reference, and n_candidates * n_reference products of
vectors of all neurons. Memory: the reference and the examples with all neurons, float32; a candidate's products with
them are dropped once its last layer has been read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import ACTIVATIONS, STATISTICS, ActivationOptions, seeded_order
from nait_assets.scoring.by_example import ExampleScores
from nait_assets.scoring.linear import LinearScore, in_deviations
from nait_assets.scoring.method import Block, Explanation, Method, Parts, Scores, ScoringInputs, blocks_at
from nait_assets.scoring.methods.nait_standardized import STANDARDIZED, side_by_side
from nait_assets.scoring.near import nearest_by_activations
from nait_assets.scoring.stand_ins import EXAMPLES, by_activations


class NaitNeighboursOptions(ActivationOptions):
    """Options of `nait_neighbours`."""

    best: int = Field(2, ge=1, description="Nearest in-domain examples whose mean cosine counts.")
    hubness: float = Field(0.5, ge=0, le=1, description="Weight of the mean cosine to the nearest rows of the pool.")
    neighbours: int = Field(50, ge=1, description="How many nearest rows of the pool.")
    reference: int = Field(
        2048,
        ge=2,
        description="Rows of the pool, chosen by hash, among which neighbours are searched; memory grows with it.",
    )

    @model_validator(mode="after")
    def _neighbours_are_in_the_reference(self) -> "NaitNeighboursOptions":
        if self.neighbours >= self.reference:
            raise ValueError(
                f"neighbours {self.neighbours} must be fewer than the {self.reference} rows of `reference` "
                "that they are sought among"
            )
        return self


def reference_places(sample_ids: Sequence[str], size: int) -> np.ndarray:
    """`(min(size, n_candidates),)` places of the candidates with the smallest hashes, in ascending order.

    By hash, so that a row more in the pool replaces one of them at most.
    """
    return np.sort(np.asarray(seeded_order(sample_ids, "reference")[:size], dtype=np.int64))


def standardized_at(
    blocks: Iterable[Block], statistics: Mapping[int, NeuronStatistics], places: np.ndarray, n_samples: int
) -> dict[int, np.ndarray]:
    """By layer `(n_places, width)`: standardised activations of the candidates at some places, float32.

    Args:
        blocks: The pool's activations.
        statistics: By layer.
        places: Indices of the candidates wanted.
        n_samples: Number of samples of the pool.
    """
    rows = {
        layer: np.zeros((len(places), len(neurons.mean)), dtype=np.float32) for layer, neurons in statistics.items()
    }
    for layer, indices, activations in blocks_at(blocks, places, n_samples):
        rows[layer][indices] = statistics[layer].standardize(activations)
    return rows


def unit_rows(rows: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Rows by layer, `(n, width)` each, over their norm over all layers; a row of zeros stays one."""
    norms = np.sqrt(sum(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64) for matrix in rows.values()))
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, None].astype(np.float32)
    return {layer: matrix * scale for layer, matrix in rows.items()}


def example_rows(frame: pl.DataFrame, statistics: Mapping[int, NeuronStatistics]) -> dict[int, np.ndarray]:
    """By layer `(n_examples, width)`: a capability's examples, standardised, of unit norm, in order of `sample_id`.

    Args:
        frame: One row a sample and layer: `sample_id`, `layer`, `activation`.
        statistics: By layer.
    """
    layers = {}
    for layer, neurons in statistics.items():
        vectors = frame.filter(pl.col("layer") == layer).sort("sample_id")["activation"]
        flat = vectors.explode().to_numpy().astype(np.float32, copy=False)
        layers[layer] = neurons.standardize(flat.reshape(len(vectors), -1))
    return unit_rows(layers)


class LayerSums:
    """Sums over the layers of vectors that come layer by layer: a candidate's is held from its first to its last.

    Args:
        n_samples: Number of candidates.
        n_layers: Number of layers.
        width: Length of a vector.
        dtype: Dtype of the sums.
    """

    def __init__(self, n_samples: int, n_layers: int, width: int, dtype: Any = np.float32):
        self._n_layers = n_layers
        self._sums = np.zeros((0, width), dtype=dtype)
        self._slot_of, self._n_seen = np.full(n_samples, -1), np.zeros(n_samples, dtype=np.int64)
        self._free: list[int] = []

    def add(self, places: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add a layer's vectors, `(n, width)`, of distinct candidates.

        Returns:
            `(n,)` bool, candidates of which this was the last layer, and their sums `(n_done, width)`.
        """
        self._hold(places[self._slot_of[places] < 0])
        self._sums[self._slot_of[places]] += vectors
        self._n_seen[places] += 1
        done = self._n_seen[places] == self._n_layers
        slots = self._slot_of[places[done]]
        found = self._sums[slots]
        self._sums[slots] = 0
        self._free += slots.tolist()
        return done, found

    def _hold(self, places: np.ndarray) -> None:
        lacking, held = len(places) - len(self._free), len(self._sums)
        if lacking > 0:
            self._sums = np.concatenate([self._sums, np.zeros((lacking, self._sums.shape[1]), self._sums.dtype)])
            self._free += range(held, held + lacking)
        self._slot_of[places] = [self._free.pop() for _ in places]


class NearestMean:
    """The mean cosine of each candidate to its nearest reference rows, from products that come layer by layer."""

    def __init__(self, sample_ids: Sequence[str], reference_ids: Sequence[str], n_layers: int, neighbours: int):
        self.means = np.full(len(sample_ids), np.nan)
        self._neighbours, self._products = neighbours, LayerSums(len(sample_ids), n_layers, len(reference_ids))
        place_of = {name: place for place, name in enumerate(reference_ids)}
        self._reference_of = np.asarray([place_of.get(name, -1) for name in sample_ids])

    def add(self, places: np.ndarray, products: np.ndarray, squares: np.ndarray) -> None:
        """Add a layer's products of distinct candidates with the reference.

        Args:
            places: `(n,)` of the candidates.
            products: `(n, n_reference)` with the reference's rows of unit norm.
            squares: `(n,)` sums of squares of the candidates over all layers that were read so far.
        """
        done, found = self._products.add(places, products)
        if done.any():
            self._finish(places[done], found, squares[done])

    def _finish(self, places: np.ndarray, products: np.ndarray, squares: np.ndarray) -> None:
        cosines = over_norms(products, squares)
        own = self._reference_of[places]
        cosines[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf  # every row is its own nearest
        n_others = cosines.shape[1] - (own >= 0)
        nearest = -np.sort(-cosines, axis=1)[:, : self._neighbours]
        found = np.minimum(self._neighbours, n_others)
        sums = np.where(np.isfinite(nearest), nearest, 0).sum(axis=1)
        self.means[places] = np.divide(sums, found, out=np.zeros(len(places)), where=found > 0)


def over_norms(products: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """`(n, m)` cosines from products with unit vectors, float64; 0 for a candidate equal to the pool's mean."""
    norms = np.sqrt(squares)[:, None]
    return np.divide(products, norms, out=np.zeros(products.shape), where=norms > 0)


@dataclass(frozen=True)
class Reference:
    """Rows of the pool among which neighbours are sought.

    Attributes:
        sample_ids: Their ids; none where the options do not weigh them.
        rows: By layer `(n_reference, width)`, standardised, of unit norm over all layers.
    """

    sample_ids: Sequence[str]
    rows: Mapping[int, np.ndarray]


def fit(inputs: ScoringInputs) -> Reference:
    """The reference rows of the pool."""
    options: NaitNeighboursOptions = inputs.options
    places = reference_places(inputs.sample_ids, options.reference if options.hubness else 0)
    if not len(places):
        return Reference([], {})
    rows = unit_rows(standardized_at(inputs.blocks, inputs.statistics, places, len(inputs.sample_ids)))
    return Reference([inputs.sample_ids[place] for place in places], rows)


def corrected_cosines(
    inputs: ScoringInputs, examples: Mapping[str, Mapping[int, np.ndarray]], options: NaitNeighboursOptions
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Cosines of candidates to examples, less the weighted one to what lies nearest in the pool.

    Args:
        inputs: Inputs of the method.
        examples: By capability and layer, `(n_examples, width)`, of unit norm over all layers.
        options: Options of the method.

    Yields:
        Places of candidates whose last layer has been read `(n,)`, and by capability `(n, n_examples)`.
    """
    n_samples, statistics, reference = len(inputs.sample_ids), inputs.statistics, inputs.fitted
    squares = np.zeros(n_samples)
    nearest = NearestMean(inputs.sample_ids, reference.sample_ids, len(statistics), options.neighbours)
    products = {
        name: LayerSums(n_samples, len(statistics), len(next(iter(rows.values()))), np.float64)
        for name, rows in examples.items()
    }
    for layer, places, activations in inputs.blocks:
        standardized = statistics[layer].standardize(activations)
        squares[places] += np.einsum("ij,ij->i", standardized, standardized)
        if reference.rows:
            nearest.add(places, standardized @ reference.rows[layer].T, squares[places])
        # one by one: in a joint product one's rounding depends on the others
        found = {name: products[name].add(places, standardized @ rows[layer].T) for name, rows in examples.items()}
        done = places[next(iter(found.values()))[0]]
        if len(done):
            pool = options.hubness * nearest.means[done] if reference.rows else np.zeros(len(done))
            yield done, {name: over_norms(sums, squares[done]) - pool[:, None] for name, (_, sums) in found.items()}


def best_matches(values: np.ndarray, best: int) -> np.ndarray:
    """`(n_candidates,)` means of the largest values of each row of `(n_candidates, n_examples)`."""
    return np.sort(values, axis=1)[:, -best:].mean(axis=1)


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` scores, and by example the cosine less the weighted one to the nearest pool rows."""
    options: NaitNeighboursOptions = inputs.options
    frames, n_candidates = inputs.of_capabilities(EXAMPLES), len(inputs.sample_ids)
    examples = {name: example_rows(frame, inputs.statistics) for name, frame in frames.items()}
    sizes = {name: len(next(iter(rows.values()))) for name, rows in examples.items()}
    values, by_example = (
        np.zeros((n_candidates, len(inputs.targets))),
        ExampleScores(n_candidates, sizes, inputs.scratch),
    )
    for places, corrected in corrected_cosines(inputs, examples, options):
        best = {name: best_matches(matrix, options.best) for name, matrix in corrected.items()}
        values[places] = np.stack([np.max(of, axis=0) for of in inputs.for_each_target(best).values()], axis=1)
        by_example.put(places, corrected)
    return Scores(values, by_example=by_example.by_target(inputs.targets))


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The score by term and by layer, the neurons that add most, and the nearest examples.

    Once it is known which examples and rows are nearest, the score is a sum over neurons.
    """
    options: NaitNeighboursOptions = inputs.options
    statistics, activations = inputs.statistics, inputs.activations_of(sample_id)
    own = {layer: statistics[layer].standardize(activations[layer]).astype(np.float64) for layer in statistics}
    norm = float(np.sqrt(sum((row**2).sum() for row in own.values())))
    nearest = {name: _mean_of_nearest(own, _examples(inputs, name), options.best) for name in inputs.targets[target]}
    reference: Reference = inputs.fitted
    itself = reference.sample_ids.index(sample_id) if sample_id in reference.sample_ids else None
    pool = _mean_of_nearest(own, reference.rows, options.neighbours, itself)
    terms = {name: LinearScore.of(own, mean, norm) for name, mean in {**nearest, "": pool}.items()}
    best = max(nearest, key=lambda name: float(terms[name].shares.sum()))
    found = LinearScore(
        terms[best].layers, terms[best].values, terms[best].weights - options.hubness * terms[""].weights, norm
    )
    n_best = min(options.best, _n_rows(_examples(inputs, best)))
    n_pool = min(options.neighbours, _n_rows(reference.rows) - (itself is not None))
    by_term = {
        f"nearest {n_best} examples of {best}": float(terms[best].shares.sum()),
        f"nearest {n_pool} rows of the pool": -options.hubness * float(terms[""].shares.sum()),
    }
    return Explanation(
        "neurons that weigh most in its score's direction (layer:neuron, against the pool)",
        found.strongest(n, in_deviations),
        [Parts("term", by_term), *found.parts],
        spread=found.spread,
        **nearest_by_activations(
            inputs, sample_id, target, n, lambda rows: side_by_side(rows, statistics), STANDARDIZED
        ),
    )


def _examples(inputs: ScoringInputs, capability: str) -> dict[int, np.ndarray]:
    frame = inputs.of_capabilities(EXAMPLES)[capability]
    return inputs.once(("example_rows", capability), lambda: example_rows(frame, inputs.statistics))


def _n_rows(rows: Mapping[int, np.ndarray]) -> int:
    return len(next(iter(rows.values()))) if rows else 0


def _mean_of_nearest(
    own: Mapping[int, np.ndarray], rows: Mapping[int, np.ndarray], n: int, itself: int | None = None
) -> dict[int, np.ndarray]:
    """By layer `(width,)`: the mean of the `n` rows, of unit norm, with the largest products; zeros of no rows.

    Args:
        own: By layer `(width,)`, the candidate.
        rows: By layer `(n_rows, width)`.
        n: How many rows, at most.
        itself: Place of the candidate among the rows, which is none of its neighbours.
    """
    products = sum(rows[layer] @ own[layer] for layer in own) if rows else np.empty(0)
    order = np.argsort(-products, kind="stable")
    chosen = order[order != itself][:n] if itself is not None else order[:n]
    if not len(chosen):
        return {layer: np.zeros(len(vector)) for layer, vector in own.items()}
    return {layer: rows[layer][chosen].mean(axis=0, dtype=np.float64) for layer in own}


METHOD = Method(
    name="nait_neighbours",
    description="For capabilities of many kinds: mean cosine to the capability's nearest examples, less half of that "
    "to the nearest rows of the pool; both standardised neuron by neuron against the pool.",
    reads=(ACTIVATIONS, STATISTICS, EXAMPLES),
    score=score,
    options=NaitNeighboursOptions,
    by_target=True,
    fit=fit,
    stand_ins=by_activations(),
    explain=explain,
)
