"""What is frozen: made once from a sample of the pool, and kept while the pool changes.

So what was read by it stays comparable, and a changed pool costs its changed rows. It is stale once most of that sample
has left the pool: what it knows is then of other texts than those that it is used on.
"""

from collections.abc import Collection, Sequence

LEAST_SHARE = 0.5
"""Of the sample still in the pool. Below a half, most of what was measured is of texts that are gone; a pool that
grows, or loses a part, keeps what it has. It is no result of a measurement."""


def share_left(sample_ids: Collection[str], pool: Collection[str]) -> float:
    """The share of a sample that is in the pool, in [0, 1]; 1 for one that is not known.

    Args:
        sample_ids: Ids of the sample.
        pool: Ids of the candidates.
    """
    return len(set(sample_ids) & set(pool)) / len(set(sample_ids)) if sample_ids else 1.0


def why_stale(sample_ids: Sequence[str], pool: Collection[str]) -> str:
    """Why what was made from a sample is stale, in a sentence; "" if it is not. Arguments as for `share_left`."""
    share = share_left(sample_ids, pool)
    if share >= LEAST_SHARE:
        return ""
    return (
        f"of the {len(sample_ids)} candidates that it was made from, {share:.0%} are still in the pool, "
        f"fewer than {LEAST_SHARE:.0%}"
    )
