"""IFD, instruction-following difficulty: how little an instruction helps the model to say the response.

IFD(Q, A) = CE(A | Q) / CE(A), where CE is the mean cross-entropy over the response's tokens, given the conversation
before them, and alone. Highest first; above 1 the instruction misleads, and the row is dropped with a reason. Source:
Cherry, arXiv 2308.12032, section 2.2. Its first name is Q2Q (from quantity to quality), under which NAIT compares with
it: the same method. The published code takes the ratio of mean losses. Superfiltering (arXiv 2402.00530) takes that of
perplexities, exp(CE(A | Q) - CE(A)): `ratio: perplexities`. Both are 1 where the losses are equal, so the same rows
are dropped; the order differs.

`ifd_pre_experienced` is the same with a model that was first trained for a moment on a few varied candidates, as the
paper has it (`measurements/pre_experienced_model`); `ifd` leaves that out, as Superfiltering does.

Defects: short responses have a high CE(A), so a low IFD with any instruction. The published code leaves the heading
"### Response:" in front of the response that should be alone, and knows one tokenizer; here, as in the formula, the
response stands alone, behind the token that begins every sequence, and both losses are over the very same tokens. The
score does not look at the target: it is the same for all.
Cost: two forward passes over each candidate, the second over its response alone; the first is shared with `perplexity`
and `rds_plus`.
"""

from typing import Literal

import numpy as np

from nait_assets.scoring.method import Method, Scores, ScoringInputs


def difficulty(given: np.ndarray, alone: np.ndarray, ratio: Literal["losses", "perplexities"]) -> np.ndarray:
    """`(n_candidates,)` IFD from mean losses in nats; NaN where a response alone has no loss at all.

    Args:
        given: `(n_candidates,)` losses of responses, given what was asked.
        alone: `(n_candidates,)` of the same tokens without it.
        ratio: Of the losses, or of their exponentials.
    """
    if ratio == "perplexities":
        return np.exp(given - alone)
    return np.divide(given, alone, out=np.full(len(given), np.nan), where=alone > 0)


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` difficulties in [0, 1]; above, a reason."""
    losses = {
        column: frame[column].to_numpy().astype(np.float64)
        for frame in inputs.candidates.values()
        for column in ("answer_loss", "answer_loss_alone")
        if column in frame.columns
    }
    values = difficulty(losses["answer_loss"], losses["answer_loss_alone"], inputs.options.ratio)
    reasons = {
        name: _reason(value)
        for name, value in zip(inputs.sample_ids, values.tolist(), strict=True)
        if not value <= 1  # NaN too
    }
    return Scores(np.repeat(values[:, None], len(inputs.features), axis=1), reasons)


def _reason(value: float) -> str:
    if np.isnan(value):
        return "its IFD is not defined: the model predicts the response by itself without any loss"
    return f"its IFD is {value:.3f}, above 1: with the instruction the response is harder to predict than without"


METHOD = Method(
    "ifd",
    "Instruction-following difficulty: the loss of the response given the instruction, over its loss alone.",
    score,
)
PRE_EXPERIENCED = Method(
    "ifd_pre_experienced",
    "Instruction-following difficulty under a model that was briefly trained on a few candidates.",
    score,
)
