"""What a recipe knows of methods: their declarations.

They lie in `scoring/methods` and in other packages, and are imported by name here, so that no import points upwards.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal, Protocol

from pydantic import ConfigDict, PlainValidator, create_model
from pydantic_core import PydanticKnownError

from nait_assets.recipe.section import Section


class MethodDeclaration(Protocol):
    """What a recipe has to know of a method; `scoring.method.Method` says what each of these means."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def reads(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def reads_if_there(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def options(self) -> type[Section] | None: ...  # noqa: D102
    @property
    def by_target(self) -> bool: ...  # noqa: D102
    @property
    def needs_neurons(self) -> bool: ...  # noqa: D102
    @property
    def seeded(self) -> bool: ...  # noqa: D102
    @property
    def recommended(self) -> bool: ...  # noqa: D102


def declared_methods() -> Mapping[str, MethodDeclaration]:
    """Every method of this package and of installed ones, by name.

    Raises:
        SetupError: An installed package declares methods that cannot be loaded, or whose name is taken.
    """
    found: Mapping[str, MethodDeclaration] = import_module("nait_assets.scoring.methods").declared()
    return found


def method_named(name: str) -> MethodDeclaration:
    """A method by its name in a recipe; one that nobody declares is a published list."""
    found: MethodDeclaration = import_module("nait_assets.scoring.methods").method_named(name)
    return found


def options_are_required(method: MethodDeclaration) -> bool:
    """Whether a recipe with this method must have its section: a field of it has no default."""
    fields = method.options.model_fields.values() if method.options else ()
    return any(one.is_required() for one in fields)


@cache
def _further_model(name: str) -> type[Section]:
    """The model of a section that gives a method a further name: the method's options, and its own name."""
    base = declared_methods()[name].options or Section
    fields: dict[str, Any] = {"method": (Literal[name], ...)}
    return create_model(f"Further_{name}", __base__=base, **fields)


def _further(given: Any) -> Section:
    """A section that gives a method a further name, with options of its own.

    Raises:
        ValueError: It names no method that is declared.
        ValidationError: Its options are not those of the method.
    """
    if isinstance(given, Section):
        return given
    if not isinstance(given, dict) or "method" not in given:
        raise PydanticKnownError("extra_forbidden")
    name = given["method"]
    if not isinstance(name, str) or name not in declared_methods():
        raise ValueError(f"method {name!r} is unknown; a further name is of one of {', '.join(declared_methods())}")
    return _further_model(name).model_validate(given)


class _Options(Section):
    """Sections of methods under their names, and under further names those that say of which `method` they are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_further)]]


@cache
def options_model() -> type[Section]:
    """The model of the recipe's `options`: a section for each method that has one, and those of further names."""
    fields: dict[str, Any] = {}
    for method in declared_methods().values():
        if method.options is not None:
            required = options_are_required(method)
            fields[method.name] = (method.options | None, None) if required else (method.options, method.options())
    return create_model("MethodOptions", __base__=_Options, **fields)


class OptionsOfMethods:
    """Annotation of a field whose type is `options_model`, found when the recipe's class is first used."""

    def __get_pydantic_core_schema__(self, _: Any, handler: Any) -> Any:
        """The schema of the sections of all declared methods."""
        return handler.generate_schema(options_model())
