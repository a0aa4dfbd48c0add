"""Jinja templates over the columns of a row, with bounds: a recipe from elsewhere is data, not a program.

A column that a row lacks is null, as if another row's columns were its own. What has no text of its own, such as a
list, is refused rather than printed as Python writes it.
"""

import datetime
import decimal
import math
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.meta import find_undeclared_variables

from nait_assets.errors import SourceError
from nait_assets.sandbox import FAILURES, MOST_CHARACTERS, Sandbox, TooMuch

ROW = "row"
"""The name of the whole row, for columns whose names are no identifiers: `{{ row["Best Answer"] }}`."""
PRINTABLE = (str, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)
MOST_RUNAWAYS = 20
"""Rows for which a template does too much before its source is given up: each takes about a second."""


class Unprintable(ValueError):
    """A template cannot print a row; the message says why, and what to write."""


class RowTemplate:
    """A template of one message.

    Args:
        text: Jinja text of the template.
        empty_if_null: Whether null prints as nothing instead of refusing the row.
    """

    def __init__(self, text: str, empty_if_null: bool = False):
        self._row: Mapping[str, Any] = {}
        self._empty_if_null = empty_if_null
        self._text, self._n_runaways = text, 0
        self._sandbox = Sandbox(self._printed, undefined=StrictUndefined)
        self._template = self._sandbox.bounded(text)
        tree = self._sandbox.parse(text)
        self.columns = _columns(tree)
        self._names_the_row = ROW in find_undeclared_variables(tree)

    def render(self, fields: Mapping[str, Any]) -> str:
        """The message's text.

        Raises:
            Unprintable: The template prints a value that has no text, or fails, or does too much.
            SourceError: It does too much for row after row.
        """
        named = fields if self._names_the_row else [name for name in self.columns if name in fields]
        self._row = _Mapping({name: _guarded(fields[name]) for name in named})
        variables = {**dict.fromkeys(self.columns), ROW: self._row, **self._row}
        self._sandbox.restart()
        size, parts = 0, []
        try:
            for part in self._template.generate(variables):
                size += len(part)
                if size > MOST_CHARACTERS:
                    raise TooMuch(f"the template prints more than {MOST_CHARACTERS:,} characters")
                parts.append(part)
        except Unprintable:
            raise
        except TooMuch as error:
            self._n_runaways += 1
            if self._n_runaways == MOST_RUNAWAYS:
                raise SourceError(
                    f"{error}, for {MOST_RUNAWAYS} rows; write it simpler: {self._text[:80]!r}"
                ) from error
            raise Unprintable(str(error)) from error
        except FAILURES as error:
            said = str(error) or "it nests too deep"
            kind = f"{type(error).__name__}: " if isinstance(error, AttributeError | MemoryError) else ""
            raise Unprintable(f"the template fails: {kind}{said}") from error
        return "".join(parts)

    def _printed(self, value: Any) -> Any:
        if value is None:
            if self._empty_if_null:
                return ""
            raise Unprintable(self._null())
        if isinstance(value, (*PRINTABLE, StrictUndefined)):
            return value
        column = next((name for name, own in self._row.items() if own is value), None)
        raise Unprintable(_advice(column, value))

    def _null(self) -> str:
        """What to say of a null: the names of the row's columns that are null and that the template names."""
        null = sorted(name for name in self.columns if self._row.get(name) is None)
        named = f" ({', '.join(null)})" if null else ""
        example = null[0] if null and null[0].isidentifier() else f'row["{null[0]}"]' if null else "COLUMN"
        guarded = f"{{% if {example} %}}{{{{ {example} }}}}{{% endif %}}"
        return f"a column that the template prints is null{named}; write {guarded} where it may be"


def _advice(column: str | None, value: Any) -> str:
    name = "COLUMN" if column is None else column if column.isidentifier() else f'row["{column}"]'
    what = f"column {column!r} holds" if column is not None else "the template prints"
    if isinstance(value, Mapping):
        key = next(iter(value), "key")
        return f"{what} a mapping, which has no text of its own; write {{{{ {name}[{key!r}] }}}}"
    if isinstance(value, list | tuple):
        what = f"{what} a list, which has no text of its own; write"
        first = value[0] if value else ""
        keys = [key for key in ("content", "value", "text") if isinstance(first, Mapping) and key in first]
        if keys and column is not None:
            turns = f"`format: {{turns: {column}}}`"
            return f"{what} {{{{ {name}[0].{keys[0]} }}}}, or read its turns by {turns}"
        return f"{what} {{{{ {name}[0] }}}} or {{{{ {name} | join(', ') }}}}"
    return f"{what} {type(value).__name__}, which has no text of its own"


class _List(list[Any]):
    """A list that a template can go through, and not print."""

    def __str__(self) -> str:
        raise Unprintable(_advice(None, list(self)))

    __repr__ = __str__

    def __format__(self, _: str) -> str:
        return str(self)


class _Mapping(dict[str, Any]):
    """A mapping in which every key is there, null where the row does not have it; it is not to be printed."""

    def __missing__(self, _: str) -> None:
        return None

    def __str__(self) -> str:
        raise Unprintable(_advice(None, dict(self)))

    __repr__ = __str__

    def __format__(self, _: str) -> str:
        return str(self)


_List.__module__, _List.__name__ = "builtins", "list"  # as Jinja's messages name them
_Mapping.__module__, _Mapping.__name__ = "builtins", "dict"


def _guarded(value: Any) -> Any:
    """A value whose lists and mappings refuse to be printed, and whose NaN, which pandas writes for null, is null."""
    if isinstance(value, Mapping):
        return _Mapping({str(key): _guarded(part) for key, part in value.items()})
    if isinstance(value, list | tuple):
        return _List(_guarded(part) for part in value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _columns(tree: nodes.Template) -> frozenset[str]:
    """The columns that a template names, by their own name or through `row`."""
    found = find_undeclared_variables(tree)
    if ROW not in found:
        return frozenset(found)
    through_row = {
        node.arg.value
        for node in tree.find_all(nodes.Getitem)
        if isinstance(node.node, nodes.Name) and node.node.name == ROW and isinstance(node.arg, nodes.Const)
    }
    through_row |= {
        node.attr
        for node in tree.find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name) and node.node.name == ROW and node.attr not in ("get", "items", "keys")
    }
    return frozenset((found - {ROW}) | {str(name) for name in through_row})
