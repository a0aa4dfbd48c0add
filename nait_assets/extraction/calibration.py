"""The calibration of a projection: what every neuron does over a seeded sample of the pool.

It holds each neuron's mean and standard deviation, and the sample's leading components.

It is frozen: a pool that changes keeps the calibration that it has, so that what was read before stays comparable, as
long as half of that sample is left in it (`models.frozen`). Another model, site, layer, template, dtype or projection
makes another one, and so does `nait reset calibration`. Each pooling has one of its own.
"""

from collections.abc import Callable

import polars as pl

from nait_assets.extraction import activation_table
from nait_assets.extraction.extractor import Outcome, extract, extraction_identity
from nait_assets.extraction.projection import Projector, leading_components
from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.lineage import Record
from nait_assets.models.frozen import why_stale
from nait_assets.models.running import RunOptions
from nait_assets.recipe import ALL, Extraction, Pooling, Projection, fingerprint, pooled, seeded_order
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Store
from nait_assets.tables import CALIBRATION_STATISTICS, VECTOR

COMPONENT_SHARE = 4
"""One dimension in so many is a component."""


def calibration_sample(candidates: pl.DataFrame, projection: Projection) -> pl.DataFrame:
    """The candidates that calibrate: those whose hash with the seed is smallest."""
    order = seeded_order(candidates["sample_id"].to_list(), f"calibration:{projection.seed}")
    return candidates[sorted(order[: projection.calibration_samples])]


def calibration_identity(model: LanguageModel, settings: Extraction, pooling: Pooling = ALL) -> str:
    """The hash of everything that a calibration depends on beside the candidates that it was first made from.

    Raises:
        ModelError: The model cannot be found.
    """
    assert settings.projection is not None
    return fingerprint(extraction_identity(model, _of_neurons(settings, pooling), False, ""), settings.projection)


def calibrate(
    pool: pl.DataFrame,
    model: LanguageModel,
    settings: Extraction,
    warehouse: Warehouse,
    options: RunOptions,
    log_line: Callable[[str], None],
    pooling: Pooling = ALL,
) -> tuple[pl.DataFrame, Outcome | None]:
    """The calibration, one row per layer: the one that the home has, if it still serves, else a new one.

    It serves if it is of this model and extraction, and half of its sample is in the pool.

    Args:
        pool: Columns `sample_id` and `messages`.
        model: Loaded only if there is no calibration yet.
        settings: Extraction settings of the recipe.
        warehouse: Warehouse of the home.
        options: How the model is run.
        log_line: Receives progress lines.
        pooling: Pooling of the extraction that is calibrated.

    Returns:
        Columns of `tables.CALIBRATION_STATISTICS`, and what reading took, or None where nothing was read.
    """
    identity, column = calibration_identity(model, settings, pooling), pooled("activation", pooling)
    held = _held(warehouse, identity, pooling)
    outlived = why_stale(held["sample_ids"][0].to_list(), pool["sample_id"].to_list()) if held is not None else ""
    if held is not None and not outlived:
        return held, None
    if outlived:
        log_line(f"calibration: {outlived}; it is made anew")
    assert settings.projection is not None
    sample = calibration_sample(pool, settings.projection)
    store = Store(warehouse.folder / "activations" / f"{pooled('calibration', pooling)}.duckdb")
    outcome = extract(
        sample,
        "calibration",
        model,
        _of_neurons(settings, pooling),
        store,
        False,
        options,
        lambda version: Record("extraction/calibration_sample", "", "", version),
        log_line,
    )
    with store.snapshot() as snapshot:
        frame = neuron_statistics(activation_table.scan(snapshot, column))
        standardized = {
            layer: found.standardize(activation_table.matrix(snapshot, layer, column))
            for layer, found in by_layer(frame).items()
        }
    components = leading_components(standardized, settings.projection.dimensions // COMPONENT_SHARE)
    store.path.unlink()  # what was made of it is all that is needed
    # Series of series: of arrays polars makes its own arrays, whose content has another version than what is read back.
    flat = pl.Series([pl.Series(components[layer].ravel()) for layer in frame["layer"].to_list()], dtype=VECTOR)
    names = pl.Series([list(outcome.sample_ids)] * len(frame), dtype=pl.List(pl.String))
    return frame.with_columns(components=flat, calibration_id=pl.lit(identity), sample_ids=names), outcome


def projectors_of(warehouse: Warehouse, settings: Extraction) -> tuple[dict[Pooling, Projector], str, dict[str, str]]:
    """The projectors of a recipe by pooling, the version of their calibrations, and each as an input.

    Without projection there are none.

    Raises:
        WarehouseError: A calibration has not been materialized.
    """
    if settings.projection is None:
        return {}, "", {}
    projectors: dict[Pooling, Projector] = {}
    with warehouse.tables.snapshot() as snapshot:
        frames = {pooling: snapshot.read(CALIBRATION_STATISTICS.of_pooling(pooling)) for pooling in settings.pool}
    for pooling, frame in frames.items():
        statistics = by_layer(frame)
        components = {
            layer: flat.to_numpy(writable=True).reshape(-1, len(statistics[layer].mean))
            for layer, flat in zip(frame["layer"].to_list(), frame["components"], strict=True)
        }
        projection = settings.projection
        projectors[pooling] = Projector(statistics, projection.dimensions, projection.seed, components)
    versions = [snapshot.inputs[CALIBRATION_STATISTICS.of_pooling(pooling).asset] for pooling in settings.pool]
    return projectors, ",".join(versions), snapshot.inputs


def _held(warehouse: Warehouse, identity: str, pooling: Pooling) -> pl.DataFrame | None:
    table = CALIBRATION_STATISTICS.of_pooling(pooling)
    if not warehouse.tables.path.exists():
        return None
    with warehouse.tables.snapshot() as snapshot:
        if table.asset not in snapshot.records():
            return None
        frame = snapshot.read(table)
    return frame if frame["calibration_id"].unique().to_list() == [identity] else None


def _of_neurons(settings: Extraction, pooling: Pooling) -> Extraction:
    return settings.model_copy(update={"projection": None, "pool": (pooling,), "store": "float32"})
