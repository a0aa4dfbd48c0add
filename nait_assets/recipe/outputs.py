"""What a recipe knows of outputs: the catalogue of the rooms.

The rooms are imported by name here, as the methods are, so that no import points upwards.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def outputs_of(recipe: Any) -> Mapping[str, Any]:
    """The outputs that a recipe can have, each a `catalogue.Output`, by key, in the order of the rooms."""
    found: Mapping[str, Any] = import_module("nait_assets.definitions").catalogue_of(recipe)
    return found
