"""LESS: how much a step on a candidate would lower the loss of a capability's examples (arXiv 2402.04333).

Formula:
s(y) = mean over a capability's examples x of  sum_c w_c cos(Gamma_c(y), g_c(x))                   (definition 3.1)

At each checkpoint c of a LoRA warm-up with mean learning rate w_c, this is the cosine between the direction in which
Adam would step on the candidate, and the example's gradient: to first order, how much the step lowers the loss. The
vectors come projected, scaled and weighted (`measurements/gradients.py`), so that the sum is their inner product. The
published code gives the w_c the sum 1, which changes no rank, and keeps scores in [-1, 1].

Examples are averaged within a subtask, and the largest subtask counts (data_selection/matching.py there). Here a
capability is a subtask: its score is the mean over its examples, or with `over: max` the largest, and that of the
target `all` is the largest of its capabilities'.

Departures:
The published subtasks, such as the 57 of MMLU, are topics of examples, which no method reads here; a capability for
each gives the same with the target `all`.

Limits:
Gamma holds 90% of the warm-up's momentum, which all candidates share; and cosines of short answers' gradients are the
larger ones. Both are the method's own.

Cost:
A matrix product, a block of candidates after the other; the gradients cost (`measurements/gradients.py`).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.recipe import Section
from nait_assets.scoring.examples import scored_by_example
from nait_assets.scoring.method import Explanation, Method, Parts, Scores, ScoringInputs
from nait_assets.scoring.near import mean_of
from nait_assets.scoring.reasons import OF_EXAMPLES, near_by_example
from nait_assets.scoring.rows import vectors

GRADIENTS, EXAMPLES = "measurements/candidate_gradients", "measurements/in_domain_gradients"


class LessOptions(Section):
    """Of `less`; the warm-up is in `measurements.less_checkpoints`, the projection in `measurements.gradients`."""

    over: Literal["mean", "max"] = Field("mean", description="How a capability's examples are combined.")


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` scores in [-1, 1], and those of each example."""
    examples = {name: vectors(frame["vector"]) for name, frame in inputs.of_capabilities(EXAMPLES).items()}
    over: Callable[..., np.ndarray] = np.max if inputs.options.over == "max" else np.mean

    def compare(rows: pl.DataFrame) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        candidates = vectors(rows["vector"])
        # each capability by itself: in a joint product its rounding would depend on the others
        products = {name: (candidates @ others.T).astype(np.float64) for name, others in examples.items()}
        combined = {name: over(product, axis=1) for name, product in products.items()}
        return np.stack([np.max(of, axis=0) for of in inputs.for_each_target(combined).values()], axis=1), products

    sizes = {name: len(others) for name, others in examples.items()}
    return scored_by_example(inputs, GRADIENTS, ["vector"], sizes, compare)


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """What each example of the capability adds to the mean, and the examples with the largest products."""
    near = near_by_example(score(inputs.only(sample_id)), inputs, EXAMPLES, target)
    what, usual = "product of gradients", mean_of(near)
    if inputs.options.over == "max":
        return Explanation(OF_EXAMPLES, (), near=near[:n], nearness=what, usual=usual)
    of_capability = {name: [one for one in near if one.capability == name] for name in inputs.targets[target]}
    best = max(of_capability, key=lambda name: float(np.mean([one.value for one in of_capability[name]])))
    shares = {one.sample_id: one.value / len(of_capability[best]) for one in of_capability[best]}
    heading = f"the score is the mean over the examples of {best}"
    return Explanation(heading, (), [Parts("example", shares)], near=near[:n], nearness=what, usual=usual)


METHOD = Method(
    name="less",
    description="LESS: cosine between the step that Adam would take on a candidate and the gradients of a "
    "capability's examples, over the checkpoints of a LoRA warm-up.",
    reads=(GRADIENTS, EXAMPLES),
    score=score,
    options=LessOptions,
    by_target=True,
    explain=explain,
)
