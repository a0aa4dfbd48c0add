"""Which tokens of a conversation are the model's to say: those of the assistant's turns, which a loss is taken over.

Belongs here: finding them in what `encoding` makes of a conversation. Does not belong here: the loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nait_assets.extraction.encoding import EncodedSample, encode, plain_text
from nait_assets.recipe import RecipeError

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages, bool], str]
"""Messages as text; with True, up to where the assistant's next turn begins."""


@dataclass(frozen=True, eq=False)
class SupervisedSample:
    """One example, and what of it is response.

    Attributes:
        sample_id: Of the conversation.
        token_ids: `(n_tokens,)` int32, as `encoding.encode` makes them.
        is_response: `(n_tokens,)` bool: of the assistant's turns, the token that ends a turn included.
    """

    sample_id: str
    token_ids: np.ndarray
    is_response: np.ndarray


def supervise(
    conversations: Sequence[tuple[str, Messages]],
    tokenizer: Any,
    template: Literal["chat", "plain"],
    max_tokens: int,
) -> tuple[list[SupervisedSample], list[tuple[str, str]]]:
    """Conversations as tokens with their response tokens marked.

    Args:
        conversations: Pairs of `sample_id` and messages.
        tokenizer: Of the model.
        template: The model's chat template, or plain headings.
        max_tokens: Tokens read of each example.

    Returns:
        The samples, and pairs of `sample_id` and reason for those without response tokens.

    Raises:
        RecipeError: As `encode`, or the tokenizer does not tell where in the text its tokens lie.
    """
    if not tokenizer.is_fast:
        raise RecipeError(
            f"the model's tokenizer, {type(tokenizer).__name__}, does not tell where in the text a token lies, and so "
            "which tokens are the response; use a model with a tokenizer.json (a fast tokenizer)."
        )
    encoded, refused = encode([(name, list(each)) for name, each in conversations], tokenizer, template, max_tokens)
    render, messages = _renderer(tokenizer, template), dict(conversations)
    samples = []
    for sample in encoded:
        try:
            is_response = _is_response(sample, messages[sample.sample_id], tokenizer, render)
        except Exception as error:  # noqa: BLE001  a template may raise whatever its author wrote
            refused.append((sample.sample_id, f"its response cannot be told from the rest: {error}"))
            continue
        if is_response[1:].any():  # nothing comes before the first token to predict it from
            samples.append(SupervisedSample(sample.sample_id, sample.token_ids, is_response))
        else:
            refused.append((sample.sample_id, f"no response tokens among its first {max_tokens} tokens"))
    return samples, refused


def response_spans(messages: Messages, render: Render) -> Iterator[tuple[int, int]]:
    """First character of each response in the rendered conversation, and the one behind the end of its turn.

    Templates without a generation prompt show the turn's heading in front of the response; it is skipped by looking for
    the response's text behind what comes before.

    Raises:
        ValueError: The template renders a conversation in another way when it goes on, or changes a response.
    """
    text = render(messages, False)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = next((shown for shown in _befores(messages[:place], render) if text.startswith(shown)), None)
        if before is None:
            raise ValueError("the chat template shows what comes before a response otherwise than the conversation")
        begin = text.find(message["content"], len(before))
        if begin < 0:
            raise ValueError("the chat template does not show a response as it is")
        turn = render(messages[: place + 1], False)
        yield begin, len(turn) if text.startswith(turn) else begin + len(message["content"])


def _befores(messages: Messages, render: Render) -> Iterator[str]:
    if messages:
        yield render(messages, True)
        yield render(messages, False)
    yield from () if messages else ("",)


def _renderer(tokenizer: Any, template: str) -> Render:
    def chat(messages: Messages, begins_turn: bool) -> str:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=begins_turn)

    def plain(messages: Messages, begins_turn: bool) -> str:
        turn = [{"role": "assistant", "content": ""}] if begins_turn else []
        return plain_text([*messages, *turn])

    return chat if template == "chat" else plain


def _is_response(sample: EncodedSample, messages: Messages, tokenizer: Any, render: Render) -> np.ndarray:
    """`(n_tokens,)` bool: tokens that hold a character of a response."""
    spans = list(response_spans(messages, render))
    found = tokenizer(render(messages, False), add_special_tokens=False, return_offsets_mapping=True)
    in_front = int(found["input_ids"][0] != sample.token_ids[0])  # a first token that `encode` put there
    is_response = np.zeros(len(sample.token_ids), dtype=bool)
    for place, (first, end) in enumerate(found["offset_mapping"][: len(is_response) - in_front]):
        is_response[place + in_front] = any(first < behind and end > begin for begin, behind in spans)
    return is_response
