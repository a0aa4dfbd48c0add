"""The rows that stand for all others among the best."""

import heapq

import numpy as np

from nait_assets.selection.strategies.similarity import Ground

BLOCK = 256
AT_ONCE = 16
"""Old gains that are computed anew together: some in vain, and each for a fraction of the time."""
MOST_HELD = 16384
"""Candidates of which all cosines are held, 1 GiB; of more, a candidate's are computed when they are asked for."""


def facility_location(ground: Ground, size: int) -> np.ndarray:
    """`(size,)` places: greedily the greatest sum_i max_(j chosen) cos(i, j); ties go to the better rank.

    Facility location, a monotone submodular function (Mirchandani and Francis, 1990; for subsets of data Wei, Iyer and
    Bilmes, ICML 2015): the greedy choice reaches at least 1 - 1/e of the best (Nemhauser and others, 1978). A cosine
    under 0 counts as 0. Gains only shrink, so an old gain is a bound of the new one, and a candidate whose gain was
    just computed and is still the greatest is taken (Minoux, 1978): the same rows as by computing all of them.

    The ranking has its say in who is on the ground: the best `pool_factor` x k rows. So a smaller subset, whose ground
    is smaller, is in general no part of a larger one.

    Cost: n^2 cosines once, then a pass over n of them for each gain that is computed. By text, k = 2,600 of n = 7,800
    take 4 s of one CPU core and k = 5,200 of n = 15,600 16 s. Past `MOST_HELD`, memory stays and time
    is many times that.

    Args:
        ground: The n candidates in the order of their ranks.
        size: Number of rows to choose, at most n.
    """
    n = len(ground)
    held = np.empty((n, n), dtype=np.int32) if n <= MOST_HELD else None
    bounds: list[tuple[int, int, int]] = []  # less the gain, the place, and for how many chosen it was computed
    for start in range(0, n, BLOCK):
        block = ground.cosines(np.arange(start, min(start + BLOCK, n)))
        gains = np.maximum(block, 0).sum(axis=1, dtype=np.int64).tolist()
        bounds += [(-gain, place, 0) for place, gain in enumerate(gains, start)]
        if held is not None:
            held[start : start + len(block)] = block
    heapq.heapify(bounds)
    nearest, chosen = np.zeros(n, dtype=np.int32), list[int]()
    while len(chosen) < size:
        if bounds[0][2] == len(chosen):
            _, place, _ = heapq.heappop(bounds)
            chosen.append(place)
            nearest = np.maximum(nearest, ground.cosines([place])[0] if held is None else held[place])
            continue
        old = [heapq.heappop(bounds)[1] for _ in range(min(AT_ONCE, len(bounds))) if bounds[0][2] < len(chosen)]
        cosines = ground.cosines(old) if held is None else held[old]
        gains = np.maximum(cosines - nearest, 0).sum(axis=1, dtype=np.int64).tolist()
        for place, gain in zip(old, gains, strict=True):
            heapq.heappush(bounds, (-gain, place, len(chosen)))
    return np.asarray(chosen, dtype=np.int64)
