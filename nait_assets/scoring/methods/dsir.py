"""DSIR: importance weights of hashed n-grams (Xie et al., arXiv 2302.03169, section 4; package `data-selection`).

Formula:
s(y) = sum over buckets b of c_b(y) log((p_target(b) + 1e-8) / (p_raw(b) + 1e-8))

c_b(y) counts y's words and pairs of words that a SHA-256 puts into bucket b of 10,000; p_target and p_raw are the
buckets' shares in the target's examples and in the pool. A word is a run of letters, digits and underscores, or of
other signs, in lower case. With `noise_seed`, Gumbel noise is added, which makes the best k a sample of k without
replacement, each drawn by its weight. As in the package, a target of several capabilities has the n-grams of all their
examples together: those with long examples decide.

Departures:
All rows have a score, where the package drops those below 100 words (`min_example_length`) without a word, which are
most instructions; p_raw is of the whole pool (the package stops at 1e9 n-grams). A draw's noise is of seed, target and
row, not of the order of rows.

Limits:
A log weight is a sum over n-grams, and grows in size with the text. Where most candidates are unlike the target, short
ones come first: in a pool of 2,200 rows with 64 examples a target, the rank correlation with length was -0.9.
`per_ngram` divides by the number of n-grams, which left -0.3 to 0.1 of it and found many more of the planted rows; the
published method does not divide. Of few examples, p_target is 0 in most buckets, each of which costs up to log 1e8.

Cost:
No model; 15 s of one core for 52,000 Alpaca rows.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import regex  # type: ignore[import-untyped]
from pydantic import Field

from nait_assets.recipe import CANDIDATES, EXAMPLES, Section
from nait_assets.scoring.method import Explanation, Method, Parts, Reason, ScoringInputs
from nait_assets.scoring.methods.random import uniform
from nait_assets.scoring.texts import TextPart, texts_of, texts_of_pool
from nait_assets.shown import figure

N_BUCKETS = 10_000
SMOOTHING = 1e-8
TOKEN = regex.compile(r"\w+|[^\w\s]+")
"""As NLTK has it since it left `re`, which cuts words at the vowel signs of Bengali, Telugu and Thai."""


class DsirOptions(Section):
    """Options of `dsir`."""

    text: TextPart = Field("conversation", description="Which part of candidates and in-domain examples is read.")
    noise_seed: int | None = Field(None, description="Seed of Gumbel noise, which samples by weight; none by default.")
    per_ngram: bool = Field(False, description="Divide a log weight by the candidate's number of n-grams.")


@lru_cache(maxsize=2**20)
def bucket(ngram: str) -> int:
    """The bucket of a word, or of two words with a space between them."""
    return int.from_bytes(hashlib.sha256(ngram.encode()).digest()) % N_BUCKETS


def ngrams_of(text: str) -> list[str]:
    """A text's words, and its pairs of words."""
    words = TOKEN.findall(text.lower())
    return [*words, *map(" ".join, pairwise(words))]


def buckets_of(text: str) -> list[int]:
    """The buckets of a text's words and of its pairs of words."""
    return [bucket(ngram) for ngram in ngrams_of(text)]


def counts_of(texts: Iterable[str]) -> Any:
    """`(n_texts, 10_000)` sparse counts of n-grams."""
    from scipy.sparse import csr_array

    found, ends = [np.empty(0, np.int32)], [0]
    for text in texts:
        found.append(np.asarray(buckets_of(text), np.int32))
        ends.append(ends[-1] + len(found[-1]))
    columns = np.concatenate(found)
    counts = csr_array((np.ones(len(columns), np.int64), columns, np.asarray(ends)), (len(ends) - 1, N_BUCKETS))
    counts.sum_duplicates()
    return counts


def log_ratio(target: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """`(10_000,)` log of how much more often each bucket is used in the target than in the pool.

    Args:
        target: `(10_000,)` counts in the target's examples.
        raw: `(10_000,)` counts in the pool.
    """
    return np.log(target / target.sum() + SMOOTHING) - np.log(raw / raw.sum() + SMOOTHING)


def gumbel(sample_ids: list[str], prefix: str) -> np.ndarray:
    """`(n_samples,)` Gumbel noise by the hash of the prefix and each `sample_id`."""
    return -np.log(-np.log(uniform(sample_ids, prefix) + 2.0**-49))  # half a step from 0, of which there is no log


def fit(inputs: ScoringInputs) -> Any:
    """`(n_candidates, 10_000)` sparse counts of the pool's n-grams."""
    return counts_of(texts_of_pool(inputs, inputs.options.text))


def _log_ratio(inputs: ScoringInputs, target: str) -> np.ndarray:
    """`(10_000,)` log ratios of a target."""
    frames = [inputs.of_capabilities(EXAMPLES)[name] for name in inputs.targets[target]]
    examples = sum(counts_of(texts_of(frame, inputs.options.text)).sum(axis=0) for frame in frames)
    return log_ratio(np.asarray(examples), inputs.fitted.sum(axis=0))


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` log importance weights."""
    options, pool, columns = inputs.options, inputs.fitted, []
    n_ngrams = pool.sum(axis=1)
    for target in inputs.targets:
        weights = pool @ _log_ratio(inputs, target)
        weights = weights / n_ngrams if options.per_ngram else weights
        if options.noise_seed is not None:
            weights = weights + gumbel(inputs.sample_ids, f"{options.noise_seed}:{target}")
        columns.append(weights)
    return np.stack(columns, axis=1)


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """What each word and pair of words adds to the score; an n-gram speaks with the voice of its whole bucket."""
    options, ratios = inputs.options, _log_ratio(inputs, target)
    (text,) = texts_of(inputs.only(sample_id).of(CANDIDATES), options.text)
    counts = Counter(ngrams_of(text))
    each = 1 / max(1, counts.total()) if options.per_ngram else 1.0
    shares = {repr(ngram): float(count * ratios[bucket(ngram)]) * each for ngram, count in counts.items()}
    order = sorted(shares, key=lambda name: -shares[name])
    ends = [*order[: -(-n // 2)], *order[-(n // 2) :]] if len(order) > n else order
    times = {repr(ngram): f"{count:,} x log ratio {ratios[bucket(ngram)]:+.2f}" for ngram, count in counts.items()}
    largest = max(map(abs, shares.values()), default=0.0)
    reasons = [Reason(name, f"{times[name]}, share {figure(shares[name], largest)}", shares[name]) for name in ends]
    if options.noise_seed is not None:
        noise = gumbel([sample_id], f"{options.noise_seed}:{target}")
        shares["noise of the draw"] = float(noise[0])
    divided = f"; all is divided by its {counts.total():,} n-grams" if options.per_ngram else ""
    heading = f"words and pairs of words that speak most for it, and most against{divided}"
    return Explanation(heading, reasons, [Parts("n-gram", shares)])


METHOD = Method(
    name="dsir",
    description="A control without a model: importance weights of hashed words and pairs of words, target over pool.",
    reads=(CANDIDATES, EXAMPLES),
    score=score,
    options=DsirOptions,
    by_target=True,
    fit=fit,
    explain=explain,
)
