"""Does a method find examples of a capability that are hidden in a pool?

The recipe `alpaca.yaml` plants unseen rows of some capabilities among Alpaca rows; `topic` says which. For every method
and planted capability this prints the area under the ROC curve of finding the planted rows by score, and the precision
among as many best rows as are planted. Run the recipe first:

    NAIT_DATA=... nait run --recipe recipes/alpaca.yaml
    NAIT_DATA=... python benchmarks/retrieval.py --recipe recipes/alpaca.yaml --json retrieval.json
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, table, write

from nait_assets.recipe import Recipe, load_recipe
from nait_assets.report.comparison import retrieval
from nait_assets.resources import Warehouse, home_of
from nait_assets.tables import CANDIDATE_POOL, scores_table

Found = dict[str, tuple[float, float, int]]
"""By planted capability: area under the ROC curve, precision, number of planted rows."""


def found_of(recipe: Recipe, home: Path) -> tuple[dict[str, Found], int]:
    """What each method of a home finds, and the number of candidates.

    Raises:
        WarehouseError: A method has not scored.
        SystemExit: No capability is planted.
    """
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        pool = snapshot.read(CANDIDATE_POOL)
        topics = set(pool["topic"].to_list())
        planted = [capability for capability in recipe.capability_names if capability in topics]
        if not planted:
            raise SystemExit(f"{recipe.path}: no capability is the topic of a candidate, so nothing is there to find")
        wanted = {name: pool.filter(topic=name)["sample_id"] for name in planted}
        found = {
            method: {
                name: retrieval(snapshot.read(scores_table(method), target=name), ids) for name, ids in wanted.items()
            }
            for method in recipe.methods
        }
    return found, len(pool)


def line(method: str, found: Found) -> dict[str, Any]:
    """A row of the table."""
    cells = {name: f"{area:.3f} / {precision:.2f}" for name, (area, precision, _) in found.items()}
    area, precision, _ = np.mean(list(found.values()), axis=0)
    return {"method": f"`{method}`", **cells, "mean": f"{area:.3f} / {precision:.2f}"}


def as_json(found: Mapping[str, Found]) -> dict[str, Any]:
    """All figures by method and capability."""
    names = ("auc", "precision", "n_planted")
    return {
        method: {capability: dict(zip(names, figures, strict=True)) for capability, figures in of_method.items()}
        for method, of_method in found.items()
    }


def main() -> None:
    """Print the table, and write it as JSON."""
    options = parser(__doc__)
    options.add_argument("--recipe", type=Path, required=True)
    options.add_argument("--home", type=Path)
    arguments = options.parse_args()
    recipe = load_recipe(arguments.recipe)
    found, n_candidates = found_of(recipe, arguments.home or home_of(recipe))
    title = f"{n_candidates:,} candidates; area under the ROC curve / precision among the planted number"
    rows = [line(*one) for one in found.items()]
    table(title, rows)
    write({"rows": rows, "n_candidates": n_candidates, "methods": as_json(found)}, arguments.json)


if __name__ == "__main__":
    main()
