"""Questions as a model is asked them: everything before the last answer, by the project's own template.

Belongs here: texts. Does not belong here: asking a model (`harness`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError, UserError
from nait_assets.models.rendering import Renderer
from nait_assets.models.spans import response_spans
from nait_assets.recipe import Extraction


@dataclass(frozen=True)
class Question:
    """A question and its answer.

    Attributes:
        sample_id: Id of the example.
        prompt: All that stands before the answer, with the header of the answer's turn.
        answer: The example's answer.
        source: The question alone, as its user wrote it.
    """

    sample_id: str
    prompt: str
    answer: str
    source: str


def questions(
    conversations: Sequence[tuple[str, Conversation]], tokenizer: Any, extraction: Extraction, shots: int
) -> list[Question]:
    """The questions of examples; the first of them are shown with their answers in front of the others.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        extraction: How conversations are written out.
        shots: Examples that are shown, and not asked.

    Raises:
        DataError: No example is left to be asked.
    """
    shown = [message for _, one in conversations[:shots] for message in one.messages]
    asked = conversations[shots:]
    if not asked:
        raise DataError(
            f"a task has {len(conversations)} examples, of which {shots} are shown (`shots`), so none is asked."
        )
    return [_question(name, conversation, shown, tokenizer, extraction) for name, conversation in asked]


def _question(
    name: str, conversation: Conversation, shown: Sequence[Any], tokenizer: Any, extraction: Extraction
) -> Question:
    *before, last = conversation.messages
    whole = replace(conversation, messages=(*shown, *conversation.messages))
    renderer = Renderer.of(tokenizer, extraction)
    try:
        text = renderer.text(whole)
    except UserError:
        raise
    except Exception as error:  # a template may raise whatever its author wrote
        raise DataError(f"the example {name} of a task: the chat template refuses it: {error}") from error
    spans = response_spans(whole, renderer, text)
    if not spans:
        raise DataError(f"the example {name} of a task: the template does not write its answer unchanged.")
    prompt = text[: spans[-1][0]]  # where a template has no header for an answer yet to come, it still has this one
    first = tokenizer.bos_token or tokenizer.eos_token or ""
    if not prompt.startswith(first):  # every sample begins with it, wherever it is read
        prompt = first + prompt
    return Question(name, prompt, last.text, before[-1].text if before else "")
