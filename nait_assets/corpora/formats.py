"""One source row as one conversation: the formats of the field, their roles, and why a row is refused.

Belongs here: what turns fields into messages. Does not belong here: which format a source has (`detection.py`), what a
conversation is (`conversation.py` of the project).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nait_assets.conversation import ROLES, Conversation, Message, decoded
from nait_assets.corpora.templates import RowTemplate, Unprintable
from nait_assets.recipe import FieldTemplates, Source, TurnsFormat

ROLE_WORDS = {
    "system": ("system", "developer", "system_prompt"),
    "user": ("user", "human", "prompter", "instruction"),
    "assistant": (
        *("assistant", "gpt", "chatgpt", "gpt4", "gpt_4", "bing", "bard", "gemini", "claude", "bot", "chatbot"),
        *("model", "ai", "llm", "function_call", "tool_call"),
    ),
    "tool": (
        *("tool", "observation", "ipython", "function", "environment", "tool_response", "function_response"),
        *("tool_result", "tool_output", "function_result", "function_output"),
    ),
}
"""The words of the field for each role, in lower case, with `_` for a space or a hyphen."""
ROLE_NAMES = {word: role for role, words in ROLE_WORDS.items() for word in words}
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")
TEXT_PARTS = ("text", "input_text", "output_text")
MEDIA_COLUMNS = ("images", "image", "videos", "video", "audios", "audio")
SYSTEM_COLUMNS, TOOLS_COLUMNS = ("system", "system_prompt"), ("tools", "functions")
MEDIA = ("image", "video", "audio", "file", "input_audio")
MOST_LEVELS = 100
TOO_DEEP = f"its messages or tools nest deeper than {MOST_LEVELS} levels"
NAMED = {"messages": "messages", "sharegpt": "conversations"}
"""Formats by name that are turns in one column, and the column."""


class RowRejected(ValueError):
    """A row is not a conversation; the message is the reason that the `rejected` table states."""


@dataclass(frozen=True)
class ReadRow:
    """What became of a row.

    Attributes:
        conversation: Conversation that the row holds.
        is_cut: Whether turns behind the last response were cut off.
    """

    conversation: Conversation
    is_cut: bool = False


class RowReader:
    """Reads a source's rows.

    Args:
        row_format: Format of the rows; `auto` must have been resolved before.
        roles: What role names mean that are not among the known ones.
        unanswered: Whether turns behind the last response are cut off, or the row is refused.
    """

    def __init__(
        self, row_format: Any = "messages", roles: Mapping[str, str] | None = None, unanswered: str = "cut"
    ) -> None:
        self._roles = {_word(name): role for name, role in (roles or {}).items()}
        self._refuses_unanswered = unanswered == "refuse"
        self._turns: Callable[[Mapping[str, Any]], tuple[list[Message], Any]]
        if isinstance(row_format, FieldTemplates):
            self._templates = [
                ("system", RowTemplate(row_format.system or "", empty_if_null=True)),
                ("user", RowTemplate(row_format.user)),
                ("assistant", RowTemplate(row_format.assistant)),
            ]
            self.columns = {column for _, template in self._templates for column in template.columns}
            self._turns = self._from_templates
        elif row_format == "alpaca":
            self.columns = {"instruction", "output"}
            self._turns = self._from_alpaca
        else:
            self._format = row_format if isinstance(row_format, TurnsFormat) else TurnsFormat(turns=NAMED[row_format])
            named = (self._format.system, self._format.tools)
            self.columns = {*self._format.columns, *(column for column in named if column)}
            self._turns = self._from_turns

    @classmethod
    def of(cls, source: Source, row_format: Any = None) -> "RowReader":
        """The reader of a source, with the format that was found where the recipe says `auto`."""
        return cls(row_format or source.format, source.roles, source.unanswered)

    def __call__(self, fields: Mapping[str, Any]) -> ReadRow:
        """The conversation in a row's fields.

        Raises:
            RowRejected: There is none.
        """
        try:
            messages, tools = _with_tools_of_silent(*self._turns(fields))
            kept = [one for one in messages if one.role != "system" or one.text]
            answered = self._answered(kept)
            conversation = Conversation(tuple(answered), tools)
            _require_whole(conversation)
        except RecursionError as error:
            raise RowRejected(TOO_DEEP) from error
        return ReadRow(conversation, len(answered) < len(kept))

    def _answered(self, kept: list[Message]) -> list[Message]:
        """The messages up to the last response."""
        if not kept:
            raise RowRejected("empty: no messages")
        last = max((index for index, one in enumerate(kept) if one.role == "assistant"), default=None)
        if last is None or (last < len(kept) - 1 and self._refuses_unanswered):
            raise RowRejected("no response: the last message is not the assistant's")
        return kept[: last + 1]

    def _role(self, name: Any, keys: Sequence[str]) -> str:
        name = str(name) if isinstance(name, int) else name  # numbers that a recipe's `roles` may map
        if not isinstance(name, str):
            raise RowRejected(
                f"unknown role {name!r}: a turn has the keys {', '.join(map(str, keys)) or 'none'}; name those of role "
                "and text by `format: {turns: COLUMN, role: KEY, content: KEY}`"
            )
        word = _word(name)
        role = self._roles.get(word) or ROLE_NAMES.get(word)
        if role is None:
            written = name if name.replace(" ", "").replace("_", "").isalpha() else json.dumps(name, ensure_ascii=False)
            raise RowRejected(
                f"unknown role {name!r}; known are {', '.join(ROLE_NAMES)}. Say which it is, such as "
                f"`roles: {{{written}: user}}` beside the source's format"
            )
        return role

    def _message(self, turn: Mapping[str, Any], role_key: str | None, content_key: str | None) -> Message:
        role_key = role_key or next((key for key in ROLE_KEYS if turn.get(key) is not None), ROLE_KEYS[0])
        content_key = content_key or next((key for key in CONTENT_KEYS if turn.get(key) is not None), CONTENT_KEYS[0])
        role = self._role(turn.get(role_key), list(turn))
        keys = {str(key): value for key, value in turn.items() if key not in (role_key, content_key)}
        content, thinking = _content(turn.get(content_key), role)
        media = next((key for key in MEDIA_COLUMNS if keys.get(key)), None)
        if media:
            raise RowRejected(f"the {role} message holds {media}, which a language model does not read")
        if thinking and not any(keys.get(key) for key in ("thinking", "reasoning_content", "reasoning")):
            keys["thinking"] = thinking
        return Message(role, content, keys)

    def _from_turns(self, fields: Mapping[str, Any]) -> tuple[list[Message], Any]:
        _require_no_media(fields)
        layout = self._format
        turns = [turn for index, column in enumerate(layout.columns) for turn in self._turns_of(fields, index, column)]
        messages = [self._message(turn, layout.role, layout.content) for turn in turns]
        if "history" not in layout.columns and isinstance(decoded(fields.get("history")), list):
            messages = _behind(self._history(fields["history"]), messages)
        return _with_system(messages, _system(fields, layout.system)), _tools(fields, layout.tools)

    def _turns_of(self, fields: Mapping[str, Any], index: int, column: str) -> Iterator[Mapping[str, Any]]:
        """The turns of one of the format's columns; text beside a column of turns is the question, or the answer."""
        value = fields.get(column)
        if len(self._format.columns) > 1 and isinstance(value, str) and not isinstance(decoded(value), list | dict):
            role, content = self._format.role or ROLE_KEYS[0], self._format.content or CONTENT_KEYS[0]
            return iter([{role: "assistant" if index else "user", content: value}])
        return turns_in(value, column)

    def _from_alpaca(self, fields: Mapping[str, Any]) -> tuple[list[Message], Any]:
        _require_no_media(fields)
        instruction, context = fields.get("instruction"), fields.get("input")
        context = "" if _is_null(context) else context
        if not isinstance(instruction, str) or not isinstance(context, str):
            raise RowRejected("not text: instruction and input must be strings")
        if context.strip() and instruction.strip():
            instruction = f"{instruction.rstrip()}\n\n{_without_empty_lines_in_front(context)}"
        elif context.strip():
            instruction = context
        messages = [*self._history(fields.get("history")), *_pair(instruction, fields.get("output"))]
        return _with_system(messages, _system(fields, None)), _tools(fields, None)

    def _history(self, history: Any) -> list[Message]:
        """Earlier turns: pairs of instruction and response, or turns with a role."""
        earlier = [] if _is_null(history) or history == "" else decoded(history)
        if isinstance(earlier, list | tuple) and all(isinstance(each, Mapping) for each in earlier):
            return [self._message(turn, None, None) for turn in turns_in(earlier, "history")]
        are_pairs = isinstance(earlier, list | tuple) and all(isinstance(each, list | tuple) for each in earlier)
        if not are_pairs or any(len(each) != 2 for each in earlier):
            raise RowRejected("'history' is not a list of pairs of instruction and response")
        return [message for pair in earlier for message in _pair(*pair)]

    def _from_templates(self, fields: Mapping[str, Any]) -> tuple[list[Message], Any]:
        try:
            messages = [Message(role, template.render(fields)) for role, template in self._templates]
        except Unprintable as error:
            raise RowRejected(str(error)) from error
        if "history" not in self.columns and isinstance(decoded(fields.get("history")), list):
            messages = _behind(self._history(fields["history"]), messages)
        tools = None if "tools" in self.columns else _tools(fields, None)
        return messages, tools if Conversation((), tools).tool_list else None


