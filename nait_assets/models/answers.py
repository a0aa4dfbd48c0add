"""Which tokens of a conversation the assistant says, so that a loss can be taken over them alone.

Belongs here: where the responses stand among the tokens. Does not belong here: what is made of those tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nait_assets.conversation import Conversation
from nait_assets.errors import ModelError
from nait_assets.models.encoding import EncodedSample, Encoder, readable
from nait_assets.recipe import Extraction


@dataclass(frozen=True, eq=False)
class AnsweredSample(EncodedSample):
    """A conversation as the model reads it, and which of its tokens are responses.

    Attributes:
        answers: `(n_tokens,)` bool: tokens that hold a character of a response.
        unanswered: Why there is no such token; "" if there is one.
    """

    answers: np.ndarray = field(kw_only=True)
    unanswered: str = field(default="", kw_only=True)

    def alone(self) -> "AnsweredSample":
        """The response tokens after the token that begins a sequence, without anything that was asked."""
        ids = np.concatenate([self.token_ids[:1], self.token_ids[self.answers]])
        return replace(self, token_ids=ids, answers=np.arange(len(ids)) > 0)


def require_offsets(tokenizer: Any) -> None:
    """Whether a tokenizer tells which characters a token holds.

    Raises:
        ModelError: It does not.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"the model's tokenizer, {type(tokenizer).__name__}, does not tell which characters a token holds, so the "
            "tokens of responses cannot be found; use a model with a tokenizer.json."
        )


def encode_with_answers(
    conversations: Iterable[tuple[str, Conversation | Sequence[Mapping[str, Any]]]],
    tokenizer: Any,
    extraction: Extraction,
) -> tuple[list[AnsweredSample], list[tuple[str, str]]]:
    """Tokenise conversations as `encode` does, cut to `max_tokens` in the same way, and find the responses' tokens.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        extraction: As for `encode`; response tokens that are cut off are none.

    Returns:
        As `encode`. A conversation whose responses cannot be found, or are cut off, is among the samples.

    Raises:
        RecipeError: As `encode`.
        ModelError: As `encode`, or the tokenizer does not tell which characters a token holds.
    """
    require_offsets(tokenizer)
    encoder = Encoder(tokenizer, extraction)

    def answered(sample_id: str, conversation: Conversation) -> AnsweredSample:
        fitted, unshown = encoder.fitted(conversation, locate=True)
        answers, reason = fitted.answers, ""
        if answers is None:
            answers = np.zeros(len(fitted.token_ids), bool)
            reason = "the template does not write the responses unchanged, so their tokens cannot be found"
        elif not answers.any():
            reason = "its response is empty"
            if fitted.n_before:
                reason = (
                    f"its response is cut off: {fitted.n_before} tokens stand before it, and extraction.max_tokens is "
                    f"{extraction.max_tokens}"
                )
        return AnsweredSample(sample_id, **fitted.of_sample(), unshown=unshown, answers=answers, unanswered=reason)

    return readable(conversations, answered)
