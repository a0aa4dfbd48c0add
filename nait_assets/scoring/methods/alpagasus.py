"""AlpaGasus: the score that a judge, another model behind an API, gives the example.

s(y) is the judge's rating of the response, from 0 to 5 (arXiv 2307.08701); `measurements/judgements.py` has the
prompt.
The same for every target. The paper keeps what has at least 4.5 of 5, which is `options.alpagasus.threshold: 4.5`:
candidates below it then have no score, so that no ratio takes them. Without a threshold all are ranked.

Defects: a judge says few different numbers, so ties are many: about nine thousand of the paper's 52 thousand have 4.5
or 5. They go by `sample_id`, a hash, which is as good as by chance and always the same.
Cost: none beyond the judgements.
"""

import numpy as np

from nait_assets.recipe import READS
from nait_assets.scoring.method import Method, Scores, ScoringInputs


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` ratings in [0, 5]; NaN with a reason for those below the threshold."""
    ratings = inputs.candidates[READS["alpagasus"][0]]["score"].to_numpy().astype(np.float64)
    threshold = inputs.options.threshold
    below = ratings < threshold if threshold is not None else np.zeros(len(ratings), dtype=bool)
    reasons = {
        inputs.sample_ids[place]: f"judged {ratings[place]:g}, below the threshold of {threshold:g}"
        for place in np.flatnonzero(below)
    }
    values = np.where(below, np.nan, ratings)
    return Scores(np.repeat(values[:, None], len(inputs.features), axis=1), reasons)


METHOD = Method("alpagasus", "AlpaGasus: the score that a judge model behind an API gives the answer.", score)