def turns_in(value: Any, column: str) -> Iterator[Mapping[str, Any]]:
    """The turns that a column holds: a list of mappings, its JSON text, or a mapping of lists, as Arrow stores them.

    Raises:
        RowRejected: It holds something else.
    """
    if isinstance(value, str):
        if isinstance(decoded(value), str):
            raise RowRejected(f"{column!r} is not a list of messages: it is text that is no JSON")
        value = decoded(value)
    if isinstance(value, Mapping) and value and all(isinstance(part, list | tuple) for part in value.values()):
        if len({len(part) for part in value.values()}) > 1:
            raise RowRejected(f"{column!r} is not a list of messages: its {', '.join(value)} are of unequal length")
        value = [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    if isinstance(value, list | tuple):
        value = [decoded(turn) for turn in value]
    if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        raise RowRejected(f"{column!r} is not a list of messages")
    for turn in value:
        yield {key: part for key, part in turn.items() if key is not None and not _is_nan(part)}


def _content(content: Any, role: str) -> tuple[str | None, str]:
    """The text of a message, and what it thinks where that is a part of it; parts of text are joined as they stand."""
    if _is_null(content) or isinstance(content, str):
        return (content if isinstance(content, str) else None), ""
    if role == "tool" and isinstance(content, Mapping):  # what a tool returns, before it is written as JSON
        return json.dumps(content, ensure_ascii=False, default=str), ""
    if not isinstance(content, list | tuple):
        raise RowRejected(f"not text: the {role} message is {type(content).__name__}")
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind is None:
            kind = next((str(key) for key in part if part[key] and str(key).startswith(MEDIA)), None)
        if isinstance(part, Mapping) and kind in (*TEXT_PARTS, None) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, Mapping) and kind == "thinking" and isinstance(part.get("thinking"), str):
            thoughts.append(part["thinking"])
        else:
            what = next((name for name in ("image", "video", "audio", "file") if name in str(kind)), None)
            named = f"{'an' if what in ('image', 'audio') else 'a'} {what}" if what else f"a part of type {kind!r}"
            raise RowRejected(f"the {role} message holds {named}, which is no text")
    return "".join(texts), "".join(thoughts)


