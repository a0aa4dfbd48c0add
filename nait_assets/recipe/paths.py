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
    return (recipe.parent / Path(expand(path, recipe)).expanduser()).resolve()


def expand(path: str, recipe: Path) -> str:
    """A path or URL with `${VAR}` expanded.

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
        is_path = match.start() == 0 and "://" not in os.environ[name]
        return str(Path(os.environ[name]).expanduser().absolute()) if is_path else os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, path)
