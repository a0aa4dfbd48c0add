"""Perplexity: how surprising a candidate is to the model, its most or its least surprising rows first.

s(y) = +- text_loss(y), the mean cross-entropy in nats over all tokens of the conversation but the first: the logarithm
of the perplexity, which orders as the perplexity does and does not overflow. `perplexity_high` takes the hardest rows,
`perplexity_low` the easiest; both are baselines of the studies of selection (arXiv 2503.01807, section 4).

Defects: the highest are often noise and foreign scripts, the lowest often boilerplate and short ones. Neither looks at
the target: its scores are the same for all.
Cost: one forward pass over each candidate, shared with `ifd` and `rds_plus`.
"""

import numpy as np

from nait_assets.scoring.method import Method, ScoringInputs

OUTPUTS = "measurements/candidate_outputs"


def high(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` mean losses of a token, in nats."""
    losses = inputs.candidates[OUTPUTS]["text_loss"].to_numpy().astype(np.float64)
    return np.repeat(losses[:, None], len(inputs.features), axis=1)


def low(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` mean losses of a token, in nats, with a minus sign."""
    return -high(inputs)


HIGH = Method("perplexity_high", "Hardest first: the mean loss of a candidate's tokens under the model.", high)
LOW = Method("perplexity_low", "Easiest first: the mean loss of a candidate's tokens, with a minus sign.", low)
