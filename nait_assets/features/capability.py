"""A capability's features: made from the activations of its examples, or taken from a feature file of another run."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from nait_assets import __version__
from nait_assets.errors import DataError
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.calibration import projectors_of
from nait_assets.extraction.extractor import ALGORITHM
from nait_assets.extraction.projection import NETWORK
from nait_assets.extraction.statistics import by_layer, neuron_statistics, of_projection
from nait_assets.features.centroids import standardized_centroid
from nait_assets.features.directions import activation_change, principal_direction
from nait_assets.features.library import (
    TENSORS,
    Basis,
    FeatureOrigin,
    feature_file,
    read_feature_file,
    write_feature_file,
)
from nait_assets.lineage import reference
from nait_assets.models import cuts
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import ALL, POOL, Extraction, FeatureName, Pooling, Recipe, pooled
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import (
    NAIT_DIRECTIONS,
    NEURON_STATISTICS,
    STANDARDIZED_CENTROIDS,
    VECTOR,
    Table,
    content_version,
)

TABLES: dict[FeatureName, Table] = {
    "nait_directions": NAIT_DIRECTIONS,
    "standardized_centroids": STANDARDIZED_CENTROIDS,
}


def directions(
    recipe: Recipe, warehouse: Warehouse, capability: str, pooling: Pooling = ALL
) -> tuple[pl.DataFrame, int, dict[str, str]]:
    """A capability's NAIT directions, one row per layer, how many examples were left out, and what was read.

    Raises:
        DataError: The examples' activations do not change, or all in the same way, or most examples were cut.
    """
    rows = []
    with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
        snapshot.note(IN_DOMAIN_ACTIVATIONS, capability)
        used = whole_examples(activation_table.samples(snapshot), recipe, capability)
        for layer in activation_table.layers_of(snapshot):
            change = changes(snapshot, recipe, layer, pooling)[used]
            try:
                direction, explained = principal_direction(change)
            except ValueError as error:
                raise DataError(f"capability {capability!r}, layer {layer}: {error}") from error
            found = {"direction": direction, "explained_variance_ratio": explained, "n_samples": len(change)}
            rows.append({"layer": layer, **found})
    return pl.DataFrame(rows, schema=NAIT_DIRECTIONS.written_columns), int((~used).sum()), snapshot.inputs


def changes(snapshot: Snapshot, recipe: Recipe, layer: int, pooling: Pooling = ALL) -> np.ndarray:
    """`(n_examples, width)` activation changes of a layer, of all examples in the order of their ids."""
    columns = ("activation", "first_token_activation", "last_token_activation")
    mean, first, last = (activation_table.matrix(snapshot, layer, pooled(column, pooling)) for column in columns)
    return activation_change(recipe.features.change, mean, first, last)


def whole_examples(samples: pl.DataFrame, recipe: Recipe, capability: str) -> np.ndarray:
    """`(n_examples,)` bool: those that a direction is made of, in the order of `samples`.

    `samples` has the columns of `models.cuts`.

    Trap: the last token of a whole example is the template's, that of a cut one may be any word. Among changes of last
    and first token the first principal component is then whether an example was cut. So these are left out.

    Raises:
        DataError: Fewer than two examples, or than half of them, are whole.
    """
    is_whole: np.ndarray = samples.select(~cuts.is_cut()).to_series().to_numpy()
    n_whole, n_all = int(is_whole.sum()), len(samples)
    if recipe.features.change == "mean_minus_first" or n_whole == n_all:
        return np.ones(n_all, bool)
    if n_whole < max(2, n_all / 2):
        raise DataError(
            f"capability {capability!r}: {n_all - n_whole} of {n_all} examples are longer than "
            f"`extraction.max_tokens` ({recipe.extraction.max_tokens}), and a direction is made of whole examples, at "
            "least two and half of all. Use a larger `extraction.max_tokens`, shorter examples, or "
            "`features: {change: mean_minus_first}`, which reads no last token."
        )
    return is_whole


def mean_activations(
    warehouse: Warehouse, capability: str, pooling: Pooling = ALL
) -> tuple[pl.DataFrame, dict[str, str]]:
    """A capability's mean activations, one row per layer, and the version of the activations that they are made of.

    The column `centroid` is still empty: it needs the pool's statistics.
    """
    rows = []
    with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
        snapshot.note(IN_DOMAIN_ACTIVATIONS, capability)
        for layer in activation_table.layers_of(snapshot):
            activations = activation_table.matrix(snapshot, layer, pooled("activation", pooling))
            mean = activations.mean(axis=0, dtype=np.float64).astype(np.float32)
            rows.append({"layer": layer, "centroid": None, "mean_activation": mean, "n_samples": len(activations)})
    return pl.DataFrame(rows, schema=STANDARDIZED_CENTROIDS.written_columns), snapshot.inputs


def directions_of(
    recipe: Recipe, warehouse: Warehouse, model: LanguageModel, capability: str, pooling: Pooling = ALL
) -> tuple[pl.DataFrame, int, dict[str, str]]:
    """A capability's directions, from the file that the recipe names or from its examples.

    Returns:
        One row per layer, how many examples were left out, and what was read.

    Raises:
        SourceError: The file does not fit.
        DataError: As `directions`.
    """
    frame, inputs = feature_from_file(recipe, model, capability, "nait_directions", pooling)
    return (frame, 0, inputs) if frame is not None else directions(recipe, warehouse, capability, pooling)


def centroids(
    recipe: Recipe, warehouse: Warehouse, model: LanguageModel, capability: str, pooling: Pooling = ALL
) -> tuple[pl.DataFrame, dict[str, str]]:
    """A capability's standardised centroids, one row per layer, and the versions of what was read for them.

    Raises:
        SourceError: The feature file that the recipe names does not fit.
        WarehouseError: The pool's statistics, or the examples' activations, have not been made.
    """
    frame, inputs = feature_from_file(recipe, model, capability, "standardized_centroids", pooling)
    if frame is None:
        frame, inputs = mean_activations(warehouse, capability, pooling)
    elif recipe.extraction.projection:
        frame = projected_means(frame, warehouse, recipe.extraction, pooling)
    if recipe.extraction.projection and any(spec.features for spec in recipe.capabilities.values()):
        # of every capability, as the asset depends on the calibration as a whole
        inputs = {**inputs, **projectors_of(warehouse, recipe.extraction)[2]}
    with warehouse.tables.snapshot() as snapshot:
        statistics = by_layer(snapshot.read(NEURON_STATISTICS.of_pooling(pooling)))
    vectors = [
        standardized_centroid(np.asarray(row["mean_activation"]), statistics[row["layer"]]).tolist()
        for row in frame.iter_rows(named=True)
    ]
    return frame.with_columns(centroid=pl.Series(vectors, dtype=VECTOR)), {**inputs, **snapshot.inputs}


def pool_statistics(
    recipe: Recipe, warehouse: Warehouse, pooling: Pooling = ALL
) -> tuple[pl.DataFrame, int, dict[str, str]]:
    """The pool's neuron statistics, one row per layer, how many neurons never vary, and what was read.

    Raises:
        WarehouseError: The candidates' activations have not been made.
    """
    with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
        snapshot.note(CANDIDATE_ACTIVATIONS)
        frame = neuron_statistics(activation_table.scan(snapshot, pooled("activation", pooling)))
    n_silent = sum(row.count(0.0) for row in frame["standard_deviation"].to_list())
    return of_projection(frame) if recipe.extraction.projection else frame, n_silent, snapshot.inputs


def projected_means(
    frame: pl.DataFrame, warehouse: Warehouse, settings: Extraction, pooling: Pooling = ALL
) -> pl.DataFrame:
    """Mean activations from a feature file, one row per layer, as the projection of the home: one row.

    The projection is linear, so the projected mean is the mean of projected examples.
    """
    projector = projectors_of(warehouse, settings)[0][pooling]
    means = {row["layer"]: np.asarray(row["mean_activation"])[None] for row in frame.iter_rows(named=True)}
    row = {"layer": NETWORK, "centroid": None, "n_samples": frame["n_samples"][0]}
    return pl.DataFrame([{**row, "mean_activation": projector.project(means)[0]}], schema=frame.schema)


def feature_from_file(
    recipe: Recipe, model: LanguageModel, capability: str, feature: FeatureName, pooling: Pooling = ALL
) -> tuple[pl.DataFrame | None, dict[str, str]]:
    """A feature that the recipe takes from a file, and the state of the file; None where the capability has examples.

    Raises:
        SourceError: The file does not exist, is no feature file, or was made with another model or extraction.
    """
    if recipe.capability_named(capability).features is None:
        return None, {}
    inputs = feature_file_inputs(
        recipe, model, capability, feature, pooling
    )  # before the file is read, or it could be newer
    path, settings = feature_file(recipe, capability, feature, pooling), recipe.extraction
    layers = resolve_site(model.skeleton(), settings.site, settings.layers).layers
    basis = _basis(recipe, feature, pooling, layers, model.identity(), model.dtype_name())
    origin, tensors = read_feature_file(path, feature, basis)
    rows = [
        {"layer": layer, "n_samples": origin.n_samples, **{name: tensor[index] for name, tensor in tensors.items()}}
        for index, layer in enumerate(origin.layers)
    ]
    return pl.DataFrame(rows, schema=TABLES[feature].written_columns), inputs


def feature_file_inputs(
    recipe: Recipe, model: LanguageModel, capability: str, feature: FeatureName, pooling: Pooling = ALL
) -> dict[str, str]:
    """The state of the file that a capability's feature is taken from, and of the model that it has to be of.

    Nothing where the capability has examples: its activations stand for the model.

    Raises:
        SourceError: The file or the model does not exist.
    """
    given = recipe.capability_named(capability).features
    if given is None:
        return {}
    digest = sha256(feature_file(recipe, capability, feature, pooling))[:16]
    return {
        f"feature_file:{given}": digest,
        f"model:{recipe.model.source}": model.identity(),
        "dtype": model.dtype_name(),
    }


def exported_file(warehouse: Warehouse, capability: str, feature: str) -> Path:
    """Where a capability's feature lies as a file for other recipes."""
    return warehouse.folder / "features" / capability / f"{feature}.safetensors"


