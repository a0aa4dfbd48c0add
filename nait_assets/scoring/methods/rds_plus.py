"""RDS+: how near a candidate is to the target's examples by the model's last hidden states.

h(x) = sum_i w_i h_i(x), w_i = i / sum_j j, the position-weighted mean of the last hidden state over all tokens, made
in `measurements/outputs.py`; for each example e of the target cos(h(y), h(e)), and the score is the largest. The
published choice is a round robin over the examples, each of which takes its best candidate still there: the scores for
each example give those turns. Source: arXiv 2503.01807, section 3.

For the comprehensive target the examples of the capabilities take turns one by one, the first of each, then the second
of each, so that a small subset has a part of every capability.
Defects: the largest cosine over many examples rewards candidates near any odd one; hidden states share a large common
direction, so cosines lie close together, and only their order tells.
Cost: one forward pass over each candidate and example, shared with `perplexity` and `ifd`; then
`n_candidates x n_examples` cosines, which are held in memory.
"""

import numpy as np
import polars as pl

from nait_assets.scoring.method import Method, Scores, ScoringInputs, by_turns

OUTPUTS = "measurements/candidate_outputs"


def cosines(candidates: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """`(n_candidates, n_examples)` cosines, float64; 0 with a vector of zeros.

    Args:
        candidates: `(n_candidates, width)`.
        examples: `(n_examples, width)`.
    """
    return np.clip(_units(candidates) @ _units(examples).T, -1.0, 1.0)


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` largest cosines, and the cosines with every example of each target."""
    candidates = _vectors(inputs.candidates[OUTPUTS])
    of_capability: dict[str, np.ndarray] = {}
    by_example = {}
    for target, features in inputs.features.items():
        for name, frame in features.items():
            if name not in of_capability:  # a product for each capability: its rounding depends on no other
                of_capability[name] = cosines(candidates, _vectors(frame))
        by_example[target] = by_turns([of_capability[name] for name in features])
    return Scores(np.stack([found.max(axis=1) for found in by_example.values()], axis=1), by_example=by_example)


def _vectors(frame: pl.DataFrame) -> np.ndarray:
    return np.stack([np.asarray(vector, np.float64) for vector in frame["vector"].to_list()])


def _units(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


METHOD = Method(
    "rds_plus",
    "The largest cosine between a candidate's and an example's position-weighted mean of the last hidden states.",
    score,
)
