"""Random, balanced: every group of the pool in equal numbers, by chance within a group (RDS+, arXiv 2503.01807).

Formula:
s(y) = v(y) - (how many of y's group have a larger u)

u and v are two hashes of seed, target and `sample_id`, uniform in [0, 1). So the groups take turns, in an order that
chance gives anew each time, whatever their sizes: the largest u of many are larger, which is why v is another. A group
that has no more candidates is passed over. A row more in the pool moves only rows of its own group, and those by one
turn. A group is what has the same `topic`, and of rows without one, what has the same source.

Departures:
RDS+ balances over sources, which are the topics of a pool that was put together from several. This is the one method
that reads the topic.

Limits:
It is one draw; another `seed` is another. Groups of one row are all taken first.

Cost:
None.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs
from nait_assets.scoring.methods.random import uniform


def turns(groups: Sequence[Hashable], numbers: np.ndarray, sample_ids: Sequence[str]) -> np.ndarray:
    """`(n_samples,)` how many samples of the same group have a larger number; ties go to the smaller `sample_id`.

    Args:
        groups: Group of each sample.
        numbers: `(n_samples,)`.
        sample_ids: Ids of the samples.
    """
    taken: dict[Hashable, int] = defaultdict(int)
    found = np.zeros(len(sample_ids))
    for place in sorted(range(len(sample_ids)), key=lambda place: (-numbers[place], sample_ids[place])):
        found[place] = taken[groups[place]]
        taken[groups[place]] += 1
    return found


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)`: the number before the point is the turn, less than 1 and falling."""
    groups, columns = groups_of(inputs), []
    for target in inputs.targets:
        numbers = uniform(inputs.sample_ids, f"balanced:{inputs.seed}:{target}")  # not those of `random`
        within = uniform(inputs.sample_ids, f"balanced-turn:{inputs.seed}:{target}")
        columns.append(within - turns(groups, numbers, inputs.sample_ids))
    return np.stack(columns, axis=1)


def groups_of(inputs: ScoringInputs) -> list[tuple[str, str]]:
    """`(n_candidates,)` groups: the topic of each, or its source where it has none."""
    labels = inputs.of(CANDIDATES, "topic", "source").rows()
    return [("topic", topic) if topic is not None else ("source", source) for topic, source in labels]


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int) -> Explanation:
    """The candidate's group, and that nothing else of it counts."""
    groups = groups_of(inputs)
    kind, name = own = groups[inputs.sample_ids.index(sample_id)]
    size = f"{groups.count(own):,} of {len(groups):,} candidates in {len(set(groups)):,} groups that take turns"
    return Explanation("its group, and within it chance", [Reason(f"{kind} {name}", size)])


METHOD = Method(
    name="balanced_random",
    description="A control: a seeded random order in which the topics, or the sources where there are none, take "
    "turns.",
    reads=(CANDIDATES,),
    score=score,
    by_target=True,
    seeded=True,
    explain=explain,
    version="2",
)
