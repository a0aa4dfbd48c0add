"""What a recipe knows of measurements: the sections that configure them.

A section is declared beside what it configures, in `measurements/`, and imported by name here, so that no import points
upwards.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Self

from pydantic import create_model

from nait_assets.recipe.section import Section


class MeasurementOptions(Section):
    """A section under `measurements`; subclasses are declared in the file of what they configure.

    Attributes:
        section: Name under `measurements`.
        needed_by: Keys of the outputs that cannot be made without the section; none where all fields have defaults.
    """

    section: ClassVar[str]
    needed_by: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def given(cls, recipe: Any) -> Self | None:
        """The section of a recipe; None where it has no defaults and the recipe leaves it out."""
        found = getattr(recipe.measurements, cls.section)
        assert found is None or isinstance(found, cls)
        return found

    @classmethod
    def of(cls, recipe: Any) -> Self:
        """The section of a recipe that makes what it configures."""
        found = cls.given(recipe)
        assert found is not None, f"a recipe that reads {cls.needed_by} has the section measurements.{cls.section}"
        return found


def declared_sections() -> Mapping[str, type[MeasurementOptions]]:
    """The sections of all measurements, by name."""
    found: Mapping[str, type[MeasurementOptions]] = import_module("nait_assets.measurements").declared_sections()
    return found


@cache
def measurements_model() -> type[Section]:
    """The model of the recipe's `measurements`: a field for each section, None by default where one is required."""
    fields: dict[str, Any] = {}
    for name, section in declared_sections().items():
        required = any(one.is_required() for one in section.model_fields.values())
        fields[name] = (section | None, None) if required else (section, section())
    return create_model("Measurements", __base__=Section, **fields)


class OptionsOfMeasurements:
    """Annotation of a field whose type is `measurements_model`, found when the recipe's class is first used."""

    def __get_pydantic_core_schema__(self, _: Any, handler: Any) -> Any:
        """The schema of the sections of all measurements."""
        return handler.generate_schema(measurements_model())


def missing_section(recipe: Any, outputs: frozenset[str]) -> str | None:
    """A section that one of these outputs needs and the recipe lacks, such as `measurements.rewards`."""
    for name, section in declared_sections().items():
        if section.given(recipe) is None and not outputs.isdisjoint(section.needed_by):
            return f"measurements.{name}"
    return None
