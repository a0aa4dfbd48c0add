"""What is found out about each sample beside its activations, one row a sample, and what is trained for that.

A file that declares a `Measurement` at module level is found by itself, and so is a section of the recipe.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from nait_assets.measurements.engine import Measurement
from nait_assets.recipe.measurements import MeasurementOptions

_REST_ON_ALL = ("assets", "catalogue", "checks", "room")
"""Files that rest on what is declared, and declare nothing themselves."""


@cache
def declared_measurements() -> tuple[Measurement, ...]:
    """Every measurement, by name."""
    found = {value.name: value for module in _modules() for value in _values_of(module)}
    return tuple(found[name] for name in sorted(found))


@cache
def declared_sections() -> Mapping[str, type[MeasurementOptions]]:
    """Sections of the recipe that the files here declare, by their name under `measurements`."""
    _modules()
    sections = {one.section: one for one in _below(MeasurementOptions) if one.__module__.startswith(f"{__name__}.")}
    return dict(sorted(sections.items()))


def _modules() -> list[ModuleType]:
    names = [module.name for module in iter_modules(__path__) if module.name not in _REST_ON_ALL]
    return [import_module(f"{__name__}.{name}") for name in names]


def _values_of(module: ModuleType) -> list[Measurement]:
    values = [one for value in vars(module).values() for one in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if isinstance(value, Measurement)]


def _below(section: type[MeasurementOptions]) -> list[type[MeasurementOptions]]:
    return [one for child in section.__subclasses__() for one in (child, *_below(child))]
