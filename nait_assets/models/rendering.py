"""Conversations as text: by the model's chat template or under plain headings, and what of them such a text lacks.

Belongs here: all that a template is given. Does not belong here: tokens.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from nait_assets.conversation import Conversation
from nait_assets.models.chat_template import rendered
from nait_assets.recipe import Extraction

Rendering = Literal["chat", "plain", "folded"]
"""The model's chat template, plain headings, or the chat template with system texts in front of user turns."""
PLAIN_HEADINGS = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n", "tool": "### Tool:\n"}


@dataclass(frozen=True)
class Renderer:
    """How conversations become text.

    Attributes:
        tokenizer: The model's tokenizer, whose chat template is used; None under plain headings.
        template: How they are written out.
        date: The day that a template is told where it asks for today's.
    """

    tokenizer: Any
    template: Rendering
    date: datetime.date

    @classmethod
    def of(cls, tokenizer: Any, extraction: Extraction) -> "Renderer":
        """As the recipe's extraction says."""
        return cls(tokenizer, extraction.rendering, extraction.template_date)

    def folding(self) -> "Renderer":
        """The same with system texts folded into user turns."""
        return replace(self, template="folded")

    def shown(self, conversation: Conversation) -> Conversation:
        """The conversation whose messages the template is given: with system texts folded, if they are."""
        return conversation.folded() if self.template == "folded" else conversation

    def text(self, given: Conversation | Sequence[Mapping[str, Any]], generation: bool = False) -> str:
        """A conversation as one text; raises whatever the chat template does.

        Args:
            given: The conversation, or its messages; a chat template gets tools and calls where it takes them.
            generation: Whether the text ends where the next response would begin.
        """
        conversation = self.shown(Conversation.of(given))
        if self.template == "plain":
            return plain_text(conversation.plain())
        written = str(self.tokenizer.chat_template)
        messages = [message.for_template(lambda key: key in written) for message in conversation.messages]
        return rendered(self.tokenizer, messages, self.date, conversation.tool_list, generation)


def plain_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation under plain headings, for models without a chat template."""
    return "\n\n".join(PLAIN_HEADINGS[message["role"]] + message["content"] for message in messages)


def unshown_parts(conversation: Conversation, text: str) -> str:
    """Which parts of a conversation are not in the text that a template made of it; "" if all are.

    A template may leave out what was thought before earlier answers: some of it is enough.
    """
    thoughts = [message.reasoning for message in conversation.messages if message.reasoning]
    calls = [call["name"] for message in conversation.messages for call in message.calls]
    tools = [str(tool["function"].get("name")) for tool in conversation.tool_list]
    missing = {
        "reasoning": thoughts and not any(thought in text for thought in thoughts),
        "tool calls": not all(name in text for name in calls),
        "tools": not all(name in text for name in tools) or (conversation.tools and not tools),
    }
    return " and ".join(name for name, is_missing in missing.items() if is_missing)
