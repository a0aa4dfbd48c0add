"""Random: the control that every method has to beat.

A candidate's score is a hash of the seed, the target and its `sample_id`, uniform in [0, 1): a row more in the pool
does not shuffle the others. Cost: none.
"""

import hashlib

import numpy as np

from nait_assets.scoring.method import Method, ScoringInputs


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates,)` uniform numbers."""
    digests = (hashlib.sha256(f"{inputs.seed}:{inputs.target}:{name}".encode()).digest() for name in inputs.sample_ids)
    return np.fromiter(
        (int.from_bytes(digest[:6]) / 2**48 for digest in digests), dtype=np.float64, count=len(inputs.sample_ids)
    )


METHOD = Method("random", "The control: a seeded random order, another for each target.", score)
