"""Which tokens of a conversation the assistant says, so that a loss can be taken over them alone.

Belongs here: where the responses stand among the tokens. Does not belong here: what is made of those tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nait_assets.errors import ModelError
from nait_assets.models.encoding import EncodedSample, encode, render
from nait_assets.recipe import fingerprint


@dataclass(frozen=True, eq=False)
class AnsweredSample(EncodedSample):
    """A conversation as the model reads it, and which of its tokens are responses.

    Attributes:
        answers: `(n_tokens,)` bool: tokens that hold a character of a response.
        unanswered: Why there is no such token; "" if there is one.
    """

    answers: np.ndarray
    unanswered: str = ""

    def alone(self) -> "AnsweredSample":
        """The response tokens after the token that begins a sequence, without anything that was asked."""
        ids = np.concatenate([self.token_ids[:1], self.token_ids[self.answers]])
        return AnsweredSample(self.sample_id, ids, self.truncated, np.arange(len(ids)) > 0)


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
    conversations: Iterable[tuple[str, list[dict[str, str]]]],
    tokenizer: Any,
    template: Literal["chat", "plain"],
    max_tokens: int,
) -> tuple[list[AnsweredSample], list[tuple[str, str]]]:
    """Tokenise conversations as `encode` does, and find the responses' tokens.

    The template is rendered a second time with a mark in the place of each response: what stands between the marks is
    the template's, and where it stands in the text too, the responses' places are known to the character.

    Args:
        conversations: Pairs of `sample_id` and messages.
        tokenizer: Tokenizer of the model.
        template: As for `encode`.
        max_tokens: As for `encode`; response tokens beyond them are cut off.

    Returns:
        As `encode`. A conversation whose responses cannot be found, or are cut off, is among the samples.

    Raises:
        ModelError: As `encode`, or the tokenizer does not tell which characters a token holds.
    """
    require_offsets(tokenizer)
    pairs = list(conversations)
    encoded, refused = encode(pairs, tokenizer, template, max_tokens)
    messages_of = dict(pairs)
    return [_answered(sample, messages_of[sample.sample_id], tokenizer, template) for sample in encoded], refused


def _answered(
    sample: EncodedSample, messages: list[dict[str, str]], tokenizer: Any, template: Literal["chat", "plain"]
) -> AnsweredSample:
    text = render(messages, tokenizer, template)
    spans = response_spans(messages, tokenizer, template, text)
    if spans is None:
        reason = "the template does not write the responses unchanged, so their tokens cannot be found"
        return _with(sample, np.zeros(len(sample.token_ids), bool), reason)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    begins, ends = np.asarray(tokens["offset_mapping"], np.int64).reshape(-1, 2).T
    answers = np.zeros(len(begins), bool)
    for begin, end in spans:
        answers |= (begins < end) & (ends > begin) & (ends > begins)
    if tokens["input_ids"][0] != sample.token_ids[0]:  # a token that begins the sequence was put in front
        answers = np.concatenate([[False], answers])
    answers[0] = False  # nothing stands before it to predict it from
    kept = answers[: len(sample.token_ids)]
    if kept.any():
        return _with(sample, kept, "")
    if answers.any():
        before = int(answers.argmax())
        return _with(
            sample,
            kept,
            f"its response is cut off: {before} tokens stand before it, and extraction.max_tokens is {len(kept)}",
        )
    return _with(sample, kept, "its response is empty")


def _with(sample: EncodedSample, answers: np.ndarray, reason: str) -> AnsweredSample:
    return AnsweredSample(sample.sample_id, sample.token_ids, sample.truncated, answers, reason)


def response_spans(
    messages: Sequence[dict[str, str]], tokenizer: Any, template: Literal["chat", "plain"], text: str
) -> list[tuple[int, int]] | None:
    """First character of each response in the rendered conversation, and the one after its last.

    None where the template does something else with a response than to write it, such as leaving out earlier thoughts.

    Args:
        messages: The conversation.
        tokenizer: Tokenizer of the model.
        template: Template that renders it.
        text: The conversation, rendered.
    """
    prefix = fingerprint(list(messages))  # that a conversation holds its own hash is out of the question
    responses = [message["content"] for message in messages if message["role"] == "assistant"]
    marks = [f"{prefix}n{number}n" for number in range(len(responses))]
    unused = iter(marks)
    marked = [
        {**message, "content": next(unused)} if message["role"] == "assistant" else dict(message)
        for message in messages
    ]
    try:
        rest = render(marked, tokenizer, template)
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return None
    spans: list[tuple[int, int]] = []
    wanted = ""
    for mark, response in zip(marks, responses, strict=True):
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        wanted += before + response
        spans.append((len(wanted) - len(response), len(wanted)))
    return spans if wanted + rest == text else None
