"""Which format a source's rows are in, told from the first of them, and the lines of a recipe that say so."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nait_assets.conversation import decoded
from nait_assets.corpora.formats import SYSTEM_COLUMNS, RowRejected, turns_in
from nait_assets.recipe import FieldTemplates, TurnsFormat

SAMPLE_ROWS = 200
"""Rows that are looked at."""
TURN_COLUMNS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat", "chat_messages")
QUESTIONS = (
    *("instruction", "prompt", "question", "query", "problem", "user", "human", "task", "request", "message", "input"),
    *("inputs", "goal", "source"),
)
ANSWERS = (
    *("output", "response", "completion", "answer", "solution", "assistant", "reply", "chosen", "best answer"),
    *("target", "targets", "gpt", "generation", "final_answer", "label"),
)
CONTEXTS = ("input", "context")
KEYS = (
    *(("role", "content"), ("from", "value"), ("role", "text"), ("role", "value"), ("from", "content")),
    *(("from", "text"), ("speaker", "text"), ("speaker", "content"), ("author", "text"), ("author", "content")),
)
AnyFormat = str | TurnsFormat | FieldTemplates


def detect(rows: Sequence[Mapping[str, Any]]) -> AnyFormat | None:
    """The format of rows, as a recipe would have it; None where no column is a conversation or a part of one.

    Args:
        rows: Fields of the first rows of a source.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    samples = {name: [row[name] for row in rows if row.get(name) is not None][:20] for name in columns}
    turns = [name for name in columns if _holds_turns(samples[name])]
    by_name = {name.lower(): name for name in columns}
    for name in TURN_COLUMNS:
        if by_name.get(name) in turns:
            return _turns_format((by_name[name],), samples)
    if "chosen" in turns:
        return _turns_format(("chosen",) if _repeats_the_prompt(rows) else ("prompt", "chosen"), samples)
    if "prompt" in turns and (answer := next((name for name in ANSWERS if samples.get(name)), None)):
        return _turns_format(("prompt", answer), samples)
    others = [name for name in turns if name.lower() not in ("rejected", "tools", "functions")]
    if len(others) == 1:
        return _turns_format((others[0],), samples)
    return _pair(columns, by_name, samples)


def recipe_lines(row_format: AnyFormat) -> str:
    """A format as it is written behind `format:` in a recipe."""
    if isinstance(row_format, str):
        return row_format
    fields = row_format.model_dump(exclude_none=True)
    parts = (f"{name}: {_yaml(value)}" for name, value in fields.items())
    return f"{{{', '.join(parts)}}}"


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    plain = value.replace("_", "").isalnum() and not value.isdigit()
    return value if plain else json.dumps(value, ensure_ascii=False)


def _holds_turns(values: Sequence[Any]) -> bool:
    """Whether values are turns with a role and a text."""
    found = 0
    for value in values:
        if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return False
        try:
            turns = list(turns_in(value, ""))
        except RowRejected:
            return False
        if turns:
            if _keys_of(turns) is None:
                return False
            found += 1
    return found > 0


def _keys_of(turns: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    return next((keys for keys in KEYS if all(keys[0] in turn for turn in turns) and keys[1] in turns[0]), None)


def _turns_format(names: tuple[str, ...], samples: Mapping[str, Sequence[Any]]) -> AnyFormat:
    first = next(turns for value in samples[names[0]] if (turns := list(turns_in(value, names[0]))))
    role, content = _keys_of(first) or KEYS[0]
    usual = (role, content) in KEYS[:2]
    if usual and names in (("messages",), ("conversations",)):
        return "messages" if names == ("messages",) else "sharegpt"
    keys = {} if usual else {"role": role, "content": content}
    return TurnsFormat(turns=names[0] if len(names) == 1 else names, **keys)


def _repeats_the_prompt(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the chosen conversation begins with its prompt, as one without a column for it does."""
    for row in rows:
        prompt, chosen = decoded(row.get("prompt")), decoded(row.get("chosen"))
        if isinstance(prompt, list | tuple) and isinstance(chosen, list | tuple):
            return list(chosen[: len(prompt)]) == list(prompt)
    return True


def _pair(columns: Sequence[str], by_name: Mapping[str, str], samples: Mapping[str, Sequence[Any]]) -> AnyFormat | None:
    """A question and its answer in columns of their own."""
    texts = {name for name in columns if samples[name] and all(isinstance(one, str) for one in samples[name])}
    numbers = {name for name in columns if samples[name] and all(type(one) in (int, float) for one in samples[name])}
    answer = next((by_name[name] for name in ANSWERS if by_name.get(name) in texts | numbers), None)
    question = next((by_name[name] for name in QUESTIONS if by_name.get(name) in texts - {answer}), None)
    if question is None or answer is None:
        return None
    if {"instruction", "output"} == {question, answer}:
        return "alpaca"
    context = next((by_name[name] for name in CONTEXTS if by_name.get(name) in texts - {question, answer}), None)
    system = next((by_name[name] for name in SYSTEM_COLUMNS if by_name.get(name) in texts), None)
    user = f"{{{{ {_variable(question)} }}}}"
    if context is not None and question.lower() != "input":
        other = _variable(context)
        user += f"{{% if {other} %}}\n\n{{{{ {other} }}}}{{% endif %}}"
    return FieldTemplates(
        user=user,
        assistant=f"{{{{ {_variable(answer)} }}}}",
        system=None if system is None else f"{{{{ {_variable(system)} }}}}",
    )


def _variable(column: str) -> str:
    return column if column.isidentifier() else f"row[{json.dumps(column, ensure_ascii=False)}]"
