"""Which layout a home has: `home.json` holds the version of its schema, written when its first table is.

Belongs here: to tell homes apart and refuse those that this version does not read. Bringing an older one up to date is
the command line's, `cli.carry_over`.
"""

import json
from pathlib import Path

from nait_assets.errors import DamagedError, WarehouseError
from nait_assets.resources.files import replacing

SCHEMA_VERSION = 2
"""1, without the file: measurements had the keys `extraction/...` and `features/...` and lay in `readings/`."""
FILE = "home.json"
FOLDERS_OF_TABLES = ("activations", "measurements", "readings")


def schema_version(home: Path) -> int:
    """Version of a home's schema; the present one for a home without tables.

    Raises:
        DamagedError: `home.json` does not say.
    """
    try:
        stored = json.loads((home / FILE).read_text(encoding="utf-8"))
        version = stored["schema_version"]
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError(f"schema_version is {version!r}")
    except FileNotFoundError:
        return 1 if _has_tables(home) else SCHEMA_VERSION
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{home / FILE} does not say which schema the home has ({type(error).__name__}: {error}). Restore "
            "the file, or name another home (--home, NAIT_HOME)."
        ) from error
    return version


def faults(home: Path) -> list[str]:
    """What `home.json` holds beside the version of the schema.

    Raises:
        DamagedError: It does not say the version.
    """
    said = {"schema_version": schema_version(home)}
    file = home / FILE
    same = not file.exists() or json.loads(file.read_text(encoding="utf-8")) == said
    return [] if same else [f"{file} holds something else than {json.dumps(said)}"]


def mark(home: Path) -> None:
    """Write the present schema's version into a home."""
    with replacing(home / FILE) as temporary:
        temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION}) + "\n")


def mark_if_new(home: Path) -> None:
    """Write the present schema's version into a home that has no tables yet."""
    if not (home / FILE).exists() and not _has_tables(home):
        mark(home)


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
