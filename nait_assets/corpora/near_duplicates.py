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
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import regex  # type: ignore[import-untyped]

from nait_assets.corpora.contamination import ngram_hashes
from nait_assets.corpora.quality import WORD
from nait_assets.recipe import NearDuplicates
from nait_assets.resources.spooled_rows import PART_ROWS, SpooledRows

SIGN = regex.compile(r"[\p{Sm}%/&^]|(?<=[\p{L}\p{N})] ?)[-*](?= ?[\p{L}\p{N}(])")
"""What makes another sum or another line of code of the same words. A minus and a star are signs between two operands
alone: at the beginning of a line they are a list's, and around a word they make it bold."""
WORD_OR_SIGN = regex.compile(f"{WORD.pattern}|{SIGN.pattern}", regex.VERSION1)
MISSED = 0.002
"""Most pairs just at the threshold, as a share, that the bands may miss."""
REMEMBERED = 1024
"""Candidates whose n-grams are not taken from their texts again for every pair that they are compared in."""
BANDS_AT_ONCE = 4
SIGNED = pl.Schema({"sample_id": pl.String(), "question": pl.String(), "answer": pl.String(), "signature": pl.Binary()})
ANSWER = np.uint64(0xD6E8FEB86659FD93)
"""Times the hashes of an answer's n-grams: what is asked and what is answered are not the same set."""


def near_duplicates(
    candidates: Iterable[tuple[str, str, str]], options: NearDuplicates, folder: Path | None = None
) -> list[tuple[str, str, float]]:
    """Candidates that nearly repeat an earlier one that stays: their id, its id, and the similarity in (0, 1].

    The first of those that are near enough is named. Texts and signatures wait on disk, `num_permutations` x 4 bytes
    and the texts a candidate. Memory: 8 bytes a candidate for each of `BANDS_AT_ONCE`, and of those candidates that
    agree with another one in some band, texts, signature and 12 bytes a band; of the `REMEMBERED` that were compared
    last, their n-grams.

    Args:
        candidates: Id, question and answer of each, in the order in which the first is to stay.
        options: Threshold, n-gram and signature.
        folder: As for `SpooledRows`.
    """
    signed = _signed(candidates, options, folder)
    shared = _shared_bands(signed, *bands_of(options.jaccard_threshold, options.num_permutations))
    rows, signatures = _taken(signed, sorted(shared))
    # four standard deviations below the threshold: a pair that is estimated so low is not near
    variance = options.jaccard_threshold * (1 - options.jaccard_threshold) / options.num_permutations
    least = options.jaccard_threshold - 4 * math.sqrt(variance)

    @lru_cache(REMEMBERED)
    def grams_of(place: int) -> list[np.ndarray]:
        return [_grams(text, options.window_size) for text in rows[place][1:]]

    stay: dict[tuple[int, int], list[int]] = {}
    found = []
    for place, number in enumerate(sorted(shared)):
        keys = shared[number]
        others = np.asarray(sorted({other for key in keys for other in stay.get(key, ())}), np.int64)
        estimates = (signatures[others] == signatures[place]).mean(axis=1)
        near = others[estimates >= least].tolist()
        # the smaller one of question and answer
        similarities = ((other, min(map(jaccard, grams_of(place), grams_of(other)))) for other in near)
        first = next((pair for pair in similarities if pair[1] >= options.jaccard_threshold), None)
        if first is not None:
            found.append((rows[place][0], rows[first[0]][0], first[1]))
            continue
        for key in keys:
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


def _signed(candidates: Iterable[tuple[str, str, str]], options: NearDuplicates, folder: Path | None) -> SpooledRows:
    """The candidates with MinHash signatures of all their n-grams, those of the answers told apart.

    Where question and answer both reach a threshold, so does the set of all: it is a mean of the two, by their sizes.
    """
    from datasketch import MinHash  # half a second, for what of SciPy it imports

    empty = MinHash(num_perm=options.num_permutations, hashfunc=int)
    signed = SpooledRows(SIGNED, folder)
    waiting = iter(candidates)
    while rows := list(islice(waiting, PART_ROWS)):
        signatures = []
        for _, question, answer in rows:
            parts = _grams(question, options.window_size), _grams(answer, options.window_size) * ANSWER
            sketch = empty.copy()
            sketch.update_batch((np.concatenate(parts) >> np.uint64(32)).tolist())  # it takes hashes of 32 bits
            signatures.append(sketch.hashvalues.astype(np.uint32).tobytes())
        texts = pl.DataFrame(rows, ["sample_id", "question", "answer"], orient="row")
        signed.append(texts.with_columns(pl.Series("signature", signatures, pl.Binary)))
    return signed


def _numbers(part: pl.DataFrame) -> np.ndarray:
    """Signatures `(n, num_permutations)` of a part."""
    return np.frombuffer(b"".join(part["signature"].to_list()), np.uint32).reshape(len(part), -1)


def _shared_bands(signed: SpooledRows, n_bands: int, size: int) -> dict[int, list[tuple[int, int]]]:
    """Of the candidates that agree with another one in some band, by number: each such band, and the group there.

    A few bands at a time, and arrays of numbers instead of datasketch's index, which takes 20 times the memory for
    what has no partner.
    """
    shared: dict[int, list[tuple[int, int]]] = {}
    powers = np.cumprod(np.full(size, 0x9E3779B97F4A7C15, np.uint64))
    for begin in range(0, n_bands if len(signed) else 0, BANDS_AT_ONCE):
        bands = range(begin, min(begin + BANDS_AT_ONCE, n_bands))
        hashes = np.concatenate(
            [
                np.stack([(numbers[:, band * size : (band + 1) * size] * powers).sum(axis=1) for band in bands])
                for numbers in map(_numbers, signed.parts("signature"))
            ],
            axis=1,
        )
        for band, of_band in zip(bands, hashes, strict=True):
            _, group, counts = np.unique(of_band, return_inverse=True, return_counts=True)
            for number in np.flatnonzero(counts[group] > 1).tolist():
                shared.setdefault(number, []).append((band, int(group[number])))
    return shared


def _taken(signed: SpooledRows, wanted: Sequence[int]) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Id, question and answer, and `(n, num_permutations)` signatures, of some candidates in the order of numbers."""
    numbers, begin, parts = np.asarray(wanted, np.int64), 0, []
    for part in signed.parts():
        here = numbers[(numbers >= begin) & (numbers < begin + len(part))] - begin
        parts.append(part[here])
        begin += len(part)
    taken = pl.concat([SIGNED.to_frame(), *parts])
    rows = taken.select("sample_id", "question", "answer").rows()
    return rows, _numbers(taken) if rows else np.empty((0, 1), np.uint32)


def _grams(text: str, n: int) -> np.ndarray:
    """Hashes of a text's n-grams, sorted, each once; of a shorter text the one of all its words."""
    words = WORD_OR_SIGN.findall(text.casefold()) or text.split()
    return np.unique(ngram_hashes(words, min(n, max(1, len(words)))))
