"""Assets of the features."""

import dagster as dg
import numpy as np
import polars as pl

from nait_assets import lineage, plots
from nait_assets.extraction.catalogue import CANDIDATES_OUTPUT, EXAMPLES_OUTPUT, calibration_output
from nait_assets.features.capability import centroids, directions_of, export, pool_statistics
from nait_assets.features.catalogue import feature_output, statistics_output
from nait_assets.partitions import Partitions
from nait_assets.recipe import Pooling, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.rooms import asset_arguments, write_table

ALGORITHM = "2"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """Every feature; `definitions` leaves out those that no method reads."""
    makers = (_statistics_asset, _directions_asset, _centroids_asset)
    return [make(recipe, partitions, pooling) for pooling in recipe.extraction.pool for make in makers]


def _statistics_asset(recipe: Recipe, partitions: Partitions, pooling: Pooling) -> dg.AssetsDefinition:
    output = statistics_output(pooling)

    @dg.asset(
        **asset_arguments(output, partitions),
        deps=[lineage.asset_key(CANDIDATES_OUTPUT.key)],
        code_version=ALGORITHM,
        kinds={"numpy", "duckdb"},
    )
    def neuron_statistics(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """How active each neuron is over the pool. One row is one layer: mean and standard deviation of its neurons.

        With a projection, one row is the network, and its dimensions take the place of neurons.
        """
        frame, n_silent, inputs = pool_statistics(recipe, warehouse, pooling)
        metadata = {
            "n_samples": int(frame["n_samples"][0]),
            "n_neurons": int(frame["mean"].list.len().sum()),
            "n_neurons_that_never_vary": n_silent,
        }
        return write_table(context, warehouse, output, frame, inputs, metadata)

    return neuron_statistics


def _directions_asset(recipe: Recipe, partitions: Partitions, pooling: Pooling) -> dg.AssetsDefinition:
    output = feature_output("nait_directions", pooling)

    @dg.asset(
        **asset_arguments(output, partitions),
        deps=_examples(recipe, partitions),
        code_version=f"{ALGORITHM}:{fingerprint(recipe.features, recipe.extraction, _feature_files(recipe))}",
        kinds={"scikitlearn", "duckdb"},
    )
    def nait_directions(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """Where a capability moves the activations. One row is one layer: the unit direction of NAIT's eq. 3."""
        capability = context.partition_key
        frame, n_left_out, inputs = directions_of(recipe, warehouse, language_model, capability, pooling)
        file = export(recipe, warehouse, language_model, capability, output.feature, frame, pooling)
        metadata = {**_directions_metadata(frame, n_left_out), "feature_file": dg.MetadataValue.path(str(file))}
        return write_table(context, warehouse, output, frame, inputs, metadata)

    return nait_directions


def _centroids_asset(recipe: Recipe, partitions: Partitions, pooling: Pooling) -> dg.AssetsDefinition:
    output, statistics = (
        feature_output("standardized_centroids", pooling),
        lineage.asset_key(statistics_output(pooling).key),
    )
    projected = recipe.extraction.pool if _feature_files(recipe) and recipe.extraction.projection else ()
    calibrations = [lineage.asset_key(calibration_output(one).key) for one in projected]

    @dg.asset(
        **asset_arguments(output, partitions),
        deps=[*_examples(recipe, partitions), statistics, *calibrations],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.extraction, _feature_files(recipe))}",
        kinds={"numpy", "duckdb"},
    )
    def standardized_centroids(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How much more active each neuron is on a capability than on the pool.

        One row is one layer: a vector in standard deviations of the pool.
        """
        capability = context.partition_key
        frame, inputs = centroids(recipe, warehouse, language_model, capability, pooling)
        metadata = _centroids_metadata(frame, projected=recipe.extraction.projection is not None)
        if not recipe.extraction.projection:
            file = export(recipe, warehouse, language_model, capability, output.feature, frame, pooling)
            metadata["feature_file"] = dg.MetadataValue.path(str(file))
        return write_table(context, warehouse, output, frame, inputs, metadata)

    return standardized_centroids


def _feature_files(recipe: Recipe) -> dict[str, str]:
    """Feature files that the recipe names, by capability."""
    return {name: spec.features for name, spec in recipe.capabilities.items() if spec.features}


def _examples(recipe: Recipe, partitions: Partitions) -> list[dg.AssetDep]:
    """The examples' activations, capability by capability; none where all features come from files."""
    if not recipe.capabilities_with_examples:
        return []
    mapping = partitions.examples_to_features()
    return [dg.AssetDep(lineage.asset_key(EXAMPLES_OUTPUT.key), partition_mapping=mapping)]


def _directions_metadata(frame: pl.DataFrame, n_left_out: int) -> dict[str, object]:
    metadata: dict[str, object] = {"n_samples": int(frame["n_samples"][0]), "n_cut_examples_left_out": n_left_out}
    if frame["explained_variance_ratio"].null_count() == 0:  # a feature file holds the direction alone
        metadata["explained_variance_ratio"] = frame["explained_variance_ratio"].to_numpy().mean().item()
        metadata["explained_variance_by_layer"] = plots.line(frame, "layer", "explained_variance_ratio")
    return metadata


def _centroids_metadata(frame: pl.DataFrame, projected: bool) -> dict[str, object]:
    norms = [float(np.linalg.norm(vector)) for vector in frame["centroid"].to_list()]
    metadata: dict[str, object] = {"n_samples": int(frame["n_samples"][0]), "norm": float(np.linalg.norm(norms))}
    if not projected:
        metadata["strongest_neurons"] = lineage.table_metadata(_strongest(frame))
        metadata["norm_by_layer"] = plots.line(pl.DataFrame({"layer": frame["layer"], "norm": norms}), "layer", "norm")
    return metadata


def _strongest(frame: pl.DataFrame, n: int = 10) -> pl.DataFrame:
    """The neurons by which a capability differs most from the pool."""
    values = np.stack([np.asarray(vector) for vector in frame["centroid"].to_list()])
    places = np.argsort(-np.abs(values), axis=None, kind="stable")[:n]
    layers, neurons = np.unravel_index(places, values.shape)
    return pl.DataFrame(
        {
            "layer": frame["layer"].to_numpy()[layers],
            "neuron": neurons,
            "standard_deviations": values[layers, neurons].round(2).astype(float),
        }
    )
