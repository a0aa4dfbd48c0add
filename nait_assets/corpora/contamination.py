"""Contamination: candidates that leak an in-domain or a held-out example.

A candidate is contaminated if one of its messages shares n words in a row with a message of an example, or if its
user's words equal the example's. Thirteen words is the n of GPT-3 (arXiv 2005.14165, appendix C), whose words are
those of white space; here a word is a run of letters and digits, without case or punctuation, and, in scripts that put
no space between words, a single character.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import polars as pl

from nait_assets.tables import CONTAMINATED_CANDIDATES

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ffff"
"""Thai, Lao, Burmese, Khmer, kana, Chinese characters."""
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
EQUAL = "equal"


def words_of(text: str) -> list[str]:
    """The words of a text, without case, punctuation and variants of the same character."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Spoken:
    """The words of a conversation, by message; a system message is the template's, and left out.

    Args:
        messages: Messages of the conversation.
        n: Words in a row that are looked up.
    """

    def __init__(self, messages: Sequence[Mapping[str, str]], n: int):
        texts = [(message["role"], words_of(message["content"])) for message in messages if message["role"] != "system"]
        self.texts = [words for _, words in texts]
        self.instruction = tuple(word for role, words in texts if role == "user" for word in words)
        self.hashes = [ngram_hashes(words, n) for words in self.texts]


class Examples:
    """The examples of one corpus, to be looked up by their words.

    Args:
        frame: Columns `sample_id`, `messages`.
        n: Words in a row that count as shared.
    """

    def __init__(self, frame: pl.DataFrame, n: int):
        self.n = n
        self._rows = frame.select("sample_id", "messages").sort("sample_id").rows()
        self._instructions: dict[tuple[str, ...], str] = {}
        hashes_of_rows = []
        for sample_id, messages in self._rows:
            spoken = Spoken(messages, n)
            self._instructions.setdefault(spoken.instruction, sample_id)
            hashes_of_rows.append(np.concatenate([np.empty(0, np.uint64), *spoken.hashes]))
        hashes = np.concatenate([np.empty(0, np.uint64), *hashes_of_rows])
        order = np.argsort(hashes, kind="stable")  # so that the first of equal ones is of the smallest id
        self._hashes = hashes[order]
        lengths = [len(hashes) for hashes in hashes_of_rows]
        self._row_indices = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[order]

    def match(self, candidate: Spoken) -> tuple[str, str, str] | None:
        """The first example that a candidate leaks: its id, how, and the words that they share; else None."""
        if candidate.instruction and candidate.instruction in self._instructions:
            return self._instructions[candidate.instruction], EQUAL, " ".join(candidate.instruction)
        for words, hashes in zip(candidate.texts, candidate.hashes, strict=True):
            left, right = (np.searchsorted(self._hashes, hashes, side=side) for side in ("left", "right"))
            for begin in np.flatnonzero(right > left):
                shared = words[begin : begin + self.n]
                for index in self._row_indices[left[begin] : right[begin]]:
                    sample_id, messages = self._rows[index]
                    if any(shared in _ngrams(text, self.n) for text in Spoken(messages, self.n).texts):
                        return sample_id, f"{self.n}-gram", " ".join(shared)
        return None


def contaminated(pool: Iterable[pl.DataFrame], corpora: Mapping[str, pl.DataFrame], n: int) -> pl.DataFrame:
    """The candidates that leak an example, one row for each candidate and corpus.

    Args:
        pool: Parts of the pool, each with columns `sample_id`, `messages`.
        corpora: Examples by the corpus' name, with the same columns.
        n: Words in a row that count as shared.

    Returns:
        Columns of `tables.CONTAMINATED_CANDIDATES`, ordered by `sample_id` and `corpus`.
    """
    examples = {corpus: Examples(frame, n) for corpus, frame in sorted(corpora.items())}
    rows = []
    candidates = (row for part in pool for row in part.select("sample_id", "messages").iter_rows())
    for sample_id, messages in candidates:
        candidate = Spoken(messages, n)
        for corpus, known in examples.items():
            match = known.match(candidate)
            if match is not None:
                rows.append((sample_id, corpus, *match))
    return pl.DataFrame(rows, schema=CONTAMINATED_CANDIDATES.columns, orient="row").sort("sample_id", "corpus")


def _ngrams(words: Sequence[str], n: int) -> Iterator[Sequence[str]]:
    return (words[begin : begin + n] for begin in range(len(words) - n + 1))


def ngram_hashes(words: Sequence[str], n: int) -> np.ndarray:
    """One 64-bit hash for each n words in a row: the sum of the words' hashes times powers of an odd number."""
    if len(words) < n:
        return np.empty(0, np.uint64)
    powers = np.cumprod(np.full(n, 0x9E3779B97F4A7C15, np.uint64))
    hashes = np.frombuffer(b"".join(map(_word_hash, words)), np.uint64)
    return (np.lib.stride_tricks.sliding_window_view(hashes, n) * powers).sum(axis=1, dtype=np.uint64)


@lru_cache(maxsize=2**18)
def _word_hash(word: str) -> bytes:
    return hashlib.blake2b(word.encode(), digest_size=8).digest()
