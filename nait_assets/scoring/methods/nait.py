"""NAIT: how far a candidate's activations lie along the capability's direction (arXiv 2603.13201, eq. 5).

s(y) = sum over layers l of A_l(y) . v_l, A_l(y) the mean activation over the tokens, v_l the capability's direction.

Known defects: neither centred nor normalised, so that layers with large activations decide, and all capabilities share
much of their order; `nait_standardized` mends both. Departure: the first token is left out of A_l(y), since its
enormous activations make the score a function of length.

Cost: one forward pass over the pool, shared by every method that reads activations; then one product per layer.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from nait_assets.scoring.method import Block, Method, ScoringInputs, stacked


def projections(blocks: Iterable[Block], directions: Mapping[int, np.ndarray], n_samples: int) -> np.ndarray:
    """`(n_samples, n_targets)` sums over layers of activation times direction, float64.

    Args:
        blocks: The pool's activations.
        directions: By layer, `(n_targets, width)`.
        n_samples: Of the pool.
    """
    (n_targets,) = {len(matrix) for matrix in directions.values()}
    vectors = {layer: matrix.astype(np.float32) for layer, matrix in directions.items()}
    scores = np.zeros((n_samples, n_targets))
    for layer, places, activations in blocks:
        for target in range(n_targets):  # one by one: in a joint product a target's rounding depends on the others
            scores[places, target] += activations @ vectors[layer][target]
    return scores


def combined_directions(directions: Mapping[str, Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """The mean of several capabilities' directions, by layer: for one capability its own.

    The comprehensive target (System 12) is a composite of the capabilities' directions in the paper, which leaves the
    rule open. The score along the mean direction is the mean of the scores along each.
    """
    layers = next(iter(directions.values()))
    return {layer: np.mean([by_layer[layer] for by_layer in directions.values()], axis=0) for layer in layers}


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` NAIT scores."""
    combined = [
        combined_directions({capability: _by_layer(frame) for capability, frame in features.items()})
        for features in inputs.features.values()
    ]
    return projections(inputs.blocks, stacked(combined), len(inputs.sample_ids))


def _by_layer(frame: pl.DataFrame) -> dict[int, np.ndarray]:
    vectors = (np.asarray(vector) for vector in frame["direction"].to_list())
    return dict(zip(frame["layer"].to_list(), vectors, strict=True))


METHOD = Method(
    "nait",
    "The paper's rule: a candidate's activations along the capability's principal direction of change, "
    "summed over layers.",
    score,
)
