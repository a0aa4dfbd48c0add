"""Simple bounds that a candidate has to keep: length, characters, repetition, a pattern.

They are those rules for web text that make sense of an instruction and its answer: lengths in words, the share of
letters and digits, and characters in repeated n-grams (Gopher, arXiv 2112.11446, section A.1). Nobody guesses here what
a refusal looks like: `answer_pattern` says it, or nothing does.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import regex  # type: ignore[import-untyped]

from nait_assets.corpora.contamination import UNSPACED
from nait_assets.errors import RecipeError
from nait_assets.recipe import Quality

WORD = regex.compile(rf"[{UNSPACED}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.VERSION1)
"""A run of letters with their marks and digits; in scripts that put no space between words, a character. The words of
`contamination` end at a mark, such as a vowel sign of Hindi: fit to find what two texts share, not to be counted."""
ALPHANUMERIC = regex.compile(r"[\p{L}\p{M}\p{N}]")
BLANK = regex.compile(r"\s")
PATTERN_SECONDS = 1.0
"""After which a pattern that a text leads astray is given up."""


@dataclass(frozen=True)
class Said:
    """What a candidate asks and answers.

    Attributes:
        question: Messages of users and tools, normalised (Unicode NFKC), joined by line feeds.
        answers: Those of assistants.
    """

    question: str
    answers: tuple[str, ...]

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, str]]) -> "Said":
        """What messages say; a system message is the template's, and left out."""
        texts = [(message["role"], unicodedata.normalize("NFKC", message["content"])) for message in messages]
        asked = "\n".join(text for role, text in texts if role in ("user", "tool"))
        return cls(asked, tuple(text for role, text in texts if role == "assistant"))

    @property
    def answer(self) -> str:
        """The answers, joined by line feeds."""
        return "\n".join(self.answers)

    @cached_property
    def question_words(self) -> list[str]:
        """Words of what is asked."""
        return WORD.findall(self.question)

    @cached_property
    def answer_words(self) -> list[str]:
        """Words of the answers."""
        return WORD.findall(self.answer)


@dataclass(frozen=True)
class Finding:
    """What a filter found in a candidate.

    Attributes:
        filter: Name of the filter in the recipe.
        value: What was measured.
        reason: Why the candidate may not be chosen.
    """

    filter: str
    value: float
    reason: str


def first_finding(said: Said, bounds: Quality) -> Finding | None:
    """The first bound that a candidate does not keep, in the order of `Quality.named`; None if it keeps all.

    Raises:
        RecipeError: The pattern takes too long on an answer.
    """
    for name in bounds.named():
        bound = getattr(bounds, name)
        value, says = MEASURES[name](said, bounds)
        outside = value < bound if name.startswith("min_") else value > bound if name.startswith("max_") else value > 0
        if outside:
            of = "" if name == "answer_pattern" else f", and {name} is {bound:g}"
            return Finding(name, value, f"{says}{of}")
    return None


def alphanumeric_ratio(text: str) -> float:
    """Share of letters, their marks and digits among the characters but white space; 1 of no characters."""
    n_characters = len(BLANK.sub("", text))
    return len(ALPHANUMERIC.findall(text)) / n_characters if n_characters else 1.0


def repetition_ratio(words: list[str], n: int) -> float:
    """Share of the words' characters that stand in an n-gram which was said before; 0 of fewer than n words.

    No character is counted twice, and the first time that something is said is no repetition.
    """
    seen, repeated = set[tuple[str, ...]](), set[int]()
    for begin in range(len(words) - n + 1):
        gram = tuple(word.casefold() for word in words[begin : begin + n])
        if gram in seen:
            repeated.update(range(begin, begin + n))
        seen.add(gram)
    n_characters = sum(map(len, words))
    return sum(len(words[place]) for place in repeated) / n_characters if n_characters else 0.0


def _n_words(part: str) -> Callable[[Said, Quality], tuple[float, str]]:
    def measure(said: Said, _: Quality) -> tuple[float, str]:
        n_words = len(getattr(said, f"{part}_words"))
        return n_words, f"the {part} has {n_words} words"

    return measure


def _alphanumeric(said: Said, _: Quality) -> tuple[float, str]:
    ratio = alphanumeric_ratio(said.answer)
    return ratio, f"a share of {ratio:.2f} of the answer's characters are letters or digits"


def _repetition(said: Said, bounds: Quality) -> tuple[float, str]:
    ratio = repetition_ratio(said.answer_words, bounds.repetition_window)
    return ratio, f"a share of {ratio:.2f} of the answer's characters repeat {bounds.repetition_window} words"


def _pattern(said: Said, bounds: Quality) -> tuple[float, str]:
    assert bounds.answer_pattern is not None
    try:
        found = any(regex.search(bounds.answer_pattern, answer, timeout=PATTERN_SECONDS) for answer in said.answers)
    except TimeoutError as error:
        raise RecipeError(
            f"filters.quality.answer_pattern: {bounds.answer_pattern!r} takes more than {PATTERN_SECONDS:g} s on one "
            "answer. A pattern that can match a text in one way only, unlike `(a|aa)+`, does not."
        ) from error
    return float(found), f"an answer matches {bounds.answer_pattern!r}"


MEASURES: Mapping[str, Callable[[Said, Quality], tuple[float, str]]] = {
    "min_question_words": _n_words("question"),
    "max_question_words": _n_words("question"),
    "min_answer_words": _n_words("answer"),
    "max_answer_words": _n_words("answer"),
    "min_alphanumeric_ratio": _alphanumeric,
    "max_repetition_ratio": _repetition,
    "answer_pattern": _pattern,
}
"""By filter, from a candidate to what is measured, and to how that is said."""
