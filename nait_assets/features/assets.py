"""Assets of the features."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from nait_assets import __version__, lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.extraction import activation_table
from nait_assets.extraction.sites import resolve_site
from nait_assets.features.centroids import standardized_centroid
from nait_assets.features.directions import activation_change, principal_direction
from nait_assets.features.library import TENSORS, FeatureOrigin, feature_file, read_feature_file, write_feature_file
from nait_assets.features.statistics import by_layer, neuron_statistics
from nait_assets.partitions import Partitions
from nait_assets.recipe import FeatureName, Recipe, RecipeError, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
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
EXAMPLES = "extraction/in_domain_activations"
POOL = "extraction/candidate_activations"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The features that the recipe's methods need."""
    common: dict[str, Any] = {"key_prefix": ROOM, "group_name": ROOM, "automation_condition": when_inputs_change()}
    files = {name: spec.features for name, spec in recipe.capabilities.items() if spec.features}
    from_examples = [dg.AssetDep(dg.AssetKey(EXAMPLES.split("/")), partition_mapping=partitions.examples_to_features())]
    examples: list[dg.AssetDep] = from_examples if recipe.capabilities_with_examples else []

    @dg.asset(
        name="neuron_statistics",
        deps=[dg.AssetKey(POOL.split("/"))],
        code_version=ALGORITHM,
        kinds={"numpy", "duckdb"},
        **common,
    )
    def neuron_statistics_asset(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """How busy each neuron is over the pool. One row is one layer: mean and standard deviation of its neurons."""
        with warehouse.activations("candidates").reading() as snapshot:
            snapshot.note(POOL)
            frame = neuron_statistics(activation_table.scan(snapshot))
        silent = sum(row.count(0.0) for row in frame["standard_deviation"].to_list())
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
            frame, inputs = _directions(recipe, warehouse, capability)
        metadata: dict[str, object] = {"n_samples": int(frame["n_samples"][0])}
        if frame["explained_variance_ratio"].null_count() == 0:  # a feature file holds the direction alone
            metadata["explained_variance_ratio"] = frame["explained_variance_ratio"].to_numpy().mean().item()
            metadata["explained_variance_by_layer"] = plots.line(frame, "layer", "explained_variance_ratio")
        return _write_feature(context, warehouse, language_model, recipe, NAIT_DIRECTIONS, frame, inputs, metadata)

    @dg.asset(
        partitions_def=partitions.capability,
        deps=[*examples, dg.AssetKey([ROOM, "neuron_statistics"])],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.extraction, files)}",
        kinds={"numpy", "duckdb"},
        **common,
    )
    def standardized_centroids(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """By how much each neuron is busier on a capability than on the pool.

        One row is one layer: a vector in standard deviations of the pool.
        """
        capability = context.partition_key
        frame, inputs = feature_from_file(recipe, language_model, capability, "standardized_centroids")
        if frame is None:
            frame, inputs = _mean_activations(warehouse, capability)
        with warehouse.tables.reading() as snapshot:
            statistics = by_layer(snapshot.read(NEURON_STATISTICS))
        centroids = [
            standardized_centroid(np.asarray(row["mean_activation"]), statistics[row["layer"]])
            for row in frame.iter_rows(named=True)
        ]
        frame = frame.with_columns(centroid=pl.Series([centroid.tolist() for centroid in centroids], dtype=VECTOR))
        norms = [float(np.linalg.norm(centroid)) for centroid in centroids]
        metadata = {
            "n_samples": int(frame["n_samples"][0]),
            "norm": float(np.linalg.norm(norms)),
            "strongest_neurons": lineage.table_metadata(_strongest(frame)),
            "norm_by_layer": plots.line(pl.DataFrame({"layer": frame["layer"], "norm": norms}), "layer", "norm"),
        }
        inputs = {**inputs, **snapshot.inputs}
        return _write_feature(
            context, warehouse, language_model, recipe, STANDARDIZED_CENTROIDS, frame, inputs, metadata
        )

    built = {
        "nait_directions": [nait_directions],
        "standardized_centroids": [neuron_statistics_asset, standardized_centroids],
    }
    return [asset for feature in recipe.features_needed for asset in built[feature]]


def _directions(recipe: Recipe, warehouse: Warehouse, capability: str) -> tuple[pl.DataFrame, dict[str, str]]:
    rows = []
    with warehouse.activations(capability).reading() as snapshot:
        snapshot.note(EXAMPLES, capability)
        for layer in activation_table.layers_of(snapshot):
            mean, first, last = (
                activation_table.matrix(snapshot, layer, column)
                for column in ("activation", "first_token_activation", "last_token_activation")
            )
            try:
                direction, explained = principal_direction(activation_change(recipe.features.change, mean, first, last))
            except ValueError as error:
                raise RecipeError(f"capability {capability!r}, layer {layer}: {error}") from error
            rows.append(
                {"layer": layer, "direction": direction, "explained_variance_ratio": explained, "n_samples": len(mean)}
            )
    return pl.DataFrame(rows, schema=_without_slice(NAIT_DIRECTIONS)), snapshot.inputs


def _mean_activations(warehouse: Warehouse, capability: str) -> tuple[pl.DataFrame, dict[str, str]]:
    rows = []
    with warehouse.activations(capability).reading() as snapshot:
        snapshot.note(EXAMPLES, capability)
        for layer in activation_table.layers_of(snapshot):
            activations = activation_table.matrix(snapshot, layer)
            mean = activations.mean(axis=0, dtype=np.float64).astype(np.float32)
            rows.append({"layer": layer, "centroid": None, "mean_activation": mean, "n_samples": len(activations)})
    return pl.DataFrame(rows, schema=_without_slice(STANDARDIZED_CENTROIDS)), snapshot.inputs


def feature_from_file(
    recipe: Recipe, model: LanguageModel, capability: str, feature: FeatureName
) -> tuple[pl.DataFrame | None, dict[str, str]]:
    """A feature that the recipe takes from a file, and the state of the file; None where the capability has examples.

    Raises:
        RecipeError: The file does not exist, is no feature file, or was made with another model or extraction.
    """
    if recipe.capabilities[capability].features is None:
        return None, {}
    path = feature_file(recipe, capability, feature)
    layers = resolve_site(model.skeleton(), recipe.extraction.site, recipe.extraction.layers).layers
    settings, change = recipe.extraction, _change_of(recipe, feature)
    origin, tensors = read_feature_file(
        path, feature, model.identity(), settings.site, layers, settings.template, change
    )
    schema = _without_slice(NAIT_DIRECTIONS if feature == "nait_directions" else STANDARDIZED_CENTROIDS)
    rows = [
        {"layer": layer, "n_samples": origin.n_samples, **{name: tensor[index] for name, tensor in tensors.items()}}
        for index, layer in enumerate(origin.layers)
    ]
    return pl.DataFrame(rows, schema=schema), feature_file_inputs(recipe, capability, feature)


def exported_file(warehouse: Warehouse, capability: str, feature: str) -> Path:
    """Where a capability's feature lies as a file for other recipes."""
    return warehouse.folder / "features" / capability / f"{feature}.safetensors"


def _change_of(recipe: Recipe, feature: FeatureName) -> str:
    """Which activation change a feature is made of: only directions are."""
    return recipe.features.change if feature == "nait_directions" else ""


def feature_file_inputs(recipe: Recipe, capability: str, feature: FeatureName) -> dict[str, str]:
    """The state of the file that a capability's feature is taken from; nothing where it has examples.

    Raises:
        RecipeError: The file does not exist.
    """
    given = recipe.capabilities[capability].features
    return {f"feature_file:{given}": sha256(feature_file(recipe, capability, feature))[:16]} if given else {}


def _without_slice(table: Table) -> pl.Schema:
    return pl.Schema({name: dtype for name, dtype in table.columns.items() if name not in table.slice_columns})


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
    with warehouse.tables.writing() as transaction:
        transaction.replace(table, frame, **where)
        transaction.put_record(record)
    shown = {
        "dagster/table_name": table.name,
        "dagster/row_count": len(frame),
        "dagster/column_schema": lineage.column_schema(frame),
    }
    return lineage.result(record, {**shown, **metadata})


def _write_feature(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    model: LanguageModel,
    recipe: Recipe,
    table: Table,
    frame: pl.DataFrame,
    inputs: dict[str, str],
    metadata: dict[str, object],
) -> dg.MaterializeResult:
    """Write a capability's feature to the warehouse and to its feature file."""
    capability: str = context.partition_key
    feature: Any = table.name.split(".")[1]
    path = exported_file(warehouse, capability, feature)
    origin = FeatureOrigin(
        feature,
        capability,
        model.identity(),
        recipe.extraction.site,
        tuple(frame["layer"].to_list()),
        recipe.extraction.template,
        recipe.extraction.max_tokens,
        _change_of(recipe, feature),
        __version__,
        int(frame["n_samples"][0]),
        content_version(frame, table.key),
    )
    tensors = {
        name: np.stack([np.asarray(vector, np.float32) for vector in frame[name].to_list()])
        for name in TENSORS[feature]
    }
    write_feature_file(path, origin, tensors)
    return _write(
        context, warehouse, table, frame, inputs, {**metadata, "feature_file": dg.MetadataValue.path(str(path))}
    )
