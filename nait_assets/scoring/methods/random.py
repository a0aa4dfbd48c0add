"""Random: the control that every method has to beat.

Formula:
s(y) is a hash of the seed, the target and the candidate's `sample_id`, uniform in [0, 1): a row more in the pool does
not shuffle the others.

Departures:
None.

Limits:
It is one draw; another `seed` is another.

Cost:
None.
"""

import hashlib

import numpy as np

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` uniform numbers."""
    return np.stack([uniform(inputs.sample_ids, f"{inputs.seed}:{target}") for target in inputs.targets], axis=1)


def uniform(sample_ids: list[str], prefix: str) -> np.ndarray:
    """`(n_samples,)` numbers in [0, 1), from the hash of the prefix and each `sample_id`."""
    digests = (hashlib.sha256(f"{prefix}:{name}".encode()).digest() for name in sample_ids)
    numbers = (int.from_bytes(digest[:6]) / 2**48 for digest in digests)
    return np.fromiter(numbers, dtype=np.float64, count=len(sample_ids))


def explain(inputs: ScoringInputs, _sample_id: str, target: str, _n: int) -> Explanation:
    """That nothing of the candidate counts."""
    drawn = f"a hash of seed {inputs.seed}, target {target} and its id; nothing that it says counts"
    return Explanation("chance", [Reason("its draw", drawn)])


METHOD = Method(
    name="random",
    description="The control: a seeded random order, different for each target.",
    reads=(CANDIDATES,),
    score=score,
    by_target=True,
    seeded=True,
    explain=explain,
)
