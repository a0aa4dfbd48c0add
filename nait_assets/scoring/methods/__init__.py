"""The methods, one file each: what a candidate is worth.

A file that declares a `Method` at module level is found by itself; so is what another package names as an entry point
of the group `nait_assets.methods`: a `Method`, or a module that declares some.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from types import ModuleType

from nait_assets.errors import SetupError
from nait_assets.recipe import Recipe, Section
from nait_assets.scoring.method import Method

GROUP = "nait_assets.methods"


@cache
def declared() -> Mapping[str, Method]:
    """Every method by name: those of this package by file, then those of others.

    Raises:
        SetupError: A package declares methods that cannot be loaded, or whose name is taken or not a name.
    """
    methods: dict[str, Method] = {}
    for where, method in (*_of_this_package(), *_of_other_packages()):
        if not re.fullmatch(r"[a-z0-9_]+", method.name) or hasattr(Section, method.name):
            raise SetupError(
                f"{where}: a method cannot be called {method.name!r}: use [a-z0-9_]+, and no word of pydantic"
            )
        if methods.setdefault(method.name, method) is not method:
            raise SetupError(f"{where}: there is another method called {method.name!r}; rename one of them")
    return methods


def method_named(name: str) -> Method:
    """A method by its name in a recipe; one that nobody declares is a published list."""
    from nait_assets.scoring.methods import published

    return declared()[name] if name in declared() else published.method(name)


def method_of(recipe: Recipe, name: str) -> Method:
    """A method by its name among a recipe's `methods`: under a further name it is the same one, called so."""
    base, found = recipe.base_of(name), method_named(recipe.base_of(name))
    if base == name:
        return found
    set_here = recipe.options_of(name).model_dump(mode="json", exclude={"method"}, exclude_defaults=True)
    options = ", ".join(f"{field}: {value}" for field, value in set_here.items()) or "its options as they are"
    return replace(found, name=name, description=f"{found.description} Here `{base}` with {options}.")


def modules() -> list[ModuleType]:
    """The files of this package."""
    return [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]


def methods_of(module: ModuleType) -> list[Method]:
    """Methods that a module declares, in the order in which it does."""
    return [value for value in vars(module).values() if isinstance(value, Method)]


def _of_this_package() -> Iterator[tuple[str, Method]]:
    for module in modules():
        for method in methods_of(module):
            yield module.__name__, method


def _of_other_packages() -> Iterator[tuple[str, Method]]:
    for entry in sorted(entry_points(group=GROUP)):
        where = f"entry point {entry.name!r} of {entry.dist.name if entry.dist else 'a package'}"
        for method in _loaded(entry, where):
            yield where, method


def _loaded(entry: EntryPoint, where: str) -> list[Method]:
    try:
        found = entry.load()
    except Exception as error:
        raise SetupError(f"{where} cannot be loaded: {type(error).__name__}: {error}. Fix or uninstall it.") from error
    methods = methods_of(found) if isinstance(found, ModuleType) else [found]
    if not methods or not all(isinstance(method, Method) for method in methods):
        raise SetupError(f"{where} ({entry.value}) is neither a Method nor a module that declares one")
    return methods
