"""Bounds on questions and answers: each by the numbers that it is about, in any script."""

import pytest

from nait_assets.corpora.quality import Said, alphanumeric_ratio, first_finding, repetition_ratio
from nait_assets.errors import RecipeError
from nait_assets.recipe import Quality

SAID = Said("How many of them are there?", ("There are three, as far as I can see.",))


@pytest.mark.parametrize(
    ("bounds", "value"),
    [
        ({"min_question_words": 6}, None),
        ({"min_question_words": 7}, 6),
        ({"max_question_words": 5}, 6),
        ({"min_answer_words": 10}, 9),
        ({"max_answer_words": 9}, None),
        ({"max_answer_words": 8}, 9),
        ({"min_alphanumeric_ratio": 0.95}, 27 / 29),
        ({"answer_pattern": r"(?i)as far as i can (see|tell)"}, 1),
        ({"answer_pattern": "^How"}, None),
        ({"max_answer_words": 8, "min_question_words": 7}, 6),
    ],
)
def test_a_bound_finds_what_lies_outside_it(bounds: dict[str, float], value: float | None) -> None:
    """The bound itself is inside; of several the first one named in the documentation speaks."""
    finding = first_finding(SAID, Quality.model_validate(bounds))
    assert (None if finding is None else finding.value) == (None if value is None else pytest.approx(value))


def test_the_reason_says_what_was_measured_and_the_bound() -> None:
    """Whoever misses a row changes the recipe by it."""
    finding = first_finding(SAID, Quality(min_answer_words=10))
    assert finding is not None
    assert finding.reason == "the answer has 9 words, and min_answer_words is 10"


@pytest.mark.parametrize(
    ("text", "n_words"), [("हिन्दी में लिखो", 3), ("用中文写", 4), ("don't", 2), ("한국어로 써", 2), ("🙂", 0), ("", 0)]
)
def test_words_are_counted_in_every_script(text: str, n_words: int) -> None:
    """Vowel signs belong to their word; where no space stands between words, a character is one."""
    assert len(Said("", (text,)).answer_words) == n_words


def test_marks_of_letters_are_no_symbols() -> None:
    """Half of a Hindi text would be symbols, and the text be left out."""
    assert alphanumeric_ratio("हिन्दी में लिखो") == 1.0
    assert alphanumeric_ratio("") == 1.0
    assert alphanumeric_ratio("a b\n**") == 0.5


def test_repetition_counts_each_character_of_what_was_said_before_once() -> None:
    """Gopher's rule: overlapping n-grams share characters, and the first time is no repetition."""
    assert repetition_ratio(["aa", "bb", "cc", "aa", "bb", "cc"], 2) == pytest.approx(0.5)
    assert repetition_ratio(["aa", "bb", "cc"], 2) == 0
    assert repetition_ratio(["a"] * 10, 2) == pytest.approx(0.9)
    assert repetition_ratio([], 2) == 0
    assert first_finding(Said("", ("no " * 10,)), Quality(max_repetition_ratio=0.5)) is not None


def test_a_pattern_looks_at_each_answer_by_itself() -> None:
    """`^` is the beginning of an answer, also of the second."""
    several = Said("", ("Here it is.", "Sorry, no."))
    assert first_finding(several, Quality(answer_pattern="^Sorry")) is not None


def test_a_pattern_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer must not hold up a run for ever."""
    monkeypatch.setattr("nait_assets.corpora.quality.PATTERN_SECONDS", 0.05)
    with pytest.raises(RecipeError, match=r"answer_pattern.*on one answer"):
        first_finding(Said("", ("a" * 200 + "b",)), Quality(answer_pattern="(?:a|aa)+$"))
