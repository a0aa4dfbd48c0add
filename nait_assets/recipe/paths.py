"""Paths that a recipe writes."""

import os
import re
from pathlib import Path

from nait_assets.errors import RecipeError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_RECIPE = PROJECT_ROOT / "recipes" / "demo.yaml"

MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4000
"""Of a file's name and path, as Linux and macOS have them."""


def resolve(path: str, recipe: Path) -> Path:
    """The file that `path` means in the recipe file `recipe`: `${VAR}` expanded, relative to the recipe's folder.

    A relative value of a variable is relative to the working folder, as it is for the shell that set it.

    Raises:
        RecipeError: A variable is not set, or no file can have this name.
    """
    written = expand(path, recipe)
    try:
        found = (recipe.parent / Path(written).expanduser()).resolve()
        parts = [len(os.fsencode(part)) for part in found.parts]
        if max(parts) > MOST_NAME_BYTES or sum(parts) > MOST_PATH_BYTES:
            raise OSError("it is too long")
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, half of a character; the home of an unknown user
        shown = path if len(path) < 80 else f"{path[:80]}..."
        raise RecipeError(f"{recipe}: {shown!r} is no path of a file: {error}.") from error
    return found


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
