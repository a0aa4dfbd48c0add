"""Paths that a recipe writes."""

import os
import re
from pathlib import Path

from nait_assets.errors import RecipeError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_RECIPE = PROJECT_ROOT / "recipes" / "demo.yaml"


def resolve(path: str, recipe: Path) -> Path:
    """The file that `path` means in the recipe file `recipe`: `${VAR}` expanded, relative to the recipe's folder.

    A relative value of a variable is relative to the working folder, as it is for the shell that set it.

    Raises:
        RecipeError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"{recipe}: {path!r} needs the environment variable {name}, which is not set. "
                f"Put {name}=... in front of the command."
            )
        return str(Path(os.environ[name]).expanduser().absolute()) if match.start() == 0 else os.environ[name]

    expanded = Path(re.sub(r"\$\{(\w+)\}", value, path)).expanduser()
    return (recipe.parent / expanded).resolve()
