"""Reading a recipe file, and saying what is wrong with it."""

import difflib
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nait_assets.errors import RecipeError
from nait_assets.recipe.moved import new_place
from nait_assets.recipe.paths import DEFAULT_RECIPE
from nait_assets.recipe.schema import Recipe
from nait_assets.recipe.section import Section
from nait_assets.recipe.yaml_file import read_yaml

LISTS = {"tuple_type": ("tuple", "list"), "too_short": ("Tuple", "List"), "too_long": ("Tuple", "List")}
"""By kind of error, what it says of a field that is a tuple here and a list in YAML, and what is said instead."""
MOST_LINES, MOST_CHARACTERS = 20, 400
"""Of what is said of a recipe: problems, and characters of each."""


def load_recipe(path: str | Path | None = None) -> Recipe:
    """The recipe at `path`, else at `$NAIT_RECIPE`, else the demo.

    Raises:
        RecipeError: There is no such file, it is not YAML, or a field is wrong; every wrong field has a line.
    """
    given = path or os.environ.get("NAIT_RECIPE") or DEFAULT_RECIPE
    file = Path(given).expanduser().absolute()
    if not file.is_file():
        raise RecipeError(
            f"no recipe at {file} (from {'--recipe' if path else 'NAIT_RECIPE'}). See the recipes/ folder for examples."
        )
    fields = read_yaml(file)
    if not isinstance(fields, dict):
        raise RecipeError(
            f"{file} holds {type(fields).__name__}, not the fields of a recipe (name, model, candidates, ...)."
        )
    fields.pop("definitions", None)  # a place for YAML anchors
    if "path" in fields:
        raise RecipeError(f"{file}: path: unknown field; see recipes/README.md")
    try:
        return Recipe.model_validate({**fields, "path": file})
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = [_short(_explain(problem)) for problem in found[:MOST_LINES]]
        more = [f"and {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else []
        raise RecipeError("\n  ".join([f"{file}: {len(found)} problem(s) in the recipe:", *lines, *more])) from error


def _short(line: str) -> str:
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 4]} ..."


def _explain(problem: Any) -> str:
    where = _short(".".join(str(part) for part in problem["loc"])) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in LISTS:
        message = message.replace(*LISTS[problem["type"]], 1)
    moved = new_place(where, problem["input"]) if problem["type"] == "extra_forbidden" else None
    if moved is not None:
        return f"{where}: this is now `{moved}`; see recipes/README.md"
    if problem["type"] == "extra_forbidden":
        known = {name for part in _sections(Section) for name in part.model_fields} - {"path"}
        written = str(problem["loc"][-1])
        close = difflib.get_close_matches(written, known - {written}, n=1)
        return f"{where}: unknown field; {f'did you mean {close[0]!r}? See' if close else 'see'} recipes/README.md"
    if problem["type"] == "missing":
        return f"{where}: this field is required"
    return f"{where}: {message}" + ("" if problem["type"] == "value_error" else f" (got {problem['input']!r})")


def _sections(section: type[Section]) -> list[type[Section]]:
    return [one for child in section.__subclasses__() for one in (child, *_sections(child))]
