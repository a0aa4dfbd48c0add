"""The rows that stand for all others among the best."""

import heapq

import numpy as np

from nait_assets.selection.strategies.similarity import Ground

BLOCK = 256
MOST_HELD = 8192
"""Candidates of which all cosines are held, 256 MiB; of more, a candidate's are computed when they are asked for."""


def facility_location(ground: Ground, size: int) -> np.ndarray:
    """`(size,)` places: greedily the greatest sum_i max_(j chosen) cos(i, j); ties go to the better rank.

    Facility location, a monotone submodular function (Mirchandani and Francis, 1990; for subsets of data Wei, Iyer and
    Bilmes, ICML 2015): the greedy choice reaches at least 1 - 1/e of the best (Nemhauser and others, 1978). A cosine
    under 0 counts as 0. Gains only shrink, so an old gain is a bound of the new one, and a candidate whose gain was
    just computed and is still the greatest is taken (Minoux, 1978): the same rows as by computing all of them.

    The ranking has its say in who is on the ground: the best `pool_factor` x k rows. So a smaller subset, whose ground
    is smaller, is in general no part of a larger one.

    Cost: n^2 cosines once, then those of one candidate with all for each gain that is computed; time grows with n^2.

    Args:
        ground: The n candidates in the order of their ranks.
        size: At most n.
    """
    n = len(ground)
    held = ground.cosines(np.arange(n)) if n <= MOST_HELD else None

    def cosines(place: int) -> np.ndarray:
        return ground.cosines([place])[0] if held is None else held[place]

    bounds = [(-int(gain), place, 0) for place, gain in enumerate(_first_gains(ground))]
    heapq.heapify(bounds)
    nearest, chosen = np.zeros(n, dtype=np.int64), list[int]()
    while len(chosen) < size:
        _, place, n_chosen = heapq.heappop(bounds)
        if n_chosen == len(chosen):
            chosen.append(place)
            nearest = np.maximum(nearest, cosines(place))
        else:
            gain = np.maximum(cosines(place) - nearest, 0).sum()
            heapq.heappush(bounds, (-int(gain), place, len(chosen)))
    return np.asarray(chosen, dtype=np.int64)


def _first_gains(ground: Ground) -> np.ndarray:
    """`(n,)` sums of each candidate's cosines with all."""
    starts = range(0, len(ground), BLOCK)
    blocks = (ground.cosines(np.arange(start, min(start + BLOCK, len(ground)))) for start in starts)
    return np.concatenate([np.maximum(block, 0).sum(axis=1, dtype=np.int64) for block in blocks])
