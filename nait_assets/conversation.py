"""A conversation: what its source says, to the byte, and what of it makes two conversations the same.

One object travels from a source's row to a subset's files. Belongs here: its parts, its identity, its form in tables
and for a chat template. Does not belong here: how a row becomes one (`corpora/formats.py`).
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import polars as pl

ROLES = ("system", "user", "assistant", "tool")
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names for what an assistant thinks before it answers; a chat template gets it under the one that it reads."""
FURTHER_REASONING_KEYS = ("reasoning_details", "thought", "thoughts")
"""Names that no chat template reads: the model sees their text under another."""
SEEN_KEYS = ("name", "tool_call_id", "tools", "functions", "channel", "recipient")
"""Further keys of a message that chat templates read: they are shown to the model as they came."""
TRAIN_KEYS = ("train", "training", "trainable", "train_on", "loss", "loss_mask", "loss_weight")
"""Flags of a message: false, or 0, says that no loss is to be taken on it."""
ARGUMENTS_KEYS = ("arguments", "parameters", "input", "args", "kwargs")
NO_WORDS = ("false", "no", "off")


def normalised(text: str) -> str:
    """Unicode NFC, line ends as line feeds, outer white space gone: what identity and the model's reading rest on."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: One of `ROLES`.
        content: The source's text, to the byte; None where a call stands in place of a text.
        keys: Whatever else the source's message holds, as it came.
    """

    role: str
    content: str | None
    keys: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """The content, normalised; "" where there is none."""
        return normalised(self.content or "")

    @cached_property
    def calls(self) -> list[dict[str, Any]]:
        """Calls of tools: `name`, `arguments` (decoded where they are JSON text), and `id` where there is one."""
        calls = decoded(self.keys.get("tool_calls")) or []
        legacy = decoded(self.keys.get("function_call"))
        found = [*(calls if isinstance(calls, list) else [calls]), *([legacy] if legacy else [])]
        return [_call(each) for each in found if each]

    @cached_property
    def thoughts(self) -> list[str]:
        """Distinct texts of what the assistant thinks, normalised: often one, under several names."""
        texts = (_thought(self.keys.get(key)) for key in (*REASONING_KEYS, *FURTHER_REASONING_KEYS))
        return list(dict.fromkeys(text for text in texts if text))

    @property
    def reasoning(self) -> str:
        """What the assistant thinks before it answers, normalised; "" where nothing is written."""
        return self.thoughts[0] if self.thoughts else ""

    @cached_property
    def weight(self) -> float:
        """Of the turn in a training loss: 0 where it is not to be trained on, 1 where nothing is said."""
        if any(_says_no(self.keys.get(key)) for key in TRAIN_KEYS):
            return 0.0
        weight = self.keys.get("weight")
        try:
            number = 1.0 if weight is None else float(weight)
        except (TypeError, ValueError):
            return 1.0
        return 1.0 if math.isnan(number) else number

    @property
    def said(self) -> str:
        """The text as methods that read text get it: a call is a line of JSON behind it."""
        calls = (
            json.dumps({"name": call["name"], "arguments": call["arguments"]}, ensure_ascii=False, default=str)
            for call in self.calls
        )
        return "\n".join([*([self.text] if self.text else []), *calls])

    def identity(self) -> list[Any]:
        """What distinguishes a message: its role and normalised text, and further keys only where they are there."""
        if not self.keys:  # what follows would add nothing, slowly
            return [self.role, self.text]
        more: dict[str, Any] = {key: canonical(decoded(self.keys.get(key))) for key in SEEN_KEYS}
        more |= {"reasoning": self.reasoning, "thoughts": self.thoughts[1:], "calls": canonical(self.calls)}
        if self.role == "assistant" and self.weight != 1:
            more["weight"] = self.weight
        more = {key: value for key, value in more.items() if value not in (None, "", [], {})}
        return [self.role, self.text, *([more] if more else [])]

    def source(self) -> dict[str, Any]:
        """The message as its source has it, under the common names of role and content."""
        return {"role": self.role, "content": self.content, **self.keys}

    def for_template(self, reads: Callable[[str], bool]) -> dict[str, Any]:
        """The message as a chat template takes it: normalised text, calls whose arguments are objects.

        Args:
            reads: Whether the template reads a key.
        """
        shown: dict[str, Any] = {"role": self.role, "content": self.text}
        shown |= {key: value for key in SEEN_KEYS if (value := self.keys.get(key)) is not None}
        if self.calls:
            shown["tool_calls"] = [
                {
                    "type": "function",
                    **({"id": call["id"]} if "id" in call else {}),
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in self.calls
            ]
        if self.reasoning:
            given = [key for key in REASONING_KEYS if self.keys.get(key)]
            names = (*given, *REASONING_KEYS)
            key = next((key for key in names if reads(key)), names[0])
            shown[key] = self.reasoning
        return shown


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools that the assistant may call.

    Attributes:
        messages: In order.
        tools: Descriptions of tools as the source has them: a list, or its JSON text; None where there are none.
    """

    messages: tuple[Message, ...]
    tools: Any = None

    @classmethod
    def of(cls, messages: "Sequence[Mapping[str, Any]] | Conversation") -> "Conversation":
        """A conversation of messages with a role, a content and perhaps more; one that is a conversation stays so."""
        if isinstance(messages, Conversation):
            return messages
        parts = [dict(message) for message in messages]
        return cls(tuple(Message(part.pop("role"), part.pop("content", None), part) for part in parts))

    @classmethod
    def stored(cls, messages: Sequence[Mapping[str, Any]], source: str | None) -> "Conversation":
        """The conversation in a row of a table, by its columns `messages` and `conversation`."""
        if source is None:
            return cls.of(messages)
        content = json.loads(source)
        return cls(cls.of(content["messages"]).messages, content.get("tools"))

    @cached_property
    def tool_list(self) -> list[dict[str, Any]]:
        """Descriptions of tools in the shape that chat templates take: `{type: function, function: {...}}`."""
        tools = decoded(self.tools)
        tools = [decoded(tool) for tool in tools] if isinstance(tools, list | tuple) else [tools]
        if not all(isinstance(tool, Mapping) for tool in tools):
            return []
        return [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]

    @cached_property
    def sample_id(self) -> str:
        """Sixteen hex digits of the SHA-256 of all that a model can see of it or learn from it.

        The same content has the same id everywhere. Keys that no template reads, such as a time, are no part of it.
        """
        turns: Any = [message.identity() for message in self.messages]
        tools = canonical(self.tool_list or decoded(self.tools))
        content = {"messages": turns, "tools": tools} if tools else turns
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def before_response(self) -> "Conversation":
        """What stands before the first response; a conversation that begins with one has the rest instead."""
        first = next(place for place, message in enumerate(self.messages) if message.role == "assistant")
        kept = self.messages[:first] or tuple(message for message in self.messages if message.role != "assistant")
        return replace(self, messages=kept)

    def folded(self) -> "Conversation":
        """The same without system messages: their texts stand in front of the next user turn.

        Before a response, or at the end, where no user turn follows, they are a user turn of their own.
        """
        messages: list[Message] = []
        pending: list[str] = []
        for message in self.messages:
            if message.role == "system":
                pending += [message.text] if message.text else []
                continue
            if message.role == "user":
                message, pending = replace(message, content="\n\n".join([*pending, message.text])), []
            elif pending and message.role == "assistant":
                messages.append(Message("user", "\n\n".join(pending)))
                pending = []
            messages.append(message)
        messages += [Message("user", "\n\n".join(pending))] if pending else []
        return replace(self, messages=tuple(messages))

    def plain(self) -> list[dict[str, str]]:
        """The messages as tables keep them: role and normalised text, with calls as lines of JSON."""
        return [{"role": message.role, "content": message.said} for message in self.messages]

    def source(self) -> dict[str, Any]:
        """The conversation as its source has it: `messages`, and `tools` where there are some."""
        tools = {} if self.tools is None else {"tools": self.tools}
        return {"messages": [message.source() for message in self.messages], **tools}

    def source_text(self) -> str | None:
        """`source` as JSON, or None where it says no more than `plain`."""
        if self.tools is None and not any(one.keys or one.content != one.text for one in self.messages):
            return None
        return json.dumps(self.source(), ensure_ascii=False, default=str)


def conversations_of(samples: pl.DataFrame) -> list[tuple[str, Conversation]]:
    """Pairs of `sample_id` and conversation, of a frame with `messages` and, where it has that, `conversation`."""
    if "conversation" not in samples.columns:
        samples = samples.with_columns(pl.lit(None, pl.String).alias("conversation"))
    rows = samples.select("sample_id", "messages", "conversation").iter_rows()
    return [(name, Conversation.stored(messages, source)) for name, messages, source in rows]


def messages_of(samples: pl.DataFrame) -> list[tuple[str, list[dict[str, str]]]]:
    """Pairs of `sample_id` and messages as text, of a frame with these two columns."""
    return list(zip(samples["sample_id"].to_list(), samples["messages"].to_list(), strict=True))


def sample_id(messages: Sequence[Mapping[str, Any]]) -> str:
    """The identity of a conversation of these messages."""
    return Conversation.of(messages).sample_id


def decoded(value: Any) -> Any:
    """A value, or what it holds where it is JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def canonical(value: Any) -> Any:
    """A value without its nulls: Arrow writes one for each key that another row has."""
    if isinstance(value, Mapping):
        return {str(key): canonical(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [canonical(part) for part in value]
    return normalised(value) if isinstance(value, str) else value


def _call(call: Any) -> dict[str, Any]:
    call = decoded(call)
    if not isinstance(call, Mapping):
        return {"name": str(call), "arguments": {}}
    function = decoded(call.get("function")) or call
    if not isinstance(function, Mapping):  # OpenAI's other shape: the name alone
        function = {**call, "name": function}
    arguments = next((function[key] for key in ARGUMENTS_KEYS if function.get(key) is not None), None)
    named = {"name": str(function.get("name")), "arguments": {} if arguments is None else decoded(arguments)}
    return {**named, "id": str(call["id"])} if call.get("id") is not None else named


def _thought(value: Any) -> str:
    """The text of what is thought, which may stand in parts or as their JSON text."""
    parts = decoded(value)
    if isinstance(parts, Mapping | list | tuple):
        texts = []
        for part in [parts] if isinstance(parts, Mapping) else parts:
            held = part if isinstance(part, Mapping) else {"text": part}
            texts += [held[key] for key in ("text", "thinking", "content", "summary") if isinstance(held.get(key), str)]
        if texts:
            return normalised("\n".join(texts))
    return normalised(value) if isinstance(value, str) else ""


def _says_no(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in NO_WORDS or value.strip() in ("0", "0.0")
    return value is not None and not value
