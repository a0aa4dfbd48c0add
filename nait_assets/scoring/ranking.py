"""From scores to ranks, and the orders in which examples or capabilities take turns.

Belongs here: arithmetic on arrays of scores. Does not belong here: what a method is (`method`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl


def ranked(
    sample_ids: list[str],
    scores: np.ndarray,
    reasons: Mapping[str, str] | None = None,
    by_example: np.ndarray | None = None,
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


def round_robin(sample_ids: Sequence[str], by_example: np.ndarray) -> np.ndarray:
    """`(n_candidates,)` turns from 1: the examples, one after the other, each take the best candidate still there.

    The order in which RDS+ chooses (arXiv 2503.01807, section 3); ties go to the smaller `sample_id`.

    Args:
        sample_ids: Ids of the candidates.
        by_example: `(n_candidates, n_examples)` scores, finite.
    """
    order = _best_first(sample_ids, by_example)
    turns = np.zeros(len(sample_ids), dtype=np.int64)
    next_place = np.zeros(by_example.shape[1], dtype=np.int64)
    for turn in range(1, len(sample_ids) + 1):
        example = (turn - 1) % by_example.shape[1]
        while turns[order[next_place[example], example]]:
            next_place[example] += 1
        turns[order[next_place[example], example]] = turn
    return turns


def by_turns(parts: Sequence[np.ndarray]) -> np.ndarray:
    """`(n_candidates, n_examples)` of several capabilities: the first example of each, then the second of each.

    A small round robin of the comprehensive target then has a part of every capability.

    Args:
        parts: `(n_candidates, n_examples)` of each capability, its examples in the order of their `sample_id`.
    """
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([np.arange(part.shape[1]) for part in parts]), kind="stable")
    return np.concatenate(parts, axis=1)[:, order]


def best_ranks(sample_ids: Sequence[str], by_capability: np.ndarray) -> np.ndarray:
    """`(n_candidates,)`: the best of a candidate's ranks, from 1, in the columns; ties go to the smaller `sample_id`.

    Args:
        sample_ids: Ids of the candidates.
        by_capability: `(n_candidates, n_capabilities)` scores, finite.
    """
    return 1 + np.argsort(_best_first(sample_ids, by_capability), axis=0).min(axis=1)


def _best_first(sample_ids: Sequence[str], scores: np.ndarray) -> np.ndarray:
    """Places of the candidates by column, `(n_candidates, n_columns)`, best first."""
    by_name = np.argsort(np.asarray(sample_ids))
    return by_name[np.argsort(-scores[by_name], axis=0, kind="stable")]


def stacked(vectors: Sequence[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Vectors of several targets, by layer `(width,)`, as one matrix for each layer, `(n_targets, width)`."""
    return {layer: np.stack([by_layer[layer] for by_layer in vectors]) for layer in vectors[0]}


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """`(n, 2)` rows and columns of the largest of `(n_rows, n_columns)` values, the largest first."""
    order = np.argsort(-values, axis=None, kind="stable")[:n]
    return np.stack(np.unravel_index(order, values.shape), axis=1)
