"""Assets of the features."""

from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from nait_assets import lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CALIBRATION, CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.calibration import projector_of
from nait_assets.extraction.statistics import by_layer, neuron_statistics, of_projection
from nait_assets.features.capability import (
    directions,
    export,
    feature_from_file,
    mean_activations,
    projected_means,
)
from nait_assets.features.centroids import standardized_centroid
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.tables import (
    NAIT_DIRECTIONS,
    NEURON_STATISTICS,
    STANDARDIZED_CENTROIDS,
    VECTOR,
    Table,
    content_version,
)

ROOM = "features"
ALGORITHM = "1"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """Every feature; `definitions` leaves out those that no method reads."""
    common: dict[str, Any] = {"key_prefix": ROOM, "group_name": ROOM, "automation_condition": when_inputs_change()}
    files = {name: spec.features for name, spec in recipe.capabilities.items() if spec.features}
    from_examples = [
        dg.AssetDep(dg.AssetKey(IN_DOMAIN_ACTIVATIONS.split("/")), partition_mapping=partitions.examples_to_features())
    ]
    examples: list[dg.AssetDep] = from_examples if recipe.capabilities_with_examples else []
    projects_files = bool(files and recipe.extraction.projection)
    calibration = [dg.AssetDep(dg.AssetKey(CALIBRATION.split("/")))] if projects_files else []

    @dg.asset(
        name="neuron_statistics",
        deps=[dg.AssetKey(CANDIDATE_ACTIVATIONS.split("/"))],
        code_version=ALGORITHM,
        kinds={"numpy", "duckdb"},
        **common,
    )
    def neuron_statistics_asset(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """How active each neuron is over the pool. One row is one layer: mean and standard deviation of its neurons.

        With a projection, one row is the network, and its dimensions take the place of neurons.
        """
        with warehouse.activations(POOL).snapshot() as snapshot:
            snapshot.note(CANDIDATE_ACTIVATIONS)
            frame = neuron_statistics(activation_table.scan(snapshot))
        silent = sum(row.count(0.0) for row in frame["standard_deviation"].to_list())
        frame = of_projection(frame) if recipe.extraction.projection else frame
        metadata = {
            "n_samples": int(frame["n_samples"][0]),
            "n_neurons": int(frame["mean"].list.len().sum()),
            "n_neurons_that_never_vary": silent,
        }
        return _write(context, warehouse, NEURON_STATISTICS, frame, snapshot.inputs, metadata)

    @dg.asset(
        partitions_def=partitions.capability,
        deps=examples,
        code_version=f"{ALGORITHM}:{fingerprint(recipe.features, recipe.extraction, files)}",
        kinds={"scikitlearn", "duckdb"},
        **common,
    )
    def nait_directions(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """Where a capability moves the activations. One row is one layer: the unit direction of NAIT's eq. 3."""
        capability = context.partition_key
        frame, inputs = feature_from_file(recipe, language_model, capability, "nait_directions")
        if frame is None:
            frame, inputs = directions(recipe, warehouse, capability)
        metadata: dict[str, object] = {"n_samples": int(frame["n_samples"][0])}
        if frame["explained_variance_ratio"].null_count() == 0:  # a feature file holds the direction alone
            metadata["explained_variance_ratio"] = frame["explained_variance_ratio"].to_numpy().mean().item()
            metadata["explained_variance_by_layer"] = plots.line(frame, "layer", "explained_variance_ratio")
        file = export(recipe, warehouse, language_model, capability, "nait_directions", frame)
        metadata["feature_file"] = dg.MetadataValue.path(str(file))
        return _write(context, warehouse, NAIT_DIRECTIONS, frame, inputs, metadata)

    @dg.asset(
        partitions_def=partitions.capability,
        deps=[*examples, dg.AssetKey([ROOM, "neuron_statistics"]), *calibration],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.extraction, files)}",
        kinds={"numpy", "duckdb"},
        **common,
    )
    def standardized_centroids(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How much more active each neuron is on a capability than on the pool.

        One row is one layer: a vector in standard deviations of the pool.
        """
        capability = context.partition_key
        frame, inputs = feature_from_file(recipe, language_model, capability, "standardized_centroids")
        if frame is None:
            frame, inputs = mean_activations(warehouse, capability)
        elif projects_files:
            frame = projected_means(frame, warehouse, recipe.extraction)
        if projects_files:
            inputs = {**inputs, **projector_of(warehouse, recipe.extraction)[2]}
        with warehouse.tables.snapshot() as snapshot:
            statistics = by_layer(snapshot.read(NEURON_STATISTICS))
        centroids = [
            standardized_centroid(np.asarray(row["mean_activation"]), statistics[row["layer"]])
            for row in frame.iter_rows(named=True)
        ]
        frame = frame.with_columns(centroid=pl.Series([centroid.tolist() for centroid in centroids], dtype=VECTOR))
        norms = [float(np.linalg.norm(centroid)) for centroid in centroids]
        metadata: dict[str, object] = {
            "n_samples": int(frame["n_samples"][0]),
            "norm": float(np.linalg.norm(norms)),
        }
        if not recipe.extraction.projection:
            metadata["strongest_neurons"] = lineage.table_metadata(_strongest(frame))
            by_layer_frame = pl.DataFrame({"layer": frame["layer"], "norm": norms})
            metadata["norm_by_layer"] = plots.line(by_layer_frame, "layer", "norm")
            file = export(recipe, warehouse, language_model, capability, "standardized_centroids", frame)
            metadata["feature_file"] = dg.MetadataValue.path(str(file))
        return _write(context, warehouse, STANDARDIZED_CENTROIDS, frame, {**inputs, **snapshot.inputs}, metadata)

    return [
        neuron_statistics_asset,
        nait_directions,
        standardized_centroids,
    ]


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


def _write(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    table: Table,
    frame: pl.DataFrame,
    inputs: dict[str, str],
    metadata: dict[str, object],
) -> dg.MaterializeResult:
    where = {"capability": context.partition_key} if "capability" in table.slice_columns else {}
    record = lineage.record_of(context, content_version(frame, table.key), inputs)
    with warehouse.tables.transaction() as transaction:
        transaction.replace(table, frame, **where)
        transaction.put_record(record)
    shown = {
        "dagster/table_name": table.name,
        "dagster/row_count": len(frame),
        "dagster/column_schema": lineage.column_schema(frame),
    }
    return lineage.result(record, {**shown, **metadata})
