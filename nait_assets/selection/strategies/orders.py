"""Strategies that order the candidates: a subset is the beginning of the order, so smaller ones lie in larger ones.

All take a ranking (columns `score`, `rank`, `turn`, `target_turn`, `whose_turn`, `best_rank`, best rank first) and
return `(n,)` indices into it. Cost: one sort. A candidate that may not be chosen, because it leaks an example or a
filter found it, is left out of the ranking: a capability takes its next row in the turn, an example loses it, and
the ranks that `union` looks at count it.
"""

import numpy as np
import polars as pl

LAST = np.iinfo(np.int64).max


def top(ranking: pl.DataFrame) -> np.ndarray:
    """`(n,)`: the highest scores first (NAIT, arXiv 2603.13201, eq. 6)."""
    return np.arange(len(ranking))


def round_robin_examples(ranking: pl.DataFrame) -> np.ndarray:
    """`(n,)`: the target's in-domain examples take turns, each its best not yet taken (RDS+, arXiv 2503.01807).

    With the maximum or the mean over examples a few of them decide. For a method without scores by example the target
    is one query, and the order is that of the ranks.
    """
    return _by("turn", ranking)


def round_robin_targets(ranking: pl.DataFrame) -> np.ndarray:
    """`(n,)`: for `all`, the capabilities take turns, each its best not yet taken; of one capability, the ranks.

    Each capability gets as many rows as the others, whatever the scale of its scores, and however many of the rows
    that it would have taken may not be chosen.
    """
    number = pl.col("target_turn").rank("ordinal").over("whose_turn").cast(pl.Int64)
    rounds = ranking.select("target_turn", round=number)
    order = [rounds[column].fill_null(LAST).to_numpy() for column in ("target_turn", "round")]
    return np.lexsort(order)  # by the round, in a round by the turn; what has none, by rank, as equal keys keep places


def union(ranking: pl.DataFrame) -> np.ndarray:
    """`(n,)`: for `all`, by the best rank over the capabilities, ties by the rank in `all`; of one, the ranks.

    Takes each capability's top d, with the smallest d that yields k rows; among the d-th ones, those that `all` ranks
    best. A row that is in the top d of several capabilities counts once.
    """
    return _by("best_rank", ranking)


def median(ranking: pl.DataFrame) -> np.ndarray:
    """`(n,)`: nearest to the median score first, ties by rank (NGFT, arXiv 2609.05913, takes the slice at the median).

    For methods whose highest scores are unusual rows rather than good ones.
    """
    scores = ranking["score"].to_numpy()
    return np.argsort(np.abs(scores - np.median(scores)), kind="stable")


def _by(column: str, ranking: pl.DataFrame) -> np.ndarray:
    """Indices in the order of a column, then of the rank; nulls last, so that all nulls give the order of ranks."""
    values = ranking[column].fill_null(LAST).to_numpy()
    return np.argsort(values, kind="stable")
