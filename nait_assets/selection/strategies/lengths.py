"""The best rows at every length: a subset whose lengths are distributed as the pool's.

Scores of most methods rise or fall with length, and length alone is a strong baseline (arXiv 2503.01807, table 1). Of
subsets with the same lengths, what differs is what a method adds.
"""

import numpy as np


def length_matched(lengths: np.ndarray, n_bins: int, size: int) -> np.ndarray:
    """`(size,)` places: of every bin of lengths the best, in proportion to the bin's share of the pool.

    Bins end at quantiles of the lengths; equal lengths share a bin, so there can be fewer. After every row, bin b with
    share w_b holds less than one row more or fewer than w_b times the rows so far: each of its rows has a first and a
    last turn, and of those whose first turn has come the one with the earliest last turn is taken (Baruah and others,
    Algorithmica 15, 1996; one processor). Larger sizes continue smaller ones. Rounding each size by itself does not:
    with largest remainders a bin can lose a row as the subset grows.

    Cost: size x n_bins.

    Args:
        lengths: `(n,)`, of the candidates in the order of their ranks.
        n_bins: Largest number of bins.
        size: Number of rows to choose, at most n.
    """
    n = len(lengths)
    bins = _bins(lengths, n_bins)
    queues = [np.flatnonzero(bins == each) for each in np.unique(bins)]
    taken = [0] * len(queues)
    places = np.empty(size, dtype=np.int64)
    for turn in range(size):
        ready = [
            (-(-(taken[b] + 1) * n // len(queue)), b)  # the last turn, and the bin
            for b, queue in enumerate(queues)
            if taken[b] < len(queue) and taken[b] * n // len(queue) <= turn
        ]
        _, b = min(ready)
        places[turn] = queues[b][taken[b]]
        taken[b] += 1
    return places


def _bins(lengths: np.ndarray, n_bins: int) -> np.ndarray:
    """`(n,)` numbers of the bins, which end at the quantiles, each with its end."""
    ends = np.quantile(lengths, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
    return np.searchsorted(np.unique(ends), lengths, side="left")
