"""A program and its tests, in the process that is isolated, and what tells that the tests came to their end.

Both run in one interpreter, as tests call what the program defines. So this keeps a program from passing by an early
end, by a word that it says itself or by other built-ins; not one that is written against this very file.
The standard library alone.
"""

import ast
import builtins
import contextlib
import functools
import importlib
import operator
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

SAID_CHARACTERS = 300
WORK = "/working-folder"
ENVIRONMENT = {
    "HOME": WORK,
    "TMPDIR": WORK,
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def imported(tests: ast.Module) -> Iterator[str]:
    """Modules that tests import by name."""
    for node in ast.walk(tests):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


Place = tuple[Mapping[str, object], str, object, str]


def callables(module: types.ModuleType) -> list[Place]:
    """Where a module's functions and classes stand, and the functions of these classes: place, name, what, text."""
    found: list[Place] = []
    for name, value in [*vars(module).items()]:
        if callable(value):
            found.append((vars(module), name, value, f"{module.__name__}.{name}"))
            if isinstance(value, type):
                found += [
                    (vars(value), one, attribute, f"{module.__name__}.{name}.{one}")
                    for one, attribute in [*vars(value).items()]
                    if callable(attribute)
                ]
    return found


def require_unchanged(places: Sequence[Place]) -> None:
    """Whether what the tests rely on is what it was; no built-in function is asked, as these may be what was changed.

    Raises:
        RuntimeError: It is not.
    """
    for own, name, value, text in places:
        if own.get(name) is not value:
            raise RuntimeError(f"the program changed {text}")


def untraced(function: object) -> None:
    """In the place of `sys.settrace`, by which a function can make its caller go on behind the tests."""
    if function is not None:  # None is what doctest sets at its end
        raise RuntimeError("programs are not traced here")


def refuse(
    event: str,
    arguments: tuple[Any, ...],
    events: frozenset[str] = frozenset({"sys.settrace", "gc.get_objects", "gc.get_referents", "gc.get_referrers"}),
    attributes: frozenset[str] = frozenset({"__code__", "__defaults__"}),
    guarded: object = globals(),
) -> None:
    """A hook of auditing, which nobody can take away: refuses what finds and changes what the tests are run by.

    What it goes by are defaults of arguments, which it guards, too: names of this module a program can change.
    """
    if event in events:
        raise RuntimeError(f"programs have no {event} here")
    if event == "object.__setattr__" and arguments[1] in attributes:
        try:
            of_module = arguments[0].__globals__
        except AttributeError:  # a class
            return
        if of_module is guarded:
            raise RuntimeError(f"programs set no {arguments[1]} of what runs their tests")


def steps_of(program: str, tests: str) -> tuple[Callable[[], object], ...]:
    """What has to come to its end, in order: the program, its tests, and that it has changed nothing they rely on."""
    module = types.ModuleType("__main__")  # which pickle and unittest ask for by name
    sys.modules["__main__"] = module
    own = vars(module)
    own["__builtins__"] = builtins
    parsed = ast.parse(tests, "tests")
    places = [*callables(builtins), (own, "__builtins__", builtins, "__builtins__")]
    for name in sorted(set(imported(parsed))):
        with contextlib.suppress(Exception):  # the tests say so themselves
            places += callables(importlib.import_module(name))
    written = (
        compile(program, "program", "exec", dont_inherit=True),
        compile(parsed, "tests", "exec", dont_inherit=True),
    )
    return *(functools.partial(exec, code, own) for code in written), functools.partial(require_unchanged, places)


def conclude(own: int, verdict: int, secret: bytes, _ended: object) -> None:
    """Say that all has come to its end; not in a process that a program forked, which comes by here, too."""
    if os.getpid() == own:
        os.write(verdict, secret)


def text_of(error: BaseException) -> str:
    """What is said of an error, whose text is the program's own code."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001  whatever it raises
        return type(error).__name__


def run(program: str, tests: str, verdict: int, secrets: list[bytes]) -> None:
    """Run a program and its tests, and say how they ended; one that leaves by itself has not passed.

    Args:
        program: The program.
        tests: The tests, run behind it among its names.
        verdict: Pipe that the secret goes to, or why the program failed.
        secrets: The one secret by which the first process knows that the tests have come to their end.
    """
    os.setsid()
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    sys.argv = ["program"]
    sys.settrace = untraced
    sys.addaudithook(refuse)
    own, said = os.getpid(), b""
    try:
        # While the program runs the secret is an argument on the interpreter's stack: in no variable, no list and no
        # frame that it could look into. `map` holds what comes next, so that no changed built-in is called instead.
        conclude(own, verdict, secrets.pop(), list(map(operator.call, steps_of(program, tests))))
    except BaseException as error:  # noqa: BLE001  whatever it raises
        said = text_of(error)[:SAID_CHARACTERS].encode("utf-8", "replace")
    if said and os.getpid() == own:
        os.write(verdict, said)
    os._exit(0)
