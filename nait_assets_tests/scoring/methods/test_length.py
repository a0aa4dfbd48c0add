"""Length: characters, of what is said to be counted."""

import numpy as np
import pytest

from nait_assets.scoring.methods.length import LONG, SHORT, LengthLongOptions, LengthShortOptions
from nait_assets.scoring.texts import TextPart
from nait_assets_tests.scoring.methods.small_texts import frame, inputs

ROWS = [("a long question indeed", "two"), ("q", "an answer"), ("q", "猫猫")]


@pytest.mark.parametrize(
    ("text", "wanted"), [("answer", [3, 9, 2]), ("instruction", [22, 1, 1]), ("conversation", [26, 11, 4])]
)
def test_score_is_the_number_of_characters_and_less_for_the_shortest(text: TextPart, wanted: list[int]) -> None:
    """Characters and not bytes, of answers by default; the line break between messages is one."""
    pool = frame(ROWS, "s")
    np.testing.assert_array_equal(LONG.scores(inputs(LengthLongOptions(text=text), pool=pool)).values.T, [wanted] * 3)
    short = SHORT.scores(inputs(LengthShortOptions(text=text), pool=pool)).values
    np.testing.assert_array_equal(short.T, [[-n for n in wanted]] * 3)


def test_answers_are_what_is_counted_by_default() -> None:
    """The control of RDS+ is of responses; a long question with a short answer teaches little."""
    assert (LengthLongOptions().text, LengthShortOptions().text) == ("answer", "answer")
