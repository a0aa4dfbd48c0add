"""Which tokens of a conversation the assistant says, so that a loss can be taken over them alone.

Belongs here: where the responses stand among the tokens. Does not belong here: what is made of those tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from nait_assets.conversation import Conversation
from nait_assets.errors import ModelError
from nait_assets.models.encoding import PLAIN_HEADINGS, EncodedSample, Rendering, encode, render


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
    conversations: Iterable[tuple[str, Conversation | Sequence[Mapping[str, Any]]]],
    tokenizer: Any,
    template: Rendering,
    max_tokens: int,
    unshown: Literal["use", "refuse"] = "use",
) -> tuple[list[AnsweredSample], list[tuple[str, str]]]:
    """Tokenise conversations as `encode` does, and find the responses' tokens.

    The template is rendered a second time with a mark in the place of each response: what stands between the marks is
    the template's, and where it stands in the text too, the responses' places are known to the character.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        template: As for `encode`.
        max_tokens: As for `encode`; response tokens beyond them are cut off.
        unshown: As for `encode`.

    Returns:
        As `encode`. A conversation whose responses cannot be found, or are cut off, is among the samples.

    Raises:
        ModelError: As `encode`, or the tokenizer does not tell which characters a token holds.
    """
    require_offsets(tokenizer)
    pairs = {name: Conversation.of(given) for name, given in conversations}
    encoded, refused = encode(pairs.items(), tokenizer, template, max_tokens, unshown)
    return [_answered(sample, pairs[sample.sample_id], tokenizer, template) for sample in encoded], refused


def _answered(sample: EncodedSample, conversation: Conversation, tokenizer: Any, template: Rendering) -> AnsweredSample:
    text = render(conversation, tokenizer, template)
    spans = response_spans(conversation, tokenizer, template, text)
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
    given: Conversation | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    template: Rendering,
    text: str,
) -> list[tuple[int, int]] | None:
    """First character of each response in the rendered conversation, and the one after its last.

    A response that is not to be trained on is none. One with calls or thoughts reaches from where the model begins to
    write to where its turn ends.

    None where the template does something else with a response than to write it, such as leaving out earlier thoughts.

    Args:
        given: The conversation, or its messages.
        tokenizer: Tokenizer of the model.
        template: Template that renders it.
        text: The conversation, rendered.
    """
    conversation = Conversation.of(given)
    whole, marks = dict[int, tuple[int, int]](), dict[int, str]()
    for place, message in enumerate(conversation.messages):
        if message.role != "assistant":
            continue
        span = _span_of_turn(conversation, place, tokenizer, template, text)
        if span is not None:
            whole[place] = span
        elif not message.calls:
            # that a conversation holds its own hash is out of the question
            marks[place] = f"{conversation.sample_id}n{len(marks)}n"
    found = _spans_of_marks(conversation, marks, tokenizer, template, text)
    if found is None:
        return None
    spans = {**whole, **found}
    return [spans[place] for place in sorted(spans) if conversation.messages[place].weight > 0]


def _spans_of_marks(
    conversation: Conversation,
    marks: Mapping[int, str],
    tokenizer: Any,
    template: Rendering,
    text: str,
) -> dict[int, tuple[int, int]] | None:
    marked = replace(
        conversation,
        messages=tuple(
            replace(message, content=marks[place]) if place in marks else message
            for place, message in enumerate(conversation.messages)
        ),
    )
    try:
        rest = render(marked, tokenizer, template)
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return None
    spans, wanted = {}, ""
    for place, mark in marks.items():
        response = conversation.messages[place].text
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        wanted += before + response
        spans[place] = len(wanted) - len(response), len(wanted)
    return spans if wanted + rest == text else None


def _span_of_turn(
    conversation: Conversation, place: int, tokenizer: Any, template: Rendering, text: str
) -> tuple[int, int] | None:
    """The span of a response with calls or thoughts, from the texts before and through its turn."""
    message = conversation.messages[place]
    if not (message.calls or message.reasoning):
        return None
    before, through = (replace(conversation, messages=conversation.messages[:end]) for end in (place, place + 1))
    try:
        begin = render(before, tokenizer, template, generation=True)
        end = render(through, tokenizer, template)
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return None
    if template == "plain":
        begin += ("\n\n" if begin else "") + PLAIN_HEADINGS["assistant"]
    if not (text.startswith(end) and end.startswith(begin)):
        return None
    said = end[len(begin) :].rstrip()
    for special in tokenizer.all_special_tokens:  # what ends a turn is the template's
        said = said.removesuffix(special).rstrip()
    return len(begin), len(begin) + len(said)