def _with_system(messages: list[Message], system: Any) -> list[Message]:
    """The messages behind a system prompt from a column of its own."""
    system, _ = _content(system, "system")
    if system is None:
        return messages
    own = messages[0] if messages and messages[0].role == "system" and messages[0].text else None
    if not system.strip() or (own is not None and own.text == Message("system", system).text):
        return messages
    if own is not None:
        raise RowRejected("two system prompts: one in a column of its own, another as the first message")
    return [Message("system", system), *messages]


def _pair(instruction: Any, response: Any) -> list[Message]:
    return [Message("user", _content(instruction, "user")[0]), Message("assistant", _content(response, "assistant")[0])]


def _behind(earlier: list[Message], messages: list[Message]) -> list[Message]:
    """The messages behind earlier ones and their system prompt, unless they repeat these."""
    place = next((place for place, one in enumerate(messages) if one.role != "system"), len(messages))
    rest = messages[place:]
    if [one.identity() for one in rest[: len(earlier)]] == [one.identity() for one in earlier]:
        return messages
    return [*messages[:place], *earlier, *rest]


def _with_tools_of_silent(messages: list[Message], tools: Any) -> tuple[list[Message], Any]:
    """Tools that stand in a system message without text, which is none, are the conversation's."""
    for message in messages:
        own = _tools(message.keys, None) if message.role == "system" and not message.text else None
        if own is not None and tools is not None and decoded(own) != decoded(tools):
            raise RowRejected("two lists of tools: one in a column of its own, another in a system message")
        tools = own if own is not None else tools
    return messages, tools


