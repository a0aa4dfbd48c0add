"""Perplexity: how surprising a candidate is to the model, its most or its least surprising rows first.

Formula:
s(y) = +- text_loss(y)

text_loss is the mean cross-entropy in nats over all tokens of the conversation but the first: the logarithm of the
perplexity, which orders as the perplexity does and does not overflow. `perplexity_high` takes the hardest rows,
`perplexity_low` the easiest; both are baselines of the studies of selection (arXiv 2503.01807, section 4).

Departures:
None that are known.

Limits:
The highest are often noise and foreign scripts, the lowest often boilerplate and short ones. Neither looks at the
target: its scores are the same for all.

Cost:
One forward pass over each candidate, shared with `ifd` and `rds_plus`.
"""

import numpy as np

from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs
from nait_assets.scoring.reasons import against_pool

OUTPUTS = "measurements/candidate_outputs"


def high(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` mean losses of a token, in nats."""
    return inputs.same_for_all_targets(inputs.of(OUTPUTS, "text_loss")["text_loss"].to_numpy())


def low(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` mean losses of a token, in nats, with a minus sign."""
    return -high(inputs)


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int) -> Explanation:
    """The loss, and what share of the pool has none larger."""
    losses = inputs.of(OUTPUTS, "text_loss")["text_loss"].to_numpy()
    own = float(losses[inputs.sample_ids.index(sample_id)])
    reasons = [
        Reason("mean loss of a token, in nats", against_pool(own, losses)),
        Reason("perplexity, e to that power", f"{np.exp(own):,.5g}"),
    ]
    return Explanation("nothing but a loss counts, which is the same for every target", reasons)


HIGH = Method(
    name="perplexity_high",
    description="Hardest first: the mean loss of a candidate's tokens under the model.",
    reads=(OUTPUTS,),
    score=high,
    explain=explain,
)
LOW = Method(
    name="perplexity_low",
    description="Easiest first: the mean loss of a candidate's tokens, with a minus sign.",
    reads=(OUTPUTS,),
    score=low,
    explain=explain,
)
