"""What does a projection lose? Scores and retrieval from projections against those from every neuron.

Takes a home in which a recipe was run with every neuron, projects its activations as an extraction with
`extraction.projection` would, and scores the pool again by `nait_standardized`, for several sizes and seeds. Prints
the lowest Spearman correlation with the exact scores over the targets, and the largest fall of the retrieval table
(`retrieval.py`).

    NAIT_DATA=... nait run --recipe recipes/alpaca.yaml
    NAIT_DATA=... python benchmarks/projection.py --recipe recipes/alpaca.yaml --json projection.json
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import parser, tell
from scipy.stats import spearmanr

from nait_assets.extraction import activation_table
from nait_assets.extraction.calibration import COMPONENT_SHARE, calibration_sample
from nait_assets.extraction.projection import NETWORK, Projector, leading_components
from nait_assets.extraction.statistics import by_layer, neuron_statistics, of_projection
from nait_assets.features.centroids import standardized_centroid
from nait_assets.recipe import POOL, Projection, Recipe, load_recipe
from nait_assets.report.comparison import retrieval
from nait_assets.resources import Warehouse, home_of
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods.nait_standardized import CENTROIDS, METHOD
from nait_assets.scoring.ranking import ranked
from nait_assets.tables import CANDIDATE_POOL, STANDARDIZED_CENTROIDS, scores_table

DIMENSIONS, SEEDS = (512, 1024, 2048), (0, 1, 2)


def activations(warehouse: Warehouse, corpus: str) -> tuple[list[str], dict[int, np.ndarray]]:
    """Sample ids and activations by layer."""
    with activation_table.activations_of(warehouse, corpus).snapshot() as snapshot:
        names = activation_table.samples(snapshot)["sample_id"].to_list()
        layers = activation_table.layers_of(snapshot)
        return names, {layer: activation_table.matrix(snapshot, layer) for layer in layers}


def projected_scores(
    recipe: Recipe, warehouse: Warehouse, pool: pl.DataFrame, projection: Projection, with_components: bool
) -> pl.DataFrame:
    """Scores of the pool from projections: columns `target`, `sample_id`, `score`, `rank`."""
    names, candidates = activations(warehouse, POOL)
    chosen = set(calibration_sample(pool, projection)["sample_id"].to_list())
    places = np.flatnonzero([name in chosen for name in names])
    calibration = by_layer(neuron_statistics((layer, places, values[places]) for layer, values in candidates.items()))
    components = {}
    if with_components:
        standardized = {layer: found.standardize(candidates[layer][places]) for layer, found in calibration.items()}
        components = leading_components(standardized, projection.dimensions // COMPONENT_SHARE)
    projector = Projector(calibration, projection.dimensions, projection.seed, components)
    block = (NETWORK, np.arange(len(names)), projector.project(candidates))
    statistics = by_layer(of_projection(neuron_statistics([block])))
    centroids = {}
    for capability in recipe.capability_names:
        mean = projector.project(activations(warehouse, capability)[1]).mean(axis=0)
        row = {"layer": NETWORK, "centroid": standardized_centroid(mean, statistics[NETWORK]), "n_samples": 1}
        schema = {name: STANDARDIZED_CENTROIDS.columns[name] for name in row}
        centroids[capability] = pl.DataFrame([row], schema=schema)
    targets = {target: recipe.capabilities_of(target) for target in recipe.targets}
    inputs = ScoringInputs(
        names, targets, by_capability={CENTROIDS: centroids}, blocks=[block], statistics=statistics, seed=recipe.seed
    )
    scores = METHOD.scores(inputs).values
    frames = [ranked(names, scores[:, place]).with_columns(target=pl.lit(name)) for place, name in enumerate(targets)]
    return pl.concat(frames)


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--recipe", type=Path, required=True)
    options.add_argument("--home", type=Path)
    arguments = options.parse_args()
    recipe = load_recipe(arguments.recipe)
    warehouse = Warehouse(home=str(arguments.home or home_of(recipe)))
    with warehouse.tables.snapshot() as snapshot:
        pool = snapshot.read(CANDIDATE_POOL)
        exact = pl.concat([snapshot.read(scores_table(METHOD.name), target=target) for target in recipe.targets])
    topic_of = dict(pool.select("sample_id", "topic").iter_rows())
    planted = [capability for capability in recipe.capability_names if capability in set(topic_of.values())]
    n_neurons = sum(values.shape[1] for values in activations(warehouse, POOL)[1].values())
    rows: list[dict[str, Any]] = []
    sizes = [(1024, False), *((dimensions, True) for dimensions in DIMENSIONS)]
    for dimensions, with_components in [(32, True)] if arguments.smoke else sizes:
        for seed in (0,) if arguments.smoke else SEEDS:
            projection = Projection(dimensions=dimensions, seed=seed)
            found = projected_scores(recipe, warehouse, pool, projection, with_components)
            both = exact.join(found, on=["target", "sample_id"])
            correlations = [
                float(spearmanr(part["score"], part["score_right"]).statistic) for part in both.partition_by("target")
            ]
            falls = [0.0, 0.0]
            for capability in planted:
                wanted = pl.Series([name for name, topic in topic_of.items() if topic == capability])
                before, after = (retrieval(frame.filter(target=capability), wanted) for frame in (exact, found))
                falls = [max(fall, before[place] - after[place]) for place, fall in enumerate(falls)]
            rows.append(
                {
                    "dimensions": dimensions,
                    "components": dimensions // COMPONENT_SHARE if with_components else 0,
                    "seed": seed,
                    "lowest Spearman": f"{min(correlations):.4f}",
                    "mean Spearman": f"{np.mean(correlations):.4f}",
                    "largest fall of the AUC": f"{falls[0]:.4f}",
                    "largest fall of the precision": f"{falls[1]:.3f}",
                    "times less disk": round(n_neurons / dimensions, 1),
                }
            )
    facts = {"candidates": len(pool), "targets": len(recipe.targets), "planted": ", ".join(planted)}
    tell("Projections against every neuron, nait_standardized", rows, facts, arguments.json)


if __name__ == "__main__":
    main()
