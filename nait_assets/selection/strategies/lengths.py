"""The best rows at every length: a subset whose lengths are distributed as the pool's.

Scores of most methods rise or fall with length, and length alone is a strong baseline (arXiv 2503.01807, table 1). Of
subsets with the same lengths, what differs is what a method adds.
"""

import numpy as np


def length_matched(lengths: np.ndarray, n_bins: int, size: int) -> np.ndarray:
    """`(size,)` indices: the best candidates of every bin of lengths, in proportion to the bin's share of the pool.

    Bins end at quantiles of the lengths; equal lengths share a bin, so there can be fewer than `n_bins`. Rows are taken
    earliest deadline first, as in Pfair scheduling (Baruah and others, Algorithmica 15, 1996; one processor): row i of
    bin b, whose share of the pool is w_b, is released at step floor(i / w_b) and due at step ceil((i + 1) / w_b). So
    after every step bin b has less than one row more or fewer than w_b times the rows so far, and larger subsets
    continue smaller ones. Rounding each size by itself does not: with largest remainders a bin can lose a row as the
    subset grows.

    Cost: size x n_bins.

    Args:
        lengths: `(n,)`, of the candidates in the order of their ranks.
        n_bins: Largest number of bins.
        size: Number of rows to choose, at most n.
    """
    n = len(lengths)
    bins = bins_of(lengths, n_bins)
    queues = [np.flatnonzero(bins == each) for each in np.unique(bins)]
    taken = [0] * len(queues)
    indices = np.empty(size, dtype=np.int64)
    for step in range(size):
        released = [
            (-(-(taken[b] + 1) * n // len(queue)), b)  # when it is due, and the bin
            for b, queue in enumerate(queues)
            if taken[b] < len(queue) and taken[b] * n // len(queue) <= step
        ]
        _, b = min(released)
        indices[step] = queues[b][taken[b]]
        taken[b] += 1
    return indices


def bins_of(lengths: np.ndarray, n_bins: int) -> np.ndarray:
    """`(n,)` number of the bin of each length; a bin includes the quantile that it ends at."""
    places = -(-np.arange(1, n_bins) * len(lengths) // n_bins) - 1  # exact: of floats, some are a row further on
    ends = np.sort(lengths)[np.maximum(places, 0)]
    return np.searchsorted(np.unique(ends), lengths, side="left")
