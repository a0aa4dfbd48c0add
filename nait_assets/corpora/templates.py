"""Jinja templates over the columns of a row, with bounds: a recipe from elsewhere is data, not a program.

A column that a row lacks is null, as if another row's columns were its own. What has no text of its own, such as a
list, is refused rather than printed as Python writes it.
"""

import datetime
import decimal
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROW = "row"
"""The name of the whole row, for columns whose names are no identifiers: `{{ row["Best Answer"] }}`."""
PRINTABLE = (str, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)
MOST_STEPS = 1_000_000
MOST_CHARACTERS = 10_000_000
WIDENING = ("center", "ljust", "rjust", "zfill", "expandtabs")
"""Methods of text that make much of little."""
PRINTING = (
    *(
        "capitalize",
        "e",
        "escape",
        "forceescape",
        "indent",
        "lower",
        "pprint",
        "replace",
        "string",
        "striptags",
        "title",
    ),
    *("trim", "truncate", "upper", "urlize", "wordwrap"),
)
"""Filters that print what they are given: to them null is the word "None"."""
WIDE = re.compile(r"\d{5}|\*|\{[^}]*:[^}]*\{")
"""What makes a format wide: a width of five digits, or one that is an argument."""


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
        environment = _Sandbox(undefined=StrictUndefined, finalize=self._printed, autoescape=False, optimized=False)
        environment.filters |= {"_printed": self._printed, "_counted": environment.counted}
        tree = environment.parse(text)
        self.columns = _columns(tree)
        self._names_the_row = ROW in find_undeclared_variables(tree)
        self._environment = environment
        self._template = environment.from_string(_bounded(tree))

    def render(self, fields: Mapping[str, Any]) -> str:
        """The message's text.

        Raises:
            Unprintable: The template prints a value that has no text, or fails, or does too much.
        """
        named = fields if self._names_the_row else [name for name in self.columns if name in fields]
        self._row = _Mapping({name: _guarded(fields[name]) for name in named})
        variables = {**dict.fromkeys(self.columns), ROW: self._row, **self._row}
        self._environment.n_steps = 0
        size, parts = 0, []
        try:
            for part in self._template.generate(variables):
                size += len(part)
                if size > MOST_CHARACTERS:
                    raise Unprintable(f"the template prints more than {MOST_CHARACTERS:,} characters")
                parts.append(part)
        except Unprintable:
            raise
        except (TemplateError, ArithmeticError, TypeError, LookupError, ValueError, RecursionError) as error:
            raise Unprintable(f"the template fails: {error}") from error
        except (AttributeError, MemoryError) as error:
            raise Unprintable(f"the template fails: {type(error).__name__}: {error}") from error
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


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which also the work is bounded."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.n_steps = 0
        del self.globals["lipsum"], self.filters["center"]
        self.filters["format"] = self._formatted
        self.filters |= {name: self._printing(self.filters[name]) for name in PRINTING}
        self.filters["join"] = self._printing(self.filters["join"], is_join=True)

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, all loops of a template counted together."""
        for item in items:
            self.n_steps += 1
            if self.n_steps > MOST_STEPS:
                raise Unprintable(f"the template takes more than {MOST_STEPS:,} steps")
            yield item

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not (isinstance(obj, str) and attr in WIDENING) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if isinstance(text := getattr(value, "__self__", None), str):
            _require_narrow(text)
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        return lambda *values, **named: formatted(
            *map(self._not_null, values), **{name: self._not_null(one) for name, one in named.items()}
        )

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return self._formatted(left, right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(right) <= 64 and abs(left) <= 1e6):
            raise Unprintable("the template raises to a power that is too high")
        if operator == "*" and not numbers:
            size, times = (len(left), right) if hasattr(left, "__len__") else (len(right), left)
            if isinstance(times, int) and size * times > MOST_CHARACTERS:
                raise Unprintable(f"the template repeats text to more than {MOST_CHARACTERS:,} characters")
        return super().call_binop(context, operator, left, right)

    def _printing(self, own: Callable[..., Any], is_join: bool = False) -> Callable[..., Any]:
        """One of Jinja's filters that refuses what is not to be printed: its value, or items of the list it joins."""
        place = int(hasattr(own, "jinja_pass_arg"))  # a context stands in front of the value
        printed = self.finalize or str

        @functools.wraps(own)
        def checked(*values: Any, **options: Any) -> Any:
            value = values[place]
            if not is_join:
                value = printed(value)
            elif isinstance(value, Iterable) and len(values) < place + 3 and "attribute" not in options:
                value = [printed(item) for item in value]
            return own(*values[:place], value, *values[place + 1 :], **options)

        return checked

    def _formatted(self, text: Any, *values: Any) -> str:
        """`text % values`, as Jinja's filter and operator have it, of a bounded width."""
        _require_narrow(str(text))
        given = values[0] if len(values) == 1 else values
        given = tuple(map(self._not_null, given)) if isinstance(given, tuple) else self._not_null(given)
        return str(text) % given

    def _not_null(self, value: Any) -> Any:
        """A value to be formatted; null is printed as everywhere else."""
        return self.finalize(value) if value is None and self.finalize is not None else value


def _require_narrow(text: str) -> None:
    if WIDE.search(text):
        raise Unprintable(f"the template formats by {text[:40]!r}, whose width is not bounded")


def _bounded(tree: nodes.Template) -> nodes.Template:
    """The template with its loops counted, and with what `~` joins printed as everything else is."""

    def through(name: str, node: nodes.Node) -> nodes.Filter:
        assert isinstance(node, nodes.Expr)
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    for loop in tree.find_all(nodes.For):
        loop.iter = through("_counted", loop.iter)
    for joined in tree.find_all(nodes.Concat):
        joined.nodes = [through("_printed", node) for node in joined.nodes]
    for macro in tree.find_all(nodes.Macro):  # which may call itself
        tick = nodes.For(
            nodes.Name("_", "store"), through("_counted", nodes.List([nodes.Const(0)])), [], [], None, False
        )
        macro.body.insert(0, tick.set_lineno(macro.lineno, override=True))
    tree.set_environment(tree.environment)  # type: ignore[arg-type]
    return tree


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
