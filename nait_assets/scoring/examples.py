"""How a method that compares rows of candidates with rows of examples scores them, a block after the other.

Belongs here: the loop that such methods share. Does not belong here: how a block is compared, which is the method.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from nait_assets.scoring.by_example import ExampleScores
from nait_assets.scoring.method import Scores, ScoringInputs

Compare = Callable[[pl.DataFrame], tuple[np.ndarray, Mapping[str, np.ndarray]]]
"""From n rows of candidates to their scores `(n, n_targets)`, and by capability to those by example `(n, n_examples)`.

A capability's examples stand in the order of their `sample_id`. A row's scores depend on no other row.
"""


def scored_by_example(
    inputs: ScoringInputs, key: str, columns: Sequence[str], sizes: Mapping[str, int], compare: Compare
) -> Scores:
    """Scores of all candidates, and those by example, without more than a block of their rows in memory.

    Args:
        inputs: Those of the method.
        key: Key of the output about candidates.
        columns: Columns of it that are compared.
        sizes: Number of examples by capability.
        compare: Function that scores a block.
    """
    n_candidates = len(inputs.sample_ids)
    values = np.full((n_candidates, len(inputs.targets)), np.nan)
    by_example = ExampleScores(n_candidates, sizes, inputs.scratch)
    for places, rows in inputs.rows(key, *columns):
        values[places], of_examples = compare(rows)
        by_example.put(places, of_examples)
    return Scores(values, by_example=by_example.by_target(inputs.targets))
