"""Where a home lies, whose it is, and its layout: `home.json` has the recipe's name and the version of the schema.

Belongs here: to tell homes apart and refuse those that this version does not read. Bringing an older one up to date is
the command line's, `cli.carry_over`.
"""

import json
import os
from pathlib import Path
from typing import Any

from nait_assets.errors import DamagedError, WarehouseError
from nait_assets.recipe import PROJECT_ROOT, Recipe
from nait_assets.resources.files import replacing

SCHEMA_VERSION = 2
"""1, without the file: measurements had the keys `extraction/...` and `features/...` and lay in `readings/`."""
FILE = "home.json"
_KEYS = ("schema_version", "recipe")
FOLDERS_OF_TABLES = ("activations", "measurements", "readings")


def home_of(recipe: Recipe) -> Path:
    """The home folder of a recipe: `$NAIT_HOME`, else `data/home/<recipe name>` in the project.

    Each recipe has its own, as a pool's activations are kept as long as they are in the pool.
    """
    given = os.environ.get("NAIT_HOME")
    return Path(given).expanduser().absolute() if given else PROJECT_ROOT / "data" / "home" / recipe.name


def schema_version(home: Path) -> int:
    """Version of a home's schema; the present one for a home without tables.

    Raises:
        DamagedError: `home.json` does not say.
    """
    stored = _stored(home)
    if stored is None:
        return 1 if _has_tables(home) else SCHEMA_VERSION
    return int(stored["schema_version"])


def recipe_name(home: Path) -> str | None:
    """Name of the recipe that a home belongs to; None for a home that no run has written to since homes say it.

    Raises:
        DamagedError: `home.json` cannot be read.
    """
    found = (_stored(home) or {}).get("recipe")
    return None if found is None else str(found)


def _stored(home: Path) -> dict[str, Any] | None:
    """What `home.json` says; None without the file.

    Raises:
        DamagedError: It does not say the version.
    """
    try:
        stored: dict[str, Any] = json.loads((home / FILE).read_text(encoding="utf-8"))
        version = stored["schema_version"]
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError(f"schema_version is {version!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{home / FILE} does not say which schema the home has ({type(error).__name__}: {error}). Restore "
            "the file, or name another home (--home, NAIT_HOME)."
        ) from error
    return stored


def faults(home: Path) -> list[str]:
    """What `home.json` holds beside the version of the schema and the recipe's name.

    Raises:
        DamagedError: It does not say the version.
    """
    stored = _stored(home)
    same = stored is None or (set(stored) <= set(_KEYS) and isinstance(stored.get("recipe", ""), str))
    return [] if same else [f"{home / FILE} holds something else than {' and '.join(_KEYS)}"]


def mark(home: Path, recipe: str | None = None) -> None:
    """Write the present schema's version into a home, and the name of its recipe where it has one."""
    said = {"schema_version": SCHEMA_VERSION, **({} if recipe is None else {"recipe": recipe})}
    with replacing(home / FILE) as temporary:
        temporary.write_text(json.dumps(said) + "\n")


def mark_if_new(home: Path) -> None:
    """Write the present schema's version into a home that has no tables yet."""
    if not (home / FILE).exists() and not _has_tables(home):
        mark(home)


def require_recipe(home: Path, name: str) -> None:
    """Refuse a home of another recipe, whose outputs would be replaced.

    Raises:
        WarehouseError: It belongs to another.
        DamagedError: `home.json` cannot be read.
    """
    found = recipe_name(home)
    if found not in (None, name):
        raise WarehouseError(
            f"{home} belongs to the recipe {found!r}, and this one is {name!r}, which would replace what is there: "
            f"name another home (--home, NAIT_HOME), or, if the recipe has a new name, write it into {home / FILE}."
        )


def claim(home: Path, name: str) -> None:
    """Have a home of the present schema belong to a recipe; it keeps the one that it has.

    Raises:
        WarehouseError: It belongs to another recipe.
    """
    require_recipe(home, name)
    if recipe_name(home) is None:
        home.mkdir(parents=True, exist_ok=True)
        mark(home, name)


def require_current(home: Path) -> None:
    """Refuse a home of another schema.

    Raises:
        WarehouseError: It is older or newer, and the message says what to do.
        DamagedError: `home.json` does not say.
    """
    found = schema_version(home)
    if found < SCHEMA_VERSION:
        raise WarehouseError(
            f"{home} was written by an earlier version of nait_assets: `nait run` carries it over, and says what "
            "it keeps and what it makes again."
        )
    if found > SCHEMA_VERSION:
        raise WarehouseError(
            f"{home} was written by a newer version of nait_assets (its schema is {found}, and this version reads "
            f"{SCHEMA_VERSION}): update nait_assets, or name another home (--home, NAIT_HOME)."
        )


def _has_tables(home: Path) -> bool:
    files = (file for folder in FOLDERS_OF_TABLES for file in (home / folder).rglob("*.duckdb"))
    return (home / "warehouse.duckdb").exists() or next(files, None) is not None
