"""Jinja for templates that strangers write: none of their code runs, work and memory are bounded.

Belongs here: the environment that rows' templates and chat templates share. Does not belong here: what either of them
may print (`corpora/templates.py`, `models/chat_template.py`).
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_STEPS = 1_000_000
"""Of one rendering, about a second: passes of loops, calls, filters, comparisons, and `WEIGHT` characters of each."""
WEIGHT = 64
MOST_CHARACTERS = 10_000_000
MOST_TEMPLATE_CHARACTERS = 200_000
MOST_BITS = 4096
WIDENING = ("center", "ljust", "rjust", "zfill", "expandtabs", "translate", "encode", "to_bytes")
"""Methods that make much of little."""
QUADRATIC = ("strip", "lstrip", "rstrip", "trim", "rfind", "rindex", "rsplit", "rpartition")
"""Methods and filters of texts that compare each character with each of those that they are given, at worst."""
LAZY = (
    *("length", "count", "first", "last", "items", "default", "d", "map", "attr", "batch", "slice"),
    *("select", "selectattr", "reject", "rejectattr"),
)
"""Filters whose own work does not grow with what is inside of their value."""
COMPARING = (
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "lower",
    "upper",
    "filter",
    "test",
)
"""Tests that go through all of a value: that compare, write or hash it."""
WIDE = re.compile(r"\d{5}|\*|\{[^}]*:[^}]*\{")
"""What makes a format wide: a width of five digits, or one that is an argument."""
FAILURES = (
    *(TemplateError, ArithmeticError, TypeError, LookupError, ValueError),
    *(RecursionError, AttributeError, MemoryError, SyntaxError),
)
"""What a template can raise that is compiled or rendered here, whoever wrote it."""


class TooMuch(ValueError):
    """A template does more than it may; the message says what."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which also the work is bounded.

    Args:
        printed: What stands for a value that the template prints; it raises where that is not to be printed.
        filters: Filters beside Jinja's own, or instead of them.
        **settings: settings of Jinja's environment.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(
        self, printed: Callable[[Any], Any], filters: Mapping[str, Callable[..., Any]] | None = None, **settings: Any
    ):
        super().__init__(finalize=self._finalized, autoescape=False, optimized=False, **settings)
        self._printed, self._n_left = printed, MOST_STEPS
        del self.globals["lipsum"], self.filters["center"], self.filters["random"]
        self.filters |= {**(filters or {}), "format": self._formatted}
        self.filters = {name: self._weighing(name, own) for name, own in self.filters.items()}
        self.filters |= {"_printed": self._charged_printed, "_counted": self._counted, "_weighed": self._weighed}
        self.filters["_sliced"] = self._sliced
        self.tests |= {name: self._comparing(self.tests[name]) for name in COMPARING}  # type: ignore[arg-type]

    def bounded(self, text: str) -> Any:
        """A template; `render` and `generate` of it raise `TooMuch` where it does too much since the last `restart`.

        Raises:
            TooMuch: The text is too long, or switches escaping by an expression.
            TemplateError: It is no template; Python's parser may raise others of `FAILURES`.
        """
        if len(text) > MOST_TEMPLATE_CHARACTERS:
            raise TooMuch(f"the template has {len(text):,} characters, more than {MOST_TEMPLATE_CHARACTERS:,}")
        return self.from_string(_bounded(self.parse(text)))

    def restart(self) -> None:
        """Forget what was done: another rendering begins."""
        self._n_left = MOST_STEPS

    def charge(self, n_steps: int) -> None:
        """Take steps.

        Raises:
            TooMuch: There are none left.
        """
        self._n_left -= n_steps
        if self._n_left < 0:
            raise TooMuch(f"the template takes more than {MOST_STEPS:,} steps")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        if attr in WIDENING or isinstance(obj, bytes | bytearray | memoryview):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call that a template makes, charged for; named as Jinja's, so that `self` can be an argument of it."""
        owner = getattr(__obj, "__self__", None)
        __self._weigh_call(owner, getattr(__obj, "__name__", ""), args)
        if not isinstance(__obj, Macro | LoopContext):  # all else may hash or print what it is given
            __self._weigh_all((*args, *kwargs.values()))
        args = tuple(__self._counted(one) if isinstance(one, Iterator) else one for one in args)
        return super().call(__context, __obj, *args, **kwargs)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item; a key is charged for, as a pair of a pair, a hundred deep, is hashed 2**100 times."""
        self._weigh(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` of a bounded width, where that is what a template calls."""
        if isinstance(text := getattr(value, "__self__", None), str):
            self._require_narrow(text)
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        return lambda *values, **named: formatted(
            *map(self._to_format, values), **{name: self._to_format(one) for name, one in named.items()}
        )

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """What an operator of a template gives, if that is not too large."""
        if operator == "%" and isinstance(left, str):
            return self._formatted(left, right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(right) <= 64 and abs(left) <= 1e6):
            raise TooMuch("the template raises to a power that is too high")
        if operator == "*" and not numbers and (hasattr(left, "__len__") or hasattr(right, "__len__")):
            size, times = (len(left), right) if hasattr(left, "__len__") else (len(right), left)
            if isinstance(times, int) and size * times > MOST_CHARACTERS:
                raise TooMuch(f"the template repeats text to more than {MOST_CHARACTERS:,} characters")
        result = super().call_binop(context, operator, left, right)
        self.charge(1 + _shallow(result))
        if isinstance(result, int) and result.bit_length() > MOST_BITS:
            raise TooMuch("the template computes a number that is too large")
        return result

    @pass_context  # what needs a context is not computed while a template is compiled
    def _finalized(self, _: Any, value: Any) -> Any:
        return self._charged_printed(value)

    def _charged_printed(self, value: Any) -> Any:
        self.charge(1 + _shallow(value))
        return self._printed(value)

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, all loops of a template counted together."""
        for item in items:
            self.charge(1)
            yield item

    def _weighed(self, value: Any) -> Any:
        """A value whose size is charged, with all that is in it; what comes one by one is counted as it comes."""
        if isinstance(value, Iterator):
            return self._counted(value)
        self._weigh(value)
        return value

    def _sliced(self, value: Any) -> Any:
        self.charge(1 + _shallow(value))
        return value

    def parts(self, value: Any) -> Iterator[Any]:
        """Whatever is in a value and has no parts of its own, each charged for by its size."""
        pending = [value]
        while pending:
            part = pending.pop()
            if isinstance(part, Mapping):
                pending.extend(part.keys())
                pending.extend(part.values())
            elif isinstance(part, list | tuple | set | frozenset):
                pending.extend(part)
            else:
                self.charge(_shallow(part))
                yield part
            self.charge(1)

    def _weigh(self, value: Any) -> None:
        if isinstance(value, str):
            self.charge(1 + len(value) // WEIGHT)
            return
        for _ in self.parts(value):
            pass

    def _weigh_all(self, values: Iterable[Any]) -> None:
        for value in values:
            if not isinstance(value, Iterator):
                self._weigh(value)

    def _weigh_call(self, owner: Any, name: str, given: tuple[Any, ...]) -> None:
        """Charge for a call: of a text or a list all of it, else the outer size of what is given."""
        if isinstance(owner, str | list | tuple):
            self._weigh([owner, *(one for one in given if not isinstance(one, Iterator))])
        else:
            self.charge(1 + sum(_shallow(one) for one in given))
        if isinstance(owner, str):
            self._weigh_growth(name, owner, given)

    def _weigh_growth(self, name: str, value: Any, given: tuple[Any, ...]) -> None:
        """Charge for what a filter or a method makes of a value, where that may be much more than the value."""
        numbers = [abs(one) for one in given if isinstance(one, int)]
        texts = [part for part in self.parts([one for one in given if not isinstance(one, Iterator)])]
        texts = [part for part in texts if isinstance(part, str)]
        n_added = sum(map(len, texts))
        if name == "replace" and len(texts) > 1:
            times = str(value).count(texts[0])
            self.charge(times * len(texts[1]) // WEIGHT)
        elif name == "join":
            items = next((one for one in (given[:1] if isinstance(value, str) else (value,))), ())
            between = value if isinstance(value, str) and not texts else "".join(texts)
            self.charge(len(between) * _n_items(items) // WEIGHT)
        elif name == "indent":
            self.charge((max(numbers, default=0) + len("".join(texts))) * (1 + str(value).count("\n")) // WEIGHT)
        elif name in ("batch", "slice", "tojson", "wordwrap", "truncate", "round"):
            widest = max(numbers, default=0)
            if widest > 10_000:
                raise TooMuch(f"the template uses {name!r} with {widest:,}, which is too large")
            n_places = {"tojson": lambda: sum(1 for _ in self.parts(value)), "wordwrap": lambda: len(str(value))}
            self.charge((widest + n_added) * n_places.get(name, lambda: 1)() // WEIGHT)
        elif name in ("striptags", "urlize", "wordwrap"):
            text = str(value)  # these go through a text once for each tag, or each bracket of a word
            self.charge(len(text) * (1 + sum(map(text.count, "<()[]"))) // (WEIGHT * 1000))
            self.charge(len(text.split()) * n_added // WEIGHT)
        elif name in QUADRATIC:
            self.charge(len(str(value)) * n_added // WEIGHT**2)
        elif name == "urlencode":
            self.charge(sum(len(str(part)) for part in self.parts(value)) // 4)
        elif name == "sum" and given and not isinstance(given[-1], int | float):
            self.charge(_n_items(value) ** 2)  # of lists: each sum is a copy

    def _weighing(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is charged for, and that prints nothing that is not to be printed."""
        place = int(hasattr(own, "jinja_pass_arg"))  # a context stands in front of the value
        prints = name in PRINTING

        @functools.wraps(own)
        def weighing(*values: Any, **options: Any) -> Any:
            value, given = values[place], values[place + 1 :]
            if name == "join" and _joins_items(value, given, options):
                value = [self._charged_printed(item) for item in value]
            elif prints:
                value = self._charged_printed(value)
            elif isinstance(value, Iterator):
                value = self._counted(value) if name in LAZY else map(self._weighed, self._counted(value))
            elif name in LAZY:
                self.charge(1)
            else:
                self._weigh(value)
            self._weigh_all((*given, *options.values()))
            self._weigh_growth(name, value, (*given, *options.values()))
            return own(*values[:place], value, *given, **options)

        return weighing

    def _comparing(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def comparing(*values: Any) -> Any:
            return own(*map(self._weighed, values))

        return comparing

    def _formatted(self, text: Any, *values: Any) -> str:
        """`text % values`, as Jinja's filter and operator have it, of a bounded width."""
        self._require_narrow(str(text))
        given = values[0] if len(values) == 1 else values
        given = tuple(map(self._to_format, given)) if isinstance(given, tuple) else self._to_format(given)
        return str(text) % given

    def _require_narrow(self, text: str) -> None:
        if WIDE.search(text):
            raise TooMuch(f"the template formats by {text[:40]!r}, whose width is not bounded")
        self.charge((text.count("%") + text.count("{")) * 10_000 // WEIGHT)

    def _to_format(self, value: Any) -> Any:
        """A value to be formatted: numbers as they are, all else as it is printed."""
        if isinstance(value, Mapping):
            self._weigh(value)
        return value if isinstance(value, int | float | Mapping) else self._charged_printed(value)


PRINTING = (
    *("capitalize", "e", "escape", "forceescape", "indent", "lower", "pprint", "replace", "string", "striptags"),
    *("title", "trim", "truncate", "upper", "urlize", "wordwrap"),
)
"""Filters that print what they are given: to them null is the word "None"."""


def _joins_items(value: Any, given: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
    """Whether `join` prints the items themselves, instead of an attribute of each."""
    return isinstance(value, Iterable) and not isinstance(value, str) and len(given) < 2 and "attribute" not in options


def _shallow(value: Any) -> int:
    """Steps that stand for a value's size, without what is in its parts."""
    if isinstance(value, str | bytes | list | tuple | Mapping):
        return len(value) // WEIGHT
    return len(value) if isinstance(value, range) else 0


def _n_items(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _bounded(tree: nodes.Template) -> nodes.Template:
    """The template with its loops and comparisons counted, and with what `~` joins printed as everything else is."""
    _require_plain_escaping(tree)
    for loop in tree.find_all(nodes.For):
        loop.iter = _through("_counted", loop.iter)
    for joined in tree.find_all(nodes.Concat):
        joined.nodes = [_through("_printed", node) for node in joined.nodes]
    for compared in tree.find_all(nodes.Compare):
        compared.expr = _through("_weighed", compared.expr)
        for operand in compared.ops:
            operand.expr = _through("_weighed", operand.expr)
    for pair in tree.find_all(nodes.Pair):  # whose key is hashed
        pair.key = _through("_weighed", pair.key)
    for part in tree.find_all(nodes.Getitem):
        if isinstance(part.arg, nodes.Slice):
            part.node = _through("_sliced", part.node)
    for output in tree.find_all(nodes.Output):  # long texts count as often as they are printed
        output.nodes = [
            nodes.Const(one.data, lineno=one.lineno)
            if isinstance(one, nodes.TemplateData) and len(one.data) > WEIGHT
            else one
            for one in output.nodes
        ]
    macros: list[nodes.Macro | nodes.CallBlock] = [*tree.find_all(nodes.Macro), *tree.find_all(nodes.CallBlock)]
    for macro in macros:  # which may call itself
        one = nodes.List([nodes.Const(0)])
        tick = nodes.For(nodes.Name("_", "store"), _through("_counted", one), [], [], None, False)
        macro.body.insert(0, tick.set_lineno(macro.lineno, override=True))
    tree.set_environment(tree.environment)  # type: ignore[arg-type]
    return tree


def _require_plain_escaping(tree: nodes.Template) -> None:
    for switch in tree.find_all(nodes.EvalContextModifier):  # which is computed when a template is compiled
        if not all(isinstance(option.value, nodes.Const) for option in switch.options):
            raise TooMuch("the template switches escaping by an expression")


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
