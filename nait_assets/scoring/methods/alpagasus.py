"""AlpaGasus: the score that a judge, another model behind an API, gives the example (arXiv 2307.08701).

Formula:
s(y) is the judge's rating of the response, from 0 to 5; `measurements/judgements.py` has the prompt. The same for every
target.

The paper keeps what has at least 4.5 of 5, which is `options.alpagasus.threshold: 4.5`: candidates below it then have
no score, so that no ratio takes them. Without a threshold all are ranked.

Departures:
None that are known.

Limits:
A judge says few different numbers, so ties are many: about nine thousand of the paper's 52 thousand have 4.5 or 5. They
go by `sample_id`, a hash, which is as good as by chance and always the same.

Cost:
None beyond the judgements.
"""

import numpy as np
from pydantic import Field

from nait_assets.recipe import Section
from nait_assets.scoring.method import Method, Scores, ScoringInputs

JUDGEMENTS = "measurements/candidate_judgements"


class AlpagasusOptions(Section):
    """Of `alpagasus`; who judges is in `measurements.judgements`."""

    threshold: float | None = Field(
        None, ge=0, le=5, description="Candidates below it have no score; the paper keeps scores of at least 4.5."
    )


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` ratings in [0, 5]; NaN with a reason for those below the threshold."""
    ratings = inputs.of(JUDGEMENTS, "score")["score"].to_numpy().astype(np.float64)
    threshold = inputs.options.threshold
    below = ratings < threshold if threshold is not None else np.zeros(len(ratings), dtype=bool)
    reasons = {
        inputs.sample_ids[index]: f"judged {ratings[index]:g}, below the threshold of {threshold:g}"
        for index in np.flatnonzero(below)
    }
    return Scores(inputs.same_for_all_targets(np.where(below, np.nan, ratings)), reasons)


METHOD = Method(
    name="alpagasus",
    description="AlpaGasus: the score that a judge model behind an API gives the answer.",
    reads=(JUDGEMENTS,),
    score=score,
    options=AlpagasusOptions,
)
