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
cosines, a block of candidates after the other.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from nait_assets.scoring.examples import scored_by_example
from nait_assets.scoring.method import Method, Scores, ScoringInputs
from nait_assets.scoring.reasons import nearest_examples
from nait_assets.scoring.rows import vectors
from nait_assets.scoring.stand_ins import by_rows

OUTPUTS, EXAMPLES = "measurements/candidate_outputs", "measurements/in_domain_outputs"


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` largest cosines, and the cosines with every example of each target."""
    examples = {name: _units(frame) for name, frame in inputs.of_capabilities(EXAMPLES).items()}

    def compare(rows: pl.DataFrame) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        candidates = _units(rows)
        # a product for each capability: its rounding depends on no other
        cosines = {name: np.clip(candidates @ units.T, -1.0, 1.0) for name, units in examples.items()}
        largest = {name: found.max(axis=1) for name, found in cosines.items()}
        return np.stack([np.max(of, axis=0) for of in inputs.for_each_target(largest).values()], axis=1), cosines

    sizes = {name: len(units) for name, units in examples.items()}
    return scored_by_example(inputs, OUTPUTS, ["vector"], sizes, compare)


def _units(rows: pl.DataFrame) -> np.ndarray:
    """`(n_rows, width)` of unit norm, float64; a vector of zeros stays."""
    found = vectors(rows["vector"]).astype(np.float64)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)


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
