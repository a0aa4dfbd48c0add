"""A model's own chat template: a program of whoever made the model, rendered as transformers does, with bounds.

What a template can use is what transformers' documentation promises it: trimmed blocks, loop controls, `generation`
blocks, `tojson`, `raise_exception`, `strftime_now`. transformers itself lets a template loop for ever.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from nait_assets.conversation import REASONING_KEYS
from nait_assets.errors import ModelError
from nait_assets.sandbox import FAILURES, MOST_CHARACTERS, Sandbox, TooMuch

SAID_CHARACTERS = 500
"""Of why a template refuses a conversation: its author may quote all of it."""
MOST_RUNAWAYS = 20
"""Conversations for which a template does too much before the model is given up: each takes about a second."""


class ChatTemplateError(ValueError):
    """A chat template refuses a conversation, or fails with it; the message says why."""


def rendered(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    today: datetime.date,
    tools: Sequence[Mapping[str, Any]] = (),
    generation: bool = False,
) -> str:
    """A conversation as the model's chat template writes it; `tokenizer.apply_chat_template(...)` on that day.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Role, content, and what else the template reads.
        today: What a template is told that asks for the date, by transformers' function or by the variable of Llama 3's
            templates: by the clock, the same conversation would be another text tomorrow.
        tools: Descriptions of tools.
        generation: Whether the text ends where the next response would begin.

    Raises:
        ChatTemplateError: The template refuses the conversation, fails, or does too much.
        ModelError: It is no template, or does too much for conversation after conversation.
    """
    midnight = datetime.datetime.combine(today, datetime.time())
    template = ChatTemplate.of(tokenizer.get_chat_template(None, list(tools) or None))
    given = {
        **tokenizer.special_tokens_map,
        "messages": [_message(_plain(message)) for message in messages],
        "tools": _plain(tools) or None,
        "documents": None,
        "add_generation_prompt": generation,
        "strftime_now": lambda form: midnight.strftime(form),
        "date_string": midnight.strftime("%d %b %Y"),
    }
    return template.render(given)


class ChatTemplate:
    """A compiled chat template.

    Args:
        text: What the model's files hold.
    """

    def __init__(self, text: str):
        self._n_runaways = 0
        self._sandbox = Sandbox(
            self._printed,
            {"tojson": _tojson},
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
        )
        self._sandbox.globals["raise_exception"] = _raise_exception
        try:
            self._template = self._sandbox.bounded(text)
        except FAILURES as error:
            raise ModelError(f"the model's chat template is not to be compiled: {_said(error)}") from error

    @classmethod
    @functools.lru_cache(maxsize=8)
    def of(cls, text: str) -> "ChatTemplate":
        """The template of a text, compiled once."""
        return cls(text)

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of a conversation; errors as `rendered`."""
        self._sandbox.restart()
        try:
            text = str(self._template.render(variables))
        except TooMuch as error:
            self._n_runaways += 1
            if self._n_runaways >= MOST_RUNAWAYS:
                raise ModelError(
                    f"the model's chat template does too much, for {self._n_runaways} conversations: {error}. Use "
                    "`extraction: {template: plain}`, or another model."
                ) from error
            raise ChatTemplateError(str(error)) from error
        except FAILURES as error:
            raise ChatTemplateError(_said(error)) from error
        if len(text) > MOST_CHARACTERS:
            raise ChatTemplateError(f"the template prints more than {MOST_CHARACTERS:,} characters")
        return text

    def _printed(self, value: Any) -> Any:
        """A value that is printed, unless what Python writes of it is another at each run, such as an address."""
        if isinstance(value, str):
            return value
        for part in self._sandbox.parts(value):
            if not isinstance(part, str | int | float | Undefined | None):
                raise ChatTemplateError(f"the template prints {type(part).__name__}, which has no text of its own")
        return value


class _Generation(Extension):
    """`{% generation %}`, which marks what the model is to learn; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _said(error: BaseException) -> str:
    return str(error)[:SAID_CHARACTERS] or type(error).__name__


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _plain(value: Any) -> Any:
    """A value in JSON's types; of another, such as a date, its type's name, as transformers writes it."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | None) else f"<{type(value).__name__}>"


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without nulls, its reasoning also under the names that transformers gives it."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[key] for key in REASONING_KEYS if key in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