def _without_empty_lines_in_front(text: str) -> str:
    """The text from the beginning of its first line that is not blank: the line's indentation stays."""
    begin = len(text) - len(text.lstrip())
    return text[max(text.rfind("\n", 0, begin), text.rfind("\r", 0, begin)) + 1 :]


def _columns(fields: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> list[Any]:
    """Distinct values of a column that the format names, or of the usual ones, that hold something."""
    found: list[Any] = []
    for name in [named] if named else usual:
        value = fields.get(name)
        is_empty = decoded(value) in (None, [], {}) or _is_nan(value) or (isinstance(value, str) and not value.strip())
        found += [] if is_empty or value in found else [value]
    return found


def _system(fields: Mapping[str, Any], named: str | None) -> Any:
    found = _columns(fields, named, SYSTEM_COLUMNS)
    if len(found) > 1:
        raise RowRejected(f"two system prompts, in the columns {' and '.join(SYSTEM_COLUMNS)}")
    return found[0] if found else None


def _tools(fields: Mapping[str, Any], named: str | None) -> Any:
    found = _columns(fields, named, TOOLS_COLUMNS)
    if len(found) > 1:
        raise RowRejected(f"two lists of tools: {' and '.join(TOOLS_COLUMNS)} differ")
    return found[0] if found else None


def _require_no_media(fields: Mapping[str, Any]) -> None:
    for column in MEDIA_COLUMNS:
        if not _is_null(fields.get(column)) and fields[column] not in ("", [], {}):
            raise RowRejected(f"the column {column!r} holds {column}, which a language model does not read")


def _require_whole(conversation: Conversation) -> None:
    """Every message says something, a user asks, and there is a response to learn from."""
    for message in conversation.messages:
        role = message.role
        assert role in ROLES
        if message.content is None and not (message.calls or message.reasoning or role == "tool"):
            raise RowRejected(f"not text: the {role} message is NoneType")
        if not (message.text or message.calls or message.reasoning or role == "tool"):
            raise RowRejected(f"empty {role} message")
        if isinstance(calls := decoded(message.keys.get("tool_calls")), str) and calls.strip():
            raise RowRejected(f"'tool_calls' of the {role} message is text that is no JSON: {calls[:40]!r}")
        _require_utf8(message.content, role)
        _require_utf8(message.keys, role)
    _require_utf8(conversation.tools, "tools")
    tools = conversation.tool_list or decoded(conversation.tools)
    for held in (tools, *(part for one in conversation.messages for part in (one.keys, one.calls))):
        _require_shallow(held, 0)
    if all(message.role != "user" for message in conversation.messages):
        raise RowRejected("no instruction: there is no user message")
    if all(message.weight == 0 for message in conversation.messages if message.role == "assistant"):
        raise RowRejected("no response to learn from: every assistant message has the weight 0")


def _require_shallow(value: Any, level: int) -> None:
    """Whether a value nests so little that whatever reads it can, on any stack."""
    if level > MOST_LEVELS:
        raise RowRejected(TOO_DEEP)
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            _require_shallow(part, level + 1)


def _require_utf8(value: Any, what: str) -> None:
    if not value:
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{what} message" if what in ROLES else what
        raise RowRejected(f"invalid UTF-8: a lone surrogate in the {message}") from error


def _word(name: str) -> str:
    return name.strip().rstrip(":").lower().replace("-", "_").replace(" ", "_")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_null(value: Any) -> bool:
    return value is None or _is_nan(value)
