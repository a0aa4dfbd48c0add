"""Where in a rendered conversation its messages stand, to the character.

The template is rendered again with a mark in the place of each message: what stands between the marks is the
template's, and where it stands in the text too, the messages' places are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nait_assets.conversation import Conversation, Message
from nait_assets.models.rendering import PLAIN_HEADINGS, Renderer

Span = tuple[int, int]


def response_spans(
    given: Conversation | Sequence[Mapping[str, Any]], renderer: Renderer, text: str
) -> list[Span] | None:
    """First character of each response in the rendered conversation, and the one after its last.

    A response that is not to be trained on is none. One with calls or thoughts reaches from where the model begins to
    write to where its turn ends.

    None where the template does something else with a response than to write it, such as leaving out earlier thoughts.

    Args:
        given: The conversation, or its messages.
        renderer: What rendered it.
        text: The conversation, rendered.
    """
    conversation = renderer.shown(Conversation.of(given))
    turns = _spans_of_turns(conversation, renderer, text)
    marked = [
        place
        for place, message in enumerate(conversation.messages)
        if message.role == "assistant" and place not in turns and not message.calls
    ]
    found = _spans_of_marks(conversation, marked, renderer, text)
    if found is None:
        return None
    spans = {**turns, **found}
    return [spans[place] for place in sorted(spans) if is_response(conversation.messages[place])]


def prompt_spans(given: Conversation | Sequence[Mapping[str, Any]], renderer: Renderer, text: str) -> list[Span] | None:
    """As `response_spans`, of the texts that are no responses: what the template adds to them is in no span.

    None where the template rewrites one, or puts them in another order.
    """
    conversation = renderer.shown(Conversation.of(given))
    marked = [place for place, message in enumerate(conversation.messages) if message.text and not message.calls]
    found = _spans_of_marks(conversation, marked, renderer, text)
    if found is None:
        return None
    return [span for place, span in found.items() if not is_response(conversation.messages[place])]


def is_response(message: Message) -> bool:
    """Whether a message is a response to learn from."""
    return message.role == "assistant" and message.weight > 0


def _spans_of_marks(
    conversation: Conversation, places: Sequence[int], renderer: Renderer, text: str
) -> dict[int, Span] | None:
    """Spans of messages by their place in the conversation; None where one of them is not written as it is."""
    # that a conversation holds its own hash is out of the question
    marks = {place: f"{conversation.sample_id}n{number}n" for number, place in enumerate(places)}
    marked = replace(
        conversation,
        messages=tuple(
            replace(message, content=marks[place]) if place in marks else message
            for place, message in enumerate(conversation.messages)
        ),
    )
    try:
        rest = renderer.text(marked)
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return None
    spans, wanted = {}, ""
    for place, mark in marks.items():
        content = conversation.messages[place].text
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        wanted += before + content
        spans[place] = len(wanted) - len(content), len(wanted)
    return spans if wanted + rest == text else None


def _spans_of_turns(conversation: Conversation, renderer: Renderer, text: str) -> dict[int, Span]:
    """Spans of responses with calls or thoughts, from the texts before and through their turns."""
    found = {}
    for place, message in enumerate(conversation.messages):
        if message.role == "assistant" and (message.calls or message.reasoning):
            span = _span_of_turn(conversation, place, renderer, text)
            if span is not None:
                found[place] = span
    return found


def _span_of_turn(conversation: Conversation, place: int, renderer: Renderer, text: str) -> Span | None:
    before, through = (replace(conversation, messages=conversation.messages[:end]) for end in (place, place + 1))
    try:
        begin = renderer.text(before, generation=True)
        end = renderer.text(through)
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return None
    if renderer.template == "plain":
        begin += ("\n\n" if begin else "") + PLAIN_HEADINGS["assistant"]
    if not (text.startswith(end) and end.startswith(begin)):
        return None
    said = end[len(begin) :].rstrip()
    for special in renderer.tokenizer.all_special_tokens:  # what ends a turn is the template's
        said = said.removesuffix(special).rstrip()
    return len(begin), len(begin) + len(said)
