"""What of a conversation the methods that read words read, and what of it people are shown.

Belongs here: which messages count. Does not belong here: how a text is cut into words; each method has its own way.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

TextPart = Literal["conversation", "instruction", "answer"]
"""conversation: all that is said; instruction: by users; answer: by assistants. Never the system message."""

ROLES: dict[TextPart, tuple[str, ...]] = {
    "conversation": ("user", "assistant", "tool"),
    "instruction": ("user",),
    "answer": ("assistant",),
}
"""The system message is the template's more often than the example's, and never read."""


def text_of(messages: Sequence[Mapping[str, str]], part: TextPart) -> str:
    """The contents of a conversation's messages, a line break between them."""
    return "\n".join(message["content"] for message in messages if message["role"] in ROLES[part])


def texts_of(frame: pl.DataFrame, part: TextPart) -> list[str]:
    """`(n_rows,)` texts of a frame with the column `messages`."""
    return [text_of(messages, part) for messages in frame["messages"].to_list()]


def question_and_answer(messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """The first message of the user and the last one of the assistant, "" where there is none."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return questions[0] if questions else "", answers[-1] if answers else ""
