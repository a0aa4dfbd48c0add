"""Why a candidate scores as it does: ways that several methods share, and the one of those that have none of their own.

Belongs here: what is said of one candidate. Does not belong here: reading it from the warehouse (`explanation`).
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.by_example import ByExample, in_turns
from nait_assets.scoring.method import Explanation, Method, Near, Reason, Scores, ScoringInputs
from nait_assets.scoring.near import mean_of
from nait_assets.scoring.rows import StoredRows, values_of
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
        found = near_by_example(score(inputs.only(sample_id)), inputs, key, target)
        return Explanation(heading, (), near=found[:n], nearness=what, usual=mean_of(found))

    return explain


def near_by_example(scores: Scores, inputs: ScoringInputs, key: str, target: str) -> list[Near]:
    """All examples of a target, those for which a candidate's score is the highest first.

    Args:
        scores: Those of this candidate alone.
        inputs: The method's.
        key: Key of the output that holds the examples.
        target: A capability, or `all`.
    """
    frames, capabilities = inputs.of_capabilities(key), inputs.targets[target]
    ids = {name: sorted(set(frames[name]["sample_id"].to_list())) for name in capabilities}
    order = in_turns(capabilities, {name: len(found) for name, found in ids.items()})
    by_example = scores.by_example[target]
    values = (by_example.matrix() if isinstance(by_example, ByExample) else by_example)[0].tolist()
    found = [Near(ids[name][number], name, value) for (name, number), value in zip(order, values, strict=True)]
    return sorted(found, key=lambda one: (-one.value, one.sample_id))


def of_numbers(inputs: ScoringInputs, sample_id: str, _target: str, n: int) -> Explanation:
    """The numbers that were read of a candidate, and which share of the pool has no larger ones."""
    reasons = []
    for key in sorted(inputs.frames):
        rows = _numbers(key, inputs)
        own = rows.filter(pl.col("sample_id") == sample_id)
        for column in rows.columns[1:] if len(own) else ():
            value = own[column][0]
            if value is not None:
                reasons.append(Reason(column, f"{against_pool(value, rows[column].drop_nulls().to_numpy())} ({key})"))
    return Explanation("what was read of it", reasons[:n])


def against_pool(value: float, values: np.ndarray) -> str:
    """A number of a candidate, and which share of the pool's `(n_candidates,)` is no larger."""
    return f"{value:,.5g}: as large as or larger than that of {float(np.mean(values <= value)):.0%} of the pool"


def _numbers(key: str, inputs: ScoringInputs) -> pl.DataFrame:
    """`sample_id` and the columns of one number; of the pool, whose numbers are places in files, the length alone."""
    rows = inputs.frames[key]
    if key == CANDIDATES:
        messages = inputs.rows(key, "messages")
        lengths = values_of(
            len(inputs.sample_ids), messages, lambda block: block.select(n=N_CHARACTERS)["n"].to_numpy()
        )
        return pl.DataFrame({"sample_id": inputs.sample_ids, "characters": lengths.astype(np.int64)})
    schema = rows.columns if isinstance(rows, StoredRows) else rows.schema
    return inputs.of(key, "sample_id", *(name for name, kind in schema.items() if kind.is_numeric()))


def explained(method: Method, inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """Why a candidate scores as it does by a method: as the method explains it, or by the numbers that were read."""
    return (method.explain or of_numbers)(inputs, sample_id, target, n)
