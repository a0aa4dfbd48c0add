"""One source row as one conversation: formats, normalisation, identity.

A row that cannot be a conversation raises `RowRejected`.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nait_assets.recipe import FieldTemplates, FormatName

Message = dict[str, str]
ROLE_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
ROLES = ("system", "user", "assistant", "tool")
COLUMNS: dict[FormatName, tuple[str, ...]] = {
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
}


class RowRejected(ValueError):
    """A row is not a conversation; the message is the reason that the `rejected` table states."""


def reader_of(row_format: FormatName | FieldTemplates) -> Callable[[Mapping[str, Any]], list[Message]]:
    """The function that turns a row's fields into a normalised conversation, raising `RowRejected` where it cannot."""
    if isinstance(row_format, FieldTemplates):
        return _templated(row_format)
    return {"messages": _from_messages, "alpaca": _from_alpaca, "sharegpt": _from_sharegpt}[row_format]


def columns_of(row_format: FormatName | FieldTemplates) -> set[str]:
    """The columns that a source needs to have for a format."""
    if not isinstance(row_format, FieldTemplates):
        return set(COLUMNS[row_format])
    environment = ImmutableSandboxedEnvironment()
    templates = [row_format.user, row_format.assistant, row_format.system or ""]
    return {column for template in templates for column in meta.find_undeclared_variables(environment.parse(template))}


def sample_id(messages: list[Message]) -> str:
    """Sixteen hex digits of the SHA-256 of the normalised conversation: the same content has the same id everywhere."""
    canonical = json.dumps([[message["role"], message["content"]] for message in messages], ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _normalised(messages: list[tuple[Any, Any]]) -> list[Message]:
    """Unicode NFC, line ends as line feeds, outer white space gone, roles by their common names."""
    conversation = []
    for role, content in messages:
        if not isinstance(role, str) or (name := ROLE_NAMES.get(role.lower(), role.lower())) not in ROLES:
            raise RowRejected(f"unknown role {role!r}")
        if not isinstance(content, str):
            raise RowRejected(f"not text: the {name} message is {type(content).__name__}")
        try:
            content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowRejected(f"invalid UTF-8: a lone surrogate in the {name} message") from error
        text = unicodedata.normalize("NFC", content).replace("\r\n", "\n").replace("\r", "\n").strip()
        if not text:
            raise RowRejected(f"empty {name} message")
        conversation.append({"role": name, "content": text})
    if not conversation:
        raise RowRejected("empty: no messages")
    if conversation[-1]["role"] != "assistant":
        raise RowRejected("no response: the last message is not the assistant's")
    if all(message["role"] != "user" for message in conversation):
        raise RowRejected("no instruction: there is no user message")
    return conversation


def _listed(fields: Mapping[str, Any], column: str, role: str, content: str) -> list[Message]:
    turns = fields.get(column)
    if not isinstance(turns, list | tuple) or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowRejected(f"{column!r} is not a list of messages")
    return _normalised([(turn.get(role), turn.get(content)) for turn in turns])


def _from_messages(fields: Mapping[str, Any]) -> list[Message]:
    return _listed(fields, "messages", "role", "content")


def _from_sharegpt(fields: Mapping[str, Any]) -> list[Message]:
    return _listed(fields, "conversations", "from", "value")


def _from_alpaca(fields: Mapping[str, Any]) -> list[Message]:
    instruction, context = fields.get("instruction"), fields.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(context, str):
        raise RowRejected("not text: instruction and input must be strings")
    instruction, context = instruction.strip(), context.strip()
    return _normalised(
        [("user", f"{instruction}\n\n{context}" if context else instruction), ("assistant", fields.get("output"))]
    )


def _templated(templates: FieldTemplates) -> Callable[[Mapping[str, Any]], list[Message]]:
    def reject_null(value: Any) -> Any:
        if value is None:
            raise RowRejected("a column that the template prints is null")
        return value

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=reject_null, autoescape=False)
    roles = {"system": templates.system, "user": templates.user, "assistant": templates.assistant}
    compiled = [(role, environment.from_string(template)) for role, template in roles.items() if template is not None]

    def read(fields: Mapping[str, Any]) -> list[Message]:
        try:
            rendered: list[tuple[Any, Any]] = [(role, template.render(fields)) for role, template in compiled]
        except RowRejected:
            raise
        except (TemplateError, ArithmeticError, TypeError, LookupError, ValueError) as error:
            raise RowRejected(f"the template fails: {error}") from error
        return _normalised(rendered)

    return read
