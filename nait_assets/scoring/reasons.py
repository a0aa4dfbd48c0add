"""Why a candidate scores as it does: ways that several methods share, and the one of those that have none of their own.

Belongs here: what is said of one candidate. Does not belong here: reading it from the warehouse (`explanation`).
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Explanation, Method, Near, Reason, Scores, ScoringInputs
from nait_assets.scoring.near import mean_of
from nait_assets.scoring.ranking import by_turns
from nait_assets.tables import N_CHARACTERS

OF_EXAMPLES = "the score is that with the first of the nearest examples"


def nearest_examples(
    score: Callable[[ScoringInputs], Scores], key: str, what: str, heading: str = OF_EXAMPLES
) -> Callable[[ScoringInputs, str, str, int], Explanation]:
    """The explanation of a method that scores a candidate by each in-domain example: those with the highest scores.

    Args:
        score: The method's, whose `by_example` of a candidate does not depend on other candidates.
        key: Key of the output that holds the examples.
        what: What a score by example is.
        heading: How the score comes from those by example.
    """

    def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
        found = near_by_example(score(inputs.only(sample_id)).by_example[target][0], inputs, key, target)
        return Explanation(heading, (), near=found[:n], nearness=what, usual=mean_of(found))

    return explain


def near_by_example(values: np.ndarray, inputs: ScoringInputs, key: str, target: str) -> list[Near]:
    """All examples of a target, those for which a candidate's score is the highest first.

    Args:
        values: `(n_examples,)` scores, in the order of `Scores.by_example`.
        inputs: The method's.
        key: Key of the output that holds the examples.
        target: A capability, or `all`.
    """
    frames, capabilities = inputs.of_capabilities(key), inputs.targets[target]
    ids = [np.unique(frames[name]["sample_id"].to_numpy())[None] for name in capabilities]
    owners = [np.full(names.shape, name) for name, names in zip(capabilities, ids, strict=True)]
    named = zip(by_turns(ids)[0], by_turns(owners)[0], values.tolist(), strict=True)
    found = [Near(str(sample_id), str(owner), value) for sample_id, owner, value in named]
    return sorted(found, key=lambda one: (-one.value, one.sample_id))


def of_numbers(inputs: ScoringInputs, sample_id: str, _target: str, n: int) -> Explanation:
    """The numbers that were read of a candidate, and which share of the pool has no larger ones."""
    reasons = []
    for key, frame in sorted(inputs.frames.items()):
        rows = _numbers(key, frame)
        own = rows.filter(pl.col("sample_id") == sample_id)
        for column in rows.columns[1:] if len(own) else ():
            value = own[column][0]
            if value is not None:
                reasons.append(Reason(column, f"{against_pool(value, rows[column].drop_nulls().to_numpy())} ({key})"))
    return Explanation("what was read of it", reasons[:n])


def against_pool(value: float, values: np.ndarray) -> str:
    """A number of a candidate, and which share of the pool's `(n_candidates,)` is no larger."""
    return f"{value:,.5g}: as large as or larger than that of {float(np.mean(values <= value)):.0%} of the pool"


def _numbers(key: str, frame: pl.DataFrame) -> pl.DataFrame:
    """`sample_id` and the columns of one number; of the pool, whose numbers are places in files, the length alone."""
    if key == CANDIDATES:
        return frame.select("sample_id", characters=N_CHARACTERS)
    return frame.select("sample_id", *(name for name, kind in frame.schema.items() if kind.is_numeric()))


def explained(method: Method, inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """Why a candidate scores as it does by a method: as the method explains it, or by the numbers that were read."""
    return (method.explain or of_numbers)(inputs, sample_id, target, n)
