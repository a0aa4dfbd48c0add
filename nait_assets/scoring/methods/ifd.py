"""IFD, instruction-following difficulty: how little an instruction helps the model to say the response.

Formula:
IFD(Q, A) = CE(A | Q) / CE(A)

CE is the mean cross-entropy over the response's tokens, given the conversation before them, and alone. Highest first;
above 1 the instruction misleads, and the row is dropped with a reason. Source: Cherry, arXiv 2308.12032, section 2.2.
Its first name is Q2Q (from quantity to quality), under which NAIT compares with it: the same method.

The published code takes the ratio of mean losses. Superfiltering (arXiv 2402.00530) takes that of perplexities,
exp(CE(A | Q) - CE(A)): `ratio: perplexities`. Both are 1 where the losses are equal, so the same rows are dropped; the
order differs.

`ifd_pre_experienced` is the same with a model that was first trained briefly on a few varied candidates, as the paper
has it (`measurements/pre_experienced_model`); `ifd` leaves that out, as Superfiltering does.

Departures:
The published code leaves the heading "### Response:" in front of the response that should be alone, and knows one
tokenizer; here, as in the formula, the response stands alone, behind the token that begins every sequence, and both
losses are over the very same tokens.

Limits:
Short responses have a high CE(A), so a low IFD with any instruction. The score does not look at the target: it is the
same for all.

Cost:
Two forward passes over each candidate, the second over its response alone; the first is shared with `perplexity` and
`rds_plus`.
"""

from functools import partial
from typing import Literal

import numpy as np
from pydantic import Field

from nait_assets.recipe import Section
from nait_assets.scoring.method import Explanation, Method, Reason, Scores, ScoringInputs
from nait_assets.scoring.reasons import against_pool

OUTPUTS, ANSWERS = "measurements/candidate_outputs", "measurements/candidate_answers"
EXPERIENCED_OUTPUTS = "measurements/candidate_experienced_outputs"
EXPERIENCED_ANSWERS = "measurements/candidate_experienced_answers"


IfdRatio = Literal["losses", "perplexities"]
"""losses: of the mean losses, as Cherry's code does; perplexities: of their exponentials, as Superfiltering does."""


class IfdOptions(Section):
    """Options of `ifd` and of `ifd_pre_experienced`."""

    ratio: IfdRatio = Field(
        "losses", description="Ratio of losses or of perplexities, with and without the instruction."
    )


def difficulty(given: np.ndarray, alone: np.ndarray, ratio: IfdRatio) -> np.ndarray:
    """`(n_candidates,)` IFD from mean losses in nats; NaN where a response alone has no loss at all.

    Args:
        given: `(n_candidates,)` losses of responses, given what was asked.
        alone: `(n_candidates,)` of the same tokens without it.
        ratio: Ratio of the losses, or of their exponentials.
    """
    if ratio == "perplexities":
        return np.exp(given - alone)
    return np.divide(given, alone, out=np.full(len(given), np.nan), where=alone > 0)


def score(inputs: ScoringInputs, given: str, alone: str) -> Scores:
    """`(n_candidates, n_targets)` difficulties in [0, 1]; above, a reason.

    Args:
        inputs: Those of the method.
        given: Key of the output with `answer_loss`.
        alone: Key of the output with `answer_loss_alone`.
    """
    values = difficulty(*_losses(inputs, given, alone), inputs.options.ratio)
    reasons = {
        name: _reason(value)
        for name, value in zip(inputs.sample_ids, values.tolist(), strict=True)
        if not value <= 1  # NaN too
    }
    return Scores(inputs.same_for_all_targets(values), reasons)


def _losses(inputs: ScoringInputs, given: str, alone: str) -> tuple[np.ndarray, np.ndarray]:
    """`(n_candidates,)` losses of the answers given what was asked, and alone."""
    first, second = inputs.of(given, "answer_loss"), inputs.of(alone, "answer_loss_alone")
    return first.to_series().to_numpy().astype(np.float64), second.to_series().to_numpy().astype(np.float64)


def _reason(value: float) -> str:
    if np.isnan(value):
        return "its IFD is not defined: the model predicts the response by itself without any loss"
    return f"its IFD is {value:.3f}, above 1: with the instruction the response is harder to predict than without"


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int, given: str, alone: str) -> Explanation:
    """The two losses, and each one's place in the pool.

    Args:
        inputs: Those of the method.
        sample_id: The candidate.
        given: Key of the output with `answer_loss`.
        alone: Key of the output with `answer_loss_alone`.
    """
    index = inputs.sample_ids.index(sample_id)
    names = "loss of its answer, given what was asked", "loss of its answer alone"
    losses = dict(zip(names, _losses(inputs, given, alone), strict=True))
    reasons = [Reason(name, against_pool(float(found[index]), found)) for name, found in losses.items()]
    perplexities = inputs.options.ratio == "perplexities"
    heading = "exp(first - second)" if perplexities else "first / second"
    return Explanation(f"the score is {heading}, of two losses in nats a token", reasons)


METHOD = Method(
    name="ifd",
    description="Instruction-following difficulty: the loss of the response given the instruction, over its loss "
    "alone.",
    reads=(OUTPUTS, ANSWERS),
    score=partial(score, given=OUTPUTS, alone=ANSWERS),
    options=IfdOptions,
    explain=partial(explain, given=OUTPUTS, alone=ANSWERS),
)
PRE_EXPERIENCED = Method(
    name="ifd_pre_experienced",
    description="Instruction-following difficulty under a model that was briefly trained on a few candidates.",
    reads=(EXPERIENCED_OUTPUTS, EXPERIENCED_ANSWERS),
    score=partial(score, given=EXPERIENCED_OUTPUTS, alone=EXPERIENCED_ANSWERS),
    options=IfdOptions,
    explain=partial(explain, given=EXPERIENCED_OUTPUTS, alone=EXPERIENCED_ANSWERS),
)
