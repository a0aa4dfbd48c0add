"""Reading a recipe file, and saying what is wrong with it."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nait_assets.errors import RecipeError
from nait_assets.recipe.moved import MOVED
from nait_assets.recipe.paths import DEFAULT_RECIPE
from nait_assets.recipe.schema import Recipe
from nait_assets.recipe.section import Section

BOOLEAN = "tag:yaml.org,2002:bool"


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
    try:
        fields = yaml.load(file.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}") from error
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
        lines = [_explain(problem) for problem in error.errors()]
        raise RecipeError("\n  ".join([f"{file}: {len(lines)} problem(s) in the recipe:", *lines])) from error


class _RecipeLoader(yaml.SafeLoader):
    """YAML whose booleans are `true` and `false` alone, as YAML 1.2 has them: `no` is a language, `on` a word.

    It refuses a key written twice, where the library would drop the first in silence.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = sorted({str(key) for key in written if written.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(twice)} written twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden" and where in MOVED:
        return f"{where}: this is now `{MOVED[where]}`; see recipes/README.md"
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
