"""Near duplicates: candidates that say nearly the same as an earlier candidate.

Two candidates are near duplicates if what is asked and what is answered both share most of their n-grams of words: the
Jaccard similarity, the number of n-grams in common by that of all n-grams of the two, reaches the threshold for either.
Asked alike is not enough (a passage with another question about it), nor is answered alike ("Yes.").

MinHash signatures (Broder 1997, by datasketch) that agree in a band of their numbers show the pairs that may be near;
each is then compared exactly. Candidates are taken in the order of their sources: one is left out if it is near to an
earlier one that stays. So no chain of small differences joins what is not alike, and the first of a group always stays.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import regex  # type: ignore[import-untyped]

from nait_assets.corpora.contamination import ngram_hashes
from nait_assets.corpora.quality import WORD
from nait_assets.recipe import NearDuplicates

SIGN = regex.compile(r"[\p{Sm}%/&^]|(?<=[\p{L}\p{N})] ?)[-*](?= ?[\p{L}\p{N}(])")
"""What makes another sum or another line of code of the same words. A minus and a star are signs between two operands
alone: at the beginning of a line they are a list's, and around a word they make it bold."""
WORD_OR_SIGN = regex.compile(f"{WORD.pattern}|{SIGN.pattern}", regex.VERSION1)
MISSED = 0.002
"""Most pairs just at the threshold, as a share, that the bands may miss."""
REMEMBERED = 1024
"""Candidates whose n-grams are not taken from their texts again for every pair that they are compared in."""
ANSWER = np.uint64(0xD6E8FEB86659FD93)
"""Times the hashes of an answer's n-grams: what is asked and what is answered are not the same set."""


def near_duplicates(
    candidates: Iterable[tuple[str, str, str]], options: NearDuplicates
) -> list[tuple[str, str, float]]:
    """Candidates that nearly repeat an earlier one that stays: their id, its id, and the similarity in (0, 1].

    The first of those that are near enough is named. Memory: for each candidate its two texts, a signature of
    `num_permutations` x 4 bytes, and 4 bytes a band; of the `REMEMBERED` that were compared last, their n-grams.

    Args:
        candidates: Id, question and answer of each, in the order in which the first is to stay.
        options: Threshold, n-gram and signature.
    """
    rows = list(candidates)
    signatures = _signatures(rows, options)
    groups = _groups(signatures, *bands_of(options.jaccard_threshold, options.num_permutations))
    # four standard deviations below the threshold: a pair that is estimated so low is not near
    variance = options.jaccard_threshold * (1 - options.jaccard_threshold) / options.num_permutations
    least = options.jaccard_threshold - 4 * math.sqrt(variance)

    @lru_cache(REMEMBERED)
    def grams_of(place: int) -> list[np.ndarray]:
        return [_grams(text, options.window_size) for text in rows[place][1:]]

    stay: dict[tuple[int, int], list[int]] = {}
    found = []
    for place, (sample_id, _, _) in enumerate(rows):
        shared = [(band, int(group)) for band, group in enumerate(groups[place]) if group >= 0]
        others = np.asarray(sorted({other for key in shared for other in stay.get(key, ())}), np.int64)
        estimates = (signatures[others] == signatures[place]).mean(axis=1)
        near = others[estimates >= least].tolist()
        # the smaller one of question and answer
        similarities = ((other, min(map(jaccard, grams_of(place), grams_of(other)))) for other in near)
        first = next((pair for pair in similarities if pair[1] >= options.jaccard_threshold), None)
        if first is not None:
            found.append((sample_id, rows[first[0]][0], first[1]))
            continue
        for key in shared:
            stay.setdefault(key, []).append(place)
    return found


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of two sets of hashes, `(n,)` and `(m,)`, each without repetitions; 1 if both are empty."""
    n_shared = len(np.intersect1d(one, other, assume_unique=True))
    n_all = len(one) + len(other) - n_shared
    return n_shared / n_all if n_all else 1.0


def bands_of(threshold: float, num_permutations: int) -> tuple[int, int]:
    """Bands of a signature and hashes in each, the most hashes of which at most `MISSED` of the pairs are missed.

    Pairs of Jaccard similarity s agree in some band with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, section 3.4.2). Few pairs are compared in vain where r is large.
    """
    fitting = [
        (num_permutations // size, size)
        for size in range(1, num_permutations // 2 + 1)
        if (1 - threshold**size) ** (num_permutations // size) <= MISSED
    ]
    return fitting[-1] if fitting else (num_permutations, 1)


def _signatures(rows: Sequence[tuple[str, str, str]], options: NearDuplicates) -> np.ndarray:
    """MinHash signatures `(n, num_permutations)` of all n-grams of each candidate, those of the answers told apart.

    Where question and answer both reach a threshold, so does the set of all: it is a mean of the two, by their sizes.
    """
    from datasketch import MinHash  # half a second, for what of SciPy it imports

    empty = MinHash(num_perm=options.num_permutations, hashfunc=int)
    signatures = np.empty((len(rows), options.num_permutations), np.uint32)
    for place, (_, question, answer) in enumerate(rows):
        grams = np.concatenate([_grams(question, options.window_size), _grams(answer, options.window_size) * ANSWER])
        sketch = empty.copy()
        sketch.update_batch((grams >> np.uint64(32)).tolist())  # it takes hashes of 32 bits
        signatures[place] = sketch.hashvalues
    return signatures


def _groups(signatures: np.ndarray, n_bands: int, size: int) -> np.ndarray:
    """`(n, n_bands)`: by band, the number of the group whose signatures agree there; -1 for one that is alone.

    Two arrays of numbers instead of datasketch's index, which takes 20 times the memory for what has no partner.
    """
    groups = np.full((len(signatures), n_bands), -1, np.int32)
    powers = np.cumprod(np.full(size, 0x9E3779B97F4A7C15, np.uint64))
    for band in range(n_bands):
        part = signatures[:, band * size : (band + 1) * size]
        _, group, counts = np.unique((part * powers).sum(axis=1), return_inverse=True, return_counts=True)
        shared = counts[group] > 1
        groups[shared, band] = group[shared]
    return groups


def _grams(text: str, n: int) -> np.ndarray:
    """Hashes of a text's n-grams, sorted, each once; of a shorter text the one of all its words."""
    words = WORD_OR_SIGN.findall(text.casefold()) or text.split()
    return np.unique(ngram_hashes(words, min(n, max(1, len(words)))))
