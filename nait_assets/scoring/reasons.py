"""Why a candidate scores as it does: ways that several methods share, and the one of those that have none of their own.

Belongs here: what is said of one candidate. Does not belong here: reading it from the warehouse (`explanation`).
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Explanation, Method, Reason, Scores, ScoringInputs
from nait_assets.scoring.ranking import by_turns
from nait_assets.tables import N_CHARACTERS


def nearest_examples(
    score: Callable[[ScoringInputs], Scores], key: str
) -> Callable[[ScoringInputs, str, str, int], Explanation]:
    """The explanation of a method that scores a candidate by each in-domain example: those with the highest scores.

    Args:
        score: The method's, whose `by_example` of a candidate does not depend on other candidates.
        key: Key of the output that holds the examples.
    """

    def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
        return of_examples(score(inputs.only(sample_id)).by_example[target][0], inputs, key, target, n)

    return explain


def of_examples(values: np.ndarray, inputs: ScoringInputs, key: str, target: str, n: int) -> Explanation:
    """The in-domain examples for which a candidate's score is the highest.

    Args:
        values: `(n_examples,)` scores, in the order of `Scores.by_example`.
        inputs: The method's.
        key: Key of the output that holds the examples.
        target: A capability, or `all`.
        n: How many.
    """
    frames = inputs.of_capabilities(key)
    names = [np.unique(frames[name]["sample_id"].to_numpy())[None] for name in inputs.targets[target]]
    ids = by_turns(names)[0]
    best = np.argsort(-values, kind="stable")[:n]
    reasons = [Reason(str(ids[index]), f"score {values[index]:+.5f}") for index in best]
    return Explanation("in-domain examples for which its score is the highest", reasons)


def of_numbers(inputs: ScoringInputs, sample_id: str, _target: str, n: int) -> Explanation:
    """The numbers that were read of a candidate, and which share of the pool has no larger ones."""
    reasons = []
    for key, frame in sorted(inputs.frames.items()):
        rows = _numbers(key, frame)
        own = rows.filter(pl.col("sample_id") == sample_id)
        for column in rows.columns[1:] if len(own) else ():
            value = own[column][0]
            if value is not None:
                share = float((rows[column] <= value).mean() or 0)
                detail = f"{value:,.5g}: as large as or larger than that of {share:.0%} of the pool"
                reasons.append(Reason(column, f"{detail} ({key})"))
    return Explanation("what was read of it", reasons[:n])


def _numbers(key: str, frame: pl.DataFrame) -> pl.DataFrame:
    """`sample_id` and the columns of one number; of the pool, whose numbers are places in files, the length alone."""
    if key == CANDIDATES:
        return frame.select("sample_id", characters=N_CHARACTERS)
    return frame.select("sample_id", *(name for name, kind in frame.schema.items() if kind.is_numeric()))


def explained(method: Method, inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """Why a candidate scores as it does by a method: as the method explains it, or by the numbers that were read."""
    return (method.explain or of_numbers)(inputs, sample_id, target, n)
