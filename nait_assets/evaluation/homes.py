"""Results of several homes side by side: tables 3 and 8 and figure 4 of arXiv 2603.13201, for any recipes."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nait_assets.errors import WarehouseError
from nait_assets.evaluation.shown import aligned, comparison_table
from nait_assets.evaluation.tables import COMPARISON
from nait_assets.resources import Warehouse


def compared_homes(homes: Sequence[Path]) -> list[str]:
    """Lines of a table a metric, each model under the name of its home.

    Args:
        homes: Folders; where two have the same name, their parents' names stand in front.

    Raises:
        WarehouseError: One of them is no home, or has no results.
    """
    names = _names(homes)
    frames = [
        _comparison(home).with_columns(pl.lit(name).alias("home")) for home, name in zip(homes, names, strict=True)
    ]
    joined = pl.concat(frames).with_columns(model=pl.format("{}: {}", "home", "model")).drop("home")
    lines = []
    for metric in sorted(joined["metric"].unique()):
        lines += [f"Models after training, {metric} [95 %]:", *aligned(*comparison_table(joined, metric)), ""]
    return lines


def _comparison(home: Path) -> pl.DataFrame:
    warehouse = Warehouse(home=str(home.expanduser().absolute()))
    if not warehouse.tables.path.is_file():
        raise WarehouseError(f"{home} is no home: it has no {warehouse.tables.path.name}. `nait run --home` makes one.")
    with warehouse.tables.snapshot() as tables:
        return tables.read(COMPARISON)


def _names(homes: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, of equal length, that tell the homes apart."""
    parts = [home.expanduser().absolute().parts for home in homes]
    longest = max(map(len, parts))
    for n in range(1, longest + 1):
        names = ["/".join(one[-n:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names
