"""`docs/methods.md`, from what the methods declare: `python -m nait_assets.scoring.methods_page > docs/methods.md`.

Belongs here: how declarations are set out. Does not belong here: anything about one method, which is in its own file.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterable
from types import ModuleType

from nait_assets.recipe import Section
from nait_assets.scoring.method import Method
from nait_assets.scoring.methods import methods_of, modules, published

HEADINGS = ("Formula", "Departures", "Limits", "Cost")
"""The parts of a method's docstring, each below a line of its own."""
HEAD = """# Methods

<!-- Made from the methods' own files: python -m nait_assets.scoring.methods_page > docs/methods.md -->

A recipe lists methods under `methods`; each scores the pool by itself. Outputs that none of them reads are not made.
[adding_a_method.md](adding_a_method.md) says how to add one, here or in a package of your own.

| method | what puts a candidate first | scores differ by target |
|---|---|---|
"""


def sections_of(module: ModuleType) -> dict[str, str]:
    """A method's docstring by heading; the first line, which has none, under ""."""
    parts = re.split(rf"^({'|'.join(HEADINGS)}):$", inspect.getdoc(module) or "", flags=re.MULTILINE)
    return {"": parts[0].strip(), **{name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}}


def page() -> str:
    """The whole page."""
    files = {module: methods_of(module) for module in modules()}
    files[published] = [published.method("<name>")]
    methods = [method for found in files.values() for method in found]
    rows = [f"| {_name(m)} | {m.description} | {'yes' if m.by_target else 'no'} |" for m in methods]
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(_file(module, found) for module, found in files.items() if found)


def _name(method: Method) -> str:
    return f"`{method.name}`" + (" (recommended)" if method.recommended else "")


def _file(module: ModuleType, methods: list[Method]) -> str:
    sections = sections_of(module)
    formula, *rest = sections["Formula"].split("\n\n", 1)
    lines = [f"## {', '.join(method.name for method in methods)}", "", sections[""], ""]
    lines += ["```", formula, "```", ""] if " = " in formula else [formula, ""]
    lines += [*rest, ""] if rest else []
    for heading in HEADINGS[1:]:
        lines += [f"**{heading}.** {sections[heading]}", ""]
    for method in methods:
        lines += [*_facts(method), ""]
    return "\n".join(lines)


def _facts(method: Method) -> list[str]:
    facts = [f"`{method.name}` reads {', '.join(f'`{key}`' for key in method.reads)}"]
    if method.reads_if_there:
        listed = ", ".join(f"`{key}`" for key in method.reads_if_there)
        facts.append(f"{listed} too, where every capability has examples, for what its scores are held against")
    facts += ["needs every neuron, so it is refused with a projection"] if method.needs_neurons else []
    facts += ["draws by the recipe's `seed`"] if method.seeded else []
    lines = [f"{'; '.join(facts)}."]
    if method.options is not None:
        lines += ["", f"Options under `options.{method.name}`:", "", "| field | what | default |", "|---|---|---|"]
        lines += _fields(method.options)
    return lines


def _fields(section: type[Section]) -> Iterable[str]:
    for name, field in section.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            value = field.get_default(call_default_factory=True)
            default = "none" if value is None else f"`{json.dumps(value, default=str)}`"
        yield f"| `{name}` | {field.description} | {default} |"


if __name__ == "__main__":
    sys.stdout.write(page())
