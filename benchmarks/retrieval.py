"""Does a method find examples of a capability that are hidden in a pool?

The recipe `alpaca.yaml` plants unseen rows of some capabilities among Alpaca rows; `topic` says which. For every method
and planted capability this prints the area under the ROC curve of finding the planted rows by score, and the precision
among as many best rows as are planted. Run the recipe first:

    NAIT_DATA=... nait run --recipe recipes/alpaca.yaml
    NAIT_DATA=... python benchmarks/retrieval.py --recipe recipes/alpaca.yaml --json retrieval.json
"""

import argparse
import json
import platform
import subprocess
from pathlib import Path

import numpy as np

from nait_assets.recipe import load_recipe
from nait_assets.report.comparison import retrieval
from nait_assets.resources import Warehouse, home_of
from nait_assets.tables import CANDIDATE_POOL, scores_table


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    home = arguments.home or home_of(recipe)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        pool = snapshot.read(CANDIDATE_POOL)
        topics = dict(pool.select("sample_id", "topic").iter_rows())
        planted = [capability for capability in recipe.capability_names if capability in set(topics.values())]
        table: dict[str, dict[str, dict[str, float]]] = {}
        for method in recipe.methods:
            found = {
                c: retrieval(snapshot.read(scores_table(method), target=c), pool.filter(topic=c)["sample_id"])
                for c in planted
            }
            table[method] = {
                capability: {"auc": area, "precision": precision, "n_planted": n_planted}
                for capability, (area, precision, n_planted) in found.items()
            }

    print(f"{len(pool):,} candidates; area under the ROC curve / precision among the planted number\n")
    print("| method | " + " | ".join(planted) + " | mean |")
    print("|---|" + "---|" * (len(planted) + 1))
    for method, row in table.items():
        means = [np.mean([row[capability][name] for capability in planted]) for name in ("auc", "precision")]
        cells = [f"{row[capability]['auc']:.3f} / {row[capability]['precision']:.2f}" for capability in planted]
        print(f"| `{method}` | " + " | ".join([*cells, f"{means[0]:.3f} / {means[1]:.2f}"]) + " |")
    if arguments.json:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        facts = {"commit": commit.stdout.strip(), "machine": platform.machine(), "n_candidates": len(pool)}
        arguments.json.write_text(json.dumps({**facts, "methods": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