def export(
    recipe: Recipe,
    warehouse: Warehouse,
    model: LanguageModel,
    capability: str,
    feature: FeatureName,
    frame: pl.DataFrame,
    pooling: Pooling = ALL,
) -> Path:
    """Write a capability's feature as a file for other recipes.

    Args:
        recipe: Recipe that the feature was made by.
        warehouse: Warehouse whose home the file goes to.
        model: Model of the recipe.
        capability: Capability that the feature is of.
        feature: Name of the feature.
        frame: Its rows, one per layer.
        pooling: Pooling of the activations that it is made from.

    Returns:
        The file.
    """
    path = exported_file(warehouse, capability, pooled(feature, pooling))
    basis = _basis(
        recipe, feature, pooling, frame["layer"].to_list(), *_read_with(recipe, warehouse, model, capability)
    )
    origin = FeatureOrigin(
        **asdict(basis),
        feature=feature,
        capability=capability,
        nait_assets=__version__,
        n_samples=int(frame["n_samples"][0]),
        data_version=content_version(frame, TABLES[feature].key),
    )
    vectors = {name: [np.asarray(vector, np.float32) for vector in frame[name].to_list()] for name in TENSORS[feature]}
    write_feature_file(path, origin, {name: np.stack(rows) for name, rows in vectors.items()})
    return path


def _read_with(recipe: Recipe, warehouse: Warehouse, model: LanguageModel, capability: str) -> tuple[str, str]:
    """Identity and dtype of the model that read a capability's examples, which the recipe's may no longer be."""
    if not recipe.capability_named(capability).examples:
        return model.identity(), model.dtype_name()
    record = activation_table.activations_of(warehouse, capability).records()[
        reference(IN_DOMAIN_ACTIVATIONS, capability)
    ]
    identity = next(version for name, version in record.inputs.items() if name.startswith("model:"))
    return identity, record.inputs["dtype"]


def _basis(
    recipe: Recipe, feature: FeatureName, pooling: Pooling, layers: Sequence[int], model: str, dtype: str
) -> Basis:
    """What a feature of the recipe rests on, by the identity and dtype of its model."""
    extraction = recipe.extraction
    return Basis(
        model=model,
        dtype=dtype,
        algorithm=ALGORITHM,
        site=extraction.site,
        layers=tuple(layers),
        template=extraction.rendering,
        template_date=extraction.template_date.isoformat(),
        max_tokens=extraction.max_tokens,
        truncate=extraction.truncate,
        change=recipe.features.change if feature == "nait_directions" else "",
        pool=pooling,
    )
