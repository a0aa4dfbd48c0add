"""The JSON schema of recipes, by which an editor completes fields and marks what is none.

Belongs here: what a recipe may say in short, which the fields of its sections, as they are after reading, do not show.
"""

import copy
from collections.abc import Iterator
from typing import Any

from nait_assets.recipe.schema import Recipe

Schema = dict[str, Any]
SOURCE = {"$ref": "#/$defs/Source"}


def recipe_schema() -> Schema:
    """The schema of a recipe file, JSON Schema 2020-12.

    It allows whatever a recipe may say, and a little more: what depends on several fields is checked by reading the
    recipe, as `nait check` does.
    """
    schema = Recipe.model_json_schema()
    sections: dict[str, Schema] = schema["$defs"]
    del schema["properties"]["path"]
    schema["required"].remove("path")
    schema["properties"]["definitions"] = {"description": "A place for YAML anchors, which nothing else reads."}
    for fields in (schema["properties"], sections["TrainedCells"]["properties"]):
        for kind in _lists(fields["ratios"]):
            kind["items"] = {"type": ["number", "string"]}
    sections["Extraction"]["properties"]["projection"]["anyOf"].append({"type": "integer"})
    sections["FieldTemplates"]["required"].remove("assistant")  # which the `tests` of a code task stand for
    for name, section in sections.items():
        if "examples" in section["properties"]:
            sections[name] = {"anyOf": [section, _with_source(section, sections["Source"])]}
    sections["Capability"]["anyOf"].append({"type": "array", "items": SOURCE})
    for kind in [kind for kind in _lists(schema) if "items" in kind]:
        listed = dict(kind)
        kind.clear()
        kind["anyOf"] = [listed["items"], listed]  # one stands for a list of it
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Recipe of nait_assets"}


def _lists(part: Any) -> Iterator[Schema]:
    """Every list in a part of a schema."""
    if isinstance(part, dict):
        if part.get("type") == "array":
            yield part
        for below in part.values():
            yield from _lists(below)
    elif isinstance(part, list):
        for below in part:
            yield from _lists(below)


def _with_source(section: Schema, source: Schema) -> Schema:
    """A section whose examples are the one source that its fields describe."""
    own = {name: field for name, field in section["properties"].items() if name != "examples"}
    required = [name for name in section.get("required", ()) if name != "examples"]
    properties = {**source["properties"], **own}
    return copy.deepcopy({**section, "properties": properties, "required": [*source["required"], *required]})
