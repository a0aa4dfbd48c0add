"""NAIT: how far a candidate's activations lie along the capability's direction (arXiv 2603.13201, eq. 5).

Formula:
s(y) = sum over layers l of A_l(y) . v_l

A_l(y) is the mean activation of the candidate y over its tokens, and v_l the capability's direction in layer l; with
`pool: answer` or `prompt` both are of those tokens alone. The target `all` takes the mean of the capabilities'
directions: the paper calls its System 12 a composite of them, and leaves the rule open.

Departures:
The first token is left out of A_l(y): its enormous activations would make the score a function of length. Examples that
were cut are left out of v_l: their last token is not the end of an answer, and the direction would be whether one was.

Limits:
The sum is neither centred nor normalised, so that layers with large activations decide. The sign of a direction is that
of the examples' change, which need not be the side on which their mean activations lie; with SmolLM2 it mostly is not
(docs/nait_variants.md). `nait_standardized` corrects both.

Cost:
One forward pass over the pool, shared by every method that reads activations; then one product per layer.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from nait_assets.recipe import ACTIVATIONS, ActivationOptions
from nait_assets.scoring.linear import LinearScore
from nait_assets.scoring.method import Block, Explanation, Method, Parts, ScoringInputs
from nait_assets.scoring.near import nearest_by_activations
from nait_assets.scoring.ranking import stacked

DIRECTIONS = "features/nait_directions"


def projections(blocks: Iterable[Block], directions: Mapping[int, np.ndarray], n_samples: int) -> np.ndarray:
    """`(n_samples, n_targets)` sums over layers of activation times direction, float64.

    Args:
        blocks: The pool's activations.
        directions: By layer, `(n_targets, width)`.
        n_samples: Number of samples of the pool.
    """
    (n_targets,) = {len(matrix) for matrix in directions.values()}
    vectors = {layer: matrix.astype(np.float32) for layer, matrix in directions.items()}
    scores = np.zeros((n_samples, n_targets))
    for layer, indices, activations in blocks:
        for target in range(n_targets):  # one by one: in a joint product a target's rounding depends on the others
            scores[indices, target] += activations @ vectors[layer][target]
    return scores


def combined_directions(directions: Mapping[str, Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """The mean of several capabilities' directions, by layer: for one capability its own.

    The score along the mean direction is the mean of the scores along each.
    """
    layers = next(iter(directions.values()))
    return {layer: np.mean([by_layer[layer] for by_layer in directions.values()], axis=0) for layer in layers}


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` NAIT scores."""
    combined = [_direction(inputs, target) for target in inputs.targets]
    return projections(inputs.blocks, stacked(combined), len(inputs.sample_ids))


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The score by layer and, for `all`, by capability; the neurons that add most; the nearest examples."""
    activations = inputs.activations_of(sample_id)
    found = LinearScore.of(activations, _direction(inputs, target))
    parts = found.parts
    if len(inputs.targets[target]) > 1:
        of_each = {name: _of_capability(inputs, name) for name in inputs.targets[target]}
        along = {name: LinearScore.of(activations, one).shares.sum() / len(of_each) for name, one in of_each.items()}
        parts.append(Parts("capability", {name: float(share) for name, share in along.items()}))

    def said(_layer: int, _neuron: int, value: float, weight: float) -> str:
        return f"activation {value:+.3f}, direction {weight:+.4f}"

    what = "cosine of mean activations as they are, which differ little from row to row"
    return Explanation(
        "neurons that weigh most in its score's direction (layer:neuron)",
        found.strongest(n, said),
        parts,
        spread=found.spread,
        **nearest_by_activations(inputs, sample_id, target, n, _whole, what),
    )


def _whole(activations: Mapping[int, np.ndarray]) -> np.ndarray:
    """`(n, n_layers * width)` activations of all layers side by side."""
    return np.concatenate([activations[layer] for layer in sorted(activations)], axis=1)


def _direction(inputs: ScoringInputs, target: str) -> dict[int, np.ndarray]:
    return combined_directions({name: _of_capability(inputs, name) for name in inputs.targets[target]})


def _of_capability(inputs: ScoringInputs, name: str) -> dict[int, np.ndarray]:
    return inputs.once(("direction", name), lambda: _by_layer(inputs.of_capabilities(DIRECTIONS)[name]))


def _by_layer(frame: pl.DataFrame) -> dict[int, np.ndarray]:
    vectors = (np.asarray(vector) for vector in frame["direction"].to_list())
    return dict(zip(frame["layer"].to_list(), vectors, strict=True))


METHOD = Method(
    name="nait",
    description="The paper's rule: the candidate's activations lie far along the capability's principal direction of "
    "change, summed over layers.",
    reads=(ACTIVATIONS, DIRECTIONS),
    score=score,
    options=ActivationOptions,
    by_target=True,
    needs_neurons=True,
    explain=explain,
)
