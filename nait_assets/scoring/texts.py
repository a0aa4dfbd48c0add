"""What of a conversation the methods that read words read, and what of it people are shown.

Belongs here: which messages count. Does not belong here: how a text is cut into words; each method has its own way.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import polars as pl

from nait_assets.recipe import CANDIDATES
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.method import Near, ScoringInputs
from nait_assets.tables import IN_DOMAIN_SET

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


def texts_of_pool(inputs: ScoringInputs, part: TextPart) -> list[str]:
    """`(n_candidates,)` texts of the candidates of a method that reads the pool."""
    texts = [""] * len(inputs.sample_ids)
    for places, rows in inputs.rows(CANDIDATES, "messages"):
        for place, text in zip(places.tolist(), texts_of(rows, part), strict=True):
            texts[place] = text
    return texts


Shown = tuple[str, str]
"""A question and its answer, whole."""


def question_and_answer(messages: Sequence[Mapping[str, str]]) -> Shown:
    """The first message of the user and the last one of the assistant, "" where there is none."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return questions[0] if questions else "", answers[-1] if answers else ""


def shown_texts(frame: pl.DataFrame) -> dict[str, Shown]:
    """What people are shown of the rows of a frame with columns `sample_id` and `messages`, by `sample_id`."""
    return {name: question_and_answer(messages) for name, messages in frame.select("sample_id", "messages").iter_rows()}


def texts_of_examples(tables: Snapshot, near: Iterable[Near]) -> dict[str, Shown]:
    """Texts of in-domain examples that explanations name, by `sample_id`; the sets are noted as read.

    Raises:
        WarehouseError: The examples of a capability have not been read.
    """
    found: dict[str, Shown] = {}
    named = [(one.capability, one.sample_id) for one in near]
    for capability in dict.fromkeys(capability for capability, _ in named):
        tables.note(IN_DOMAIN_SET.asset, capability)
        wanted = [name for of, name in named if of == capability]
        frame = tables.rows_of(IN_DOMAIN_SET.only("sample_id", "messages"), wanted, capability=capability)
        found |= shown_texts(frame)
    return found
