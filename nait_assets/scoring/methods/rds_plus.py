"""RDS+: how close a candidate is to the target's examples by the model's last hidden states (arXiv 2503.01807).

Formula:
s(y) = max over the target's examples e of cos(h(y), h(e)),  h(x) = sum_i w_i h_i(x),  w_i = i / sum_j j

h is the position-weighted mean of the last hidden state over all tokens, made in `measurements/outputs.py`. The
published choice (section 3) is a round robin over the examples, each of which takes its best candidate still there: the
scores for each example give those turns.

Departures:
For the target `all` the examples of the capabilities take turns one by one, the first of each, then the second of each,
so that a small subset has a part of every capability.

Limits:
The largest cosine over many examples rewards candidates close to any odd one; hidden states share a large common
direction, so cosines lie close together, and only their order tells.

Cost:
One forward pass over each candidate and example, shared with `perplexity` and `ifd`; then `n_candidates x n_examples`
cosines, which are held in memory.
"""

import numpy as np
import polars as pl

from nait_assets.scoring.method import Method, Scores, ScoringInputs
from nait_assets.scoring.ranking import by_turns
from nait_assets.scoring.reasons import nearest_examples
from nait_assets.scoring.stand_ins import by_rows

OUTPUTS, EXAMPLES = "measurements/candidate_outputs", "measurements/in_domain_outputs"


def cosines(candidates: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """`(n_candidates, n_examples)` cosines, float64; 0 with a vector of zeros.

    Args:
        candidates: `(n_candidates, width)`.
        examples: `(n_examples, width)`.
    """
    return np.clip(_units(candidates) @ _units(examples).T, -1.0, 1.0)


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` largest cosines, and the cosines with every example of each target."""
    candidates = _vectors(inputs.of(OUTPUTS))
    of_capability = {  # a product for each capability: its rounding depends on no other
        name: cosines(candidates, _vectors(frame)) for name, frame in inputs.of_capabilities(EXAMPLES).items()
    }
    by_example = {target: by_turns(parts) for target, parts in inputs.for_each_target(of_capability).items()}
    return Scores(np.stack([found.max(axis=1) for found in by_example.values()], axis=1), by_example=by_example)


def _vectors(frame: pl.DataFrame) -> np.ndarray:
    return np.stack([np.asarray(vector, np.float64) for vector in frame["vector"].to_list()])


def _units(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


METHOD = Method(
    name="rds_plus",
    description="The largest cosine between a candidate's and an example's position-weighted mean of the last hidden "
    "states.",
    reads=(OUTPUTS, EXAMPLES),
    stand_ins=by_rows(OUTPUTS, EXAMPLES, nearest=True),
    score=score,
    by_target=True,
    explain=nearest_examples(score, EXAMPLES, "cosine of hidden states"),
)
