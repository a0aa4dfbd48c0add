"""Checks of the features: finite numbers, unit directions that point where activations go."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.extraction import activation_table
from nait_assets.features.capability import changes, whole_examples
from nait_assets.features.catalogue import feature_output, statistics_output
from nait_assets.partitions import Partitions
from nait_assets.recipe import ALL, Pooling, Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import NAIT_DIRECTIONS, NEURON_STATISTICS, STANDARDIZED_CENTROIDS

STATISTICS_CHECKS = [
    Check("statistics_are_finite", "Every mean is finite, every standard deviation finite and not negative.")
]
DIRECTION_CHECKS = [
    Check("directions_have_unit_norm", "The direction of each layer has a Euclidean norm of 1, within 1e-5."),
    Check(
        "directions_follow_the_mean_change",
        "Each layer's direction points the same way as the mean change of activations.",
    ),
]
CENTROID_CHECKS = [Check("centroids_are_finite", "Every centroid is finite, and not zero everywhere.")]


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """Checks of every feature, of every pooling."""
    return [checks for pooling in recipe.extraction.pool for checks in _checks_of(recipe, pooling)]


def _checks_of(recipe: Recipe, pooling: Pooling) -> list[AssetChecks]:
    def of_directions(warehouse: Warehouse, capability: str) -> Mapping[str, CheckResult]:
        return check_directions(warehouse, recipe, capability, pooling)

    def of_statistics(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        return check_statistics(warehouse, pooling)

    def of_centroids(warehouse: Warehouse, capability: str) -> Mapping[str, CheckResult]:
        return check_centroids(warehouse, capability, pooling)

    return [
        AssetChecks(feature_output("nait_directions", pooling).key, DIRECTION_CHECKS, of_directions),
        AssetChecks(statistics_output(pooling).key, STATISTICS_CHECKS, of_statistics),
        AssetChecks(feature_output("standardized_centroids", pooling).key, CENTROID_CHECKS, of_centroids),
    ]


def check_statistics(warehouse: Warehouse, pooling: Pooling = ALL) -> dict[str, CheckResult]:
    """Check the pool's neuron statistics."""
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(NEURON_STATISTICS.of_pooling(pooling))
    broken = [
        row["layer"]
        for row in frame.iter_rows(named=True)
        if not (np.isfinite(row["mean"]).all() and np.isfinite(row["standard_deviation"]).all())
        or min(row["standard_deviation"]) < 0
    ]
    return {"statistics_are_finite": CheckResult(not broken, f"broken layers: {broken or 'none'}")}


def check_directions(
    warehouse: Warehouse, recipe: Recipe, capability: str, pooling: Pooling = ALL
) -> dict[str, CheckResult]:
    """Check a capability's directions; those of a feature file have no examples here to be held against."""
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(NAIT_DIRECTIONS.of_pooling(pooling), capability=capability)
    directions = {row["layer"]: np.asarray(row["direction"], np.float64) for row in frame.iter_rows(named=True)}
    norms = {layer: float(np.linalg.norm(direction)) for layer, direction in directions.items()}
    off = max(abs(norm - 1) for norm in norms.values())
    results = {
        "directions_have_unit_norm": CheckResult(
            off <= 1e-5, f"the norms differ from 1 by at most {off:.1e}", {"off": off}
        )
    }
    name = "directions_follow_the_mean_change"
    if not recipe.capability_named(capability).examples:
        return {**results, name: CheckResult(True, "from a feature file: its examples are not here")}
    against = []
    with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
        used = whole_examples(activation_table.samples(snapshot), recipe, capability)
        for layer, direction in directions.items():
            if changes(snapshot, recipe, layer, pooling)[used].mean(axis=0) @ direction < 0:
                against.append(layer)
    return {**results, name: CheckResult(not against, f"layers that point the other way: {against or 'none'}")}


def check_centroids(warehouse: Warehouse, capability: str, pooling: Pooling = ALL) -> dict[str, CheckResult]:
    """Check a capability's centroid."""
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(STANDARDIZED_CENTROIDS.of_pooling(pooling), capability=capability)
    values = np.concatenate(frame.select(pl.col("centroid")).to_series().to_list())
    norm = float(np.linalg.norm(values))
    return {
        "centroids_are_finite": CheckResult(
            bool(np.isfinite(norm)) and norm > 0, f"the norm is {norm:g}", {"norm": norm}
        )
    }
