"""Published lists: what others chose from the same pool, as a method of the list's name.

Formula:
s(y) = -(place of y on the list)

A candidate that is not on it has no score. It says nothing of targets: all have the same scores.

Departures:
None.

Limits:
Only rows of the list that are found in the pool count; how they are found: `corpora/published.py`.

Cost:
None.
"""

from functools import partial

import numpy as np

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Explanation, Method, Reason, Scores, ScoringInputs

NOT_ON_LIST = "not on the list"


def key_of(name: str) -> str:
    """Key of the output that holds a list."""
    return f"corpora/published_{name}"


def score(inputs: ScoringInputs, name: str) -> Scores:
    """`(n_candidates, n_targets)` positions, negative; NaN for candidates that are not on the list.

    Args:
        inputs: With the pool and the list.
        name: Name of the list.
    """
    frame = inputs.of(key_of(name))
    positions = dict(zip(frame["sample_id"].to_list(), frame["position"].to_list(), strict=True))
    values = np.asarray([-positions.get(sample_id, np.nan) for sample_id in inputs.sample_ids], dtype=np.float64)
    reasons = {sample_id: NOT_ON_LIST for sample_id in inputs.sample_ids if sample_id not in positions}
    return Scores(inputs.same_for_all_targets(values), reasons)


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int, name: str) -> Explanation:
    """The candidate's place on the list."""
    frame = inputs.of(key_of(name))
    positions = dict(zip(frame["sample_id"].to_list(), frame["position"].to_list(), strict=True))
    said = f"{positions[sample_id]:,}" if sample_id in positions else NOT_ON_LIST
    return Explanation(f"its place among the {len(frame):,} rows of the list {name}", [Reason("place", said)])


def method(name: str) -> Method:
    """The method of a published list."""
    return Method(
        name=name,
        description=f"The published list {name!r}: what others chose from the pool.",
        reads=(CANDIDATES, key_of(name)),
        score=partial(score, name=name),
        explain=partial(explain, name=name),
    )
