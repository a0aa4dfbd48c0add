"""Published lists: what others chose from the same pool, as a method of the list's name.

s(y) = -(place of y on the list); a candidate that is not on it has no score. It says nothing of targets: all have the
same scores. How rows are found in the pool: `corpora/published.py`. Cost: none.
"""

from functools import partial

import numpy as np

from nait_assets.scoring.method import Method, Scores, ScoringInputs

NOT_ON_LIST = "not on the list"


def score(inputs: ScoringInputs, name: str) -> Scores:
    """`(n_candidates, n_targets)` places, negative; NaN for candidates that are not on the list.

    Args:
        inputs: With the pool and the list.
        name: Of the list.
    """
    frame = inputs.candidates[f"corpora/published_{name}"]
    places = dict(zip(frame["sample_id"].to_list(), frame["place"].to_list(), strict=True))
    values = np.asarray([-places.get(sample_id, np.nan) for sample_id in inputs.sample_ids], dtype=np.float64)
    reasons = {sample_id: NOT_ON_LIST for sample_id in inputs.sample_ids if sample_id not in places}
    return Scores(np.stack([values] * len(inputs.features), axis=1), reasons)


def method(name: str) -> Method:
    """The method of a published list."""
    return Method(name, f"The published list {name!r}: what others chose from the pool.", partial(score, name=name))
