"""A YAML file as plain values: the YAML of a recipe, and how large and how deep it may be.

Belongs here: what makes a file no recipe before its fields are looked at. Does not belong here: the fields.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from nait_assets.errors import RecipeError

BOOLEAN, INTEGER, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "merge"))
MOST_BYTES = 10_000_000
MOST_EXPANDED = 5_000_000
"""Characters and values of a recipe, with what stands behind an anchor counted as often as the anchor is named."""
MOST_DEPTH = 50
UNUSABLE = re.compile(r"[\0\ud800-\udfff]")
"""What no file, table or model can hold: NUL, and halves of a character."""


def read_yaml(file: Path) -> Any:
    """The values in a file.

    Raises:
        RecipeError: It cannot be read, or is not YAML as recipes have it.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise RecipeError(f"{file} has more than {MOST_BYTES:,} bytes: it is no recipe.")
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except RecursionError as error:
        raise RecipeError(f"{file} is not readable as YAML: it nests deeper than {MOST_DEPTH} levels.") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise RecipeError(  # of a day that no month has, or of a tag that does not fit its text
            f"{file} is not readable as YAML: a value is not what it looks like or is tagged as ({error})."
        ) from error


class _RecipeLoader(yaml.SafeLoader):
    """YAML whose booleans are `true` and `false` alone, as YAML 1.2 has them: `no` is a language, `on` a word.

    It refuses a key written twice, where the library would drop the first in silence, and anchors that make much of
    little.
    """

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _expanded_size(node, {}, ())
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and UNUSABLE.search(text):
            raise yaml.constructor.ConstructorError(
                problem="a text holds NUL or half of a character (a lone surrogate)", problem_mark=node.start_mark
            )
        return text

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """A whole number, as large as others than Python can hold."""
        number = super().construct_yaml_int(node)
        if abs(number) >= 2**63:
            raise yaml.constructor.ConstructorError(
                problem="a whole number does not fit into 64 bits", problem_mark=node.start_mark
            )
        return int(number)


def _expanded_size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How large a value is once its anchors are written out.

    Args:
        node: Node of the value.
        known: Sizes of nodes that were met before.
        above: Nodes that this one stands in.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in above or len(above) > MOST_DEPTH:
        problem = "an anchor holds itself" if id(node) in above else f"it nests deeper than {MOST_DEPTH} levels"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    size = 1
    if isinstance(node, yaml.ScalarNode):
        size += len(node.value)
    else:
        _require_keys_once(node)
        parts = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
        size += sum(_expanded_size(part, known, (*above, id(node))) for part in parts)
    if size > MOST_EXPANDED:
        raise yaml.constructor.ConstructorError(
            problem=f"its anchors, written out, make more than {MOST_EXPANDED:,} characters",
            problem_mark=node.start_mark,
        )
    known[id(node)] = size
    return size


def _require_keys_once(node: yaml.Node) -> None:
    """Whether no key of a mapping is written twice; merged ones may be overridden."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} written twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))


_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(BOOLEAN, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_RecipeLoader.add_constructor(INTEGER, _RecipeLoader.construct_number)
