"""From scores to ranks, and the orders in which examples or capabilities take turns.

Belongs here: arithmetic on arrays of scores. Does not belong here: what a method is (`method`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from nait_assets.scoring.by_example import ByExample, Scratch

WINDOW = 1024
"""Candidates of an example's order that are read at once."""


def ranked(
    sample_ids: list[str],
    scores: np.ndarray,
    reasons: Mapping[str, str] | None = None,
    by_example: np.ndarray | ByExample | None = None,
    by_capability: Mapping[str, np.ndarray] | None = None,
) -> pl.DataFrame:
    """Scores with their ranks: 1 is the best, ties go to the smaller `sample_id`.

    Args:
        sample_ids: Distinct.
        scores: `(n_candidates,)`, in their order; NaN for those that have a reason.
        reasons: Why some candidates have no score; those that are not among `sample_ids` are added.
        by_example: `(n_candidates, n_examples)`, from which the turns come.
        by_capability: `(n_candidates,)` scores of each capability, in the order of turns, of the comprehensive target.

    Returns:
        Columns `sample_id`, `score`, `rank`, `turn`, `target_turn`, `whose_turn`, `best_rank`, `reason`, best first,
        and at the end those without a score.

    Raises:
        ValueError: A score is NaN or infinite, without a reason.
    """
    reasons = reasons or {}
    scores = np.asarray(scores, dtype=np.float64)
    scored = np.asarray([name not in reasons for name in sample_ids], dtype=bool)
    broken = [sample_ids[place] for place in np.flatnonzero(~np.isfinite(scores) & scored)[:10]]
    if broken:
        raise ValueError(f"scores are NaN or infinite for sample(s) {', '.join(broken)}")
    names = [sample_ids[place] for place in np.flatnonzero(scored)]
    capabilities = list(by_capability or ())
    own = np.column_stack(list(by_capability.values()))[scored] if by_capability else None
    turns = None if own is None else round_robin(names, own)
    orders = {
        "turn": None if by_example is None else round_robin(names, by_example[scored]),
        "target_turn": turns,
        "whose_turn": None if turns is None else [capabilities[(turn - 1) % len(capabilities)] for turn in turns],
        "best_rank": None if own is None else best_ranks(names, own),
    }
    columns = dict.fromkeys(orders, pl.Int64()) | {"whose_turn": pl.String()}
    frame = pl.DataFrame(
        {"sample_id": names, "score": scores[scored], **orders},
        schema={"sample_id": pl.String(), "score": pl.Float64(), **columns},
    )
    frame = frame.sort(["score", "sample_id"], descending=[True, False]).select(
        "sample_id",
        "score",
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("rank"),
        *orders,
        pl.lit(None, pl.String).alias("reason"),
    )
    without = pl.DataFrame(sorted(reasons.items()), {"sample_id": pl.String, "reason": pl.String}, orient="row")
    return pl.concat([frame, without], how="diagonal")


def round_robin(sample_ids: Sequence[str], by_example: np.ndarray | ByExample) -> np.ndarray:
    """`(n_candidates,)` turns from 1: the examples, one after the other, each take the best candidate still there.

    The order in which RDS+ chooses (arXiv 2503.01807, section 3); ties go to the smaller `sample_id`. In memory are one
    example's scores at a time and `WINDOW` candidates of the order of each, the orders as `Scratch`.

    Args:
        sample_ids: Ids of the candidates.
        by_example: `(n_candidates, n_examples)` scores, finite.
    """
    n, n_examples, by_name = len(sample_ids), by_example.shape[1], _by_name(sample_ids)
    orders = Scratch(n_examples, n, np.int32, by_example.folder if isinstance(by_example, ByExample) else None)
    for place in range(n_examples):
        column = by_example.column(place) if isinstance(by_example, ByExample) else by_example[:, place]
        orders.write(place, by_name[np.argsort(-column[by_name], kind="stable")])
    turns = np.zeros(n, dtype=np.int64)
    queues = [_Queue(orders, place, turns) for place in range(n_examples)]
    for turn in range(n):
        turns[queues[turn % n_examples].best()] = turn + 1
    return turns


class _Queue:
    """An example's candidates, the best first; those that have a turn are passed over."""

    def __init__(self, orders: Scratch, place: int, turns: np.ndarray):
        self._orders, self._place, self._turns = orders, place, turns
        self._n_read, self._waiting = 0, list[int]()

    def best(self) -> int:
        """The best candidate without a turn; there is one."""
        while True:
            while self._waiting:
                candidate = self._waiting.pop()
                if not self._turns[candidate]:
                    return candidate
            window = self._orders.read(self._place, self._n_read, self._n_read + WINDOW)
            self._n_read += WINDOW
            self._waiting = window[self._turns[window] == 0][::-1].tolist()


def best_ranks(sample_ids: Sequence[str], by_capability: np.ndarray) -> np.ndarray:
    """`(n_candidates,)`: the best of a candidate's ranks, from 1, in the columns; ties go to the smaller `sample_id`.

    Args:
        sample_ids: Ids of the candidates.
        by_capability: `(n_candidates, n_capabilities)` scores, finite.
    """
    return 1 + np.argsort(_best_first(sample_ids, by_capability), axis=0).min(axis=1)


def _best_first(sample_ids: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Places of the candidates by column, `(n_candidates, n_columns)`, best first."""
    by_name = _by_name(sample_ids)
    return by_name[np.argsort(-scores[by_name], axis=0, kind="stable")]


def _by_name(sample_ids: Sequence[str]) -> np.ndarray:
    """Places of the candidates in ascending order of their ids."""
    return np.asarray(sorted(range(len(sample_ids)), key=sample_ids.__getitem__), dtype=np.int32)


def stacked(vectors: Sequence[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Vectors of several targets, by layer `(width,)`, as one matrix for each layer, `(n_targets, width)`."""
    return {layer: np.stack([by_layer[layer] for by_layer in vectors]) for layer in vectors[0]}


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """`(n, 2)` rows and columns of the largest of `(n_rows, n_columns)` values, the largest first."""
    order = np.argsort(-values, axis=None, kind="stable")[:n]
    return np.stack(np.unravel_index(order, values.shape), axis=1)
