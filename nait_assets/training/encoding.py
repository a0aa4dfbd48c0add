"""Rows as token ids and labels, by the project's own encoding: what an answer is, is the same wherever it is read.

A label is the token itself where a loss is taken, else -100. The token that ends an answer's turn is learnt with the
answer, where the template has one: a model that never saw it would not stop. Scores and held-out losses leave it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nait_assets.conversation import Conversation
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.recipe import Extraction

IGNORED = -100


@dataclass(frozen=True)
class EncodedRow:
    """A row as the trainer reads it.

    Attributes:
        sample_id: Id of the conversation.
        token_ids: `(n_tokens,)` int32.
        labels: `(n_tokens,)` int32, -100 where no loss is taken.
        truncated: Whether the conversation was cut.
    """

    sample_id: str
    token_ids: np.ndarray
    labels: np.ndarray
    truncated: bool

    @property
    def n_learnt(self) -> int:
        """Tokens that a loss is taken over."""
        return int((self.labels != IGNORED).sum())


def encode_rows(
    conversations: Sequence[tuple[str, Conversation]],
    tokenizer: Any,
    max_tokens: int,
    reading: Mapping[str, Any],
    loss_on: Literal["answers", "all"],
) -> tuple[list[EncodedRow], list[tuple[str, str]]]:
    """Rows in the order of the conversations, and pairs of `sample_id` and reason of those without a token to learn.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the base.
        max_tokens: Tokens of a row that are read.
        reading: Fields of the recipe's `extraction` that decide how a conversation is read, `max_tokens` excepted.
        loss_on: Tokens that a loss is taken over.

    Raises:
        ModelError: The tokenizer does not tell which characters a token holds.
    """
    extraction = Extraction.model_validate({**reading, "max_tokens": max_tokens})
    samples, refused = encode_with_answers(conversations, tokenizer, extraction)
    ends = np.asarray(sorted(tokenizer.all_special_ids), np.int32)
    rows = []
    for sample in samples:
        if loss_on == "answers" and sample.unanswered:
            refused.append((sample.sample_id, sample.unanswered))
            continue
        learnt = with_ends(sample, ends) if loss_on == "answers" else np.arange(len(sample.token_ids)) > 0
        labels = np.where(learnt, sample.token_ids, IGNORED).astype(np.int32)
        rows.append(EncodedRow(sample.sample_id, sample.token_ids, labels, sample.cut != ""))
    own = [(name, reason.replace("extraction.max_tokens", "training.max_tokens")) for name, reason in refused]
    return rows, own


def with_ends(sample: AnsweredSample, ends: np.ndarray) -> np.ndarray:
    """`(n_tokens,)` bool: the answers' tokens, and a special token that follows an answer at once."""
    after = np.concatenate([[False], sample.answers[:-1] & ~sample.answers[1:]])
    learnt: np.ndarray = sample.answers | (after & np.isin(sample.token_ids, ends))
    return learnt
