"""The calibration of a projection: what every neuron does over a seeded sample of the pool.

It holds each neuron's mean and standard deviation, and the sample's leading components.

It is frozen: a pool that changes keeps the calibration that it has, so that what was read before stays comparable, as
long as half of that sample is left in it (`models.frozen`). Another model, site, layer, template, dtype or projection
makes another one, and so does `nait reset calibration`.
"""

from collections.abc import Callable

import polars as pl

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CALIBRATION
from nait_assets.extraction.extractor import Outcome, extract, extraction_identity
from nait_assets.extraction.projection import Projector, leading_components
from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.lineage import Record
from nait_assets.models.frozen import why_stale
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction, Projection, fingerprint, seeded_order
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Store
from nait_assets.tables import CALIBRATION_STATISTICS, VECTOR

COMPONENT_SHARE = 4
"""One dimension in so many is a component."""


def calibration_sample(pool: pl.DataFrame, projection: Projection) -> pl.DataFrame:
    """The candidates that calibrate: those whose hash with the seed is smallest."""
    order = seeded_order(pool["sample_id"].to_list(), f"calibration:{projection.seed}")
    return pool[sorted(order[: projection.calibration_samples])]


def calibration_identity(model: LanguageModel, settings: Extraction) -> str:
    """The hash of everything that a calibration depends on beside the pool that it was first made from.

    Raises:
        ModelError: The model cannot be found.
    """
    assert settings.projection is not None
    return fingerprint(extraction_identity(model, _of_neurons(settings), False, ""), settings.projection)


def calibrate(
    pool: pl.DataFrame,
    model: LanguageModel,
    settings: Extraction,
    warehouse: Warehouse,
    options: RunOptions,
    log_line: Callable[[str], None],
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

    Returns:
        Columns of `tables.CALIBRATION_STATISTICS`, and what reading took, or None where nothing was read.
    """
    identity = calibration_identity(model, settings)
    held = _held(warehouse, identity)
    outlived = why_stale(held["sample_ids"][0].to_list(), pool["sample_id"].to_list()) if held is not None else ""
    if held is not None and not outlived:
        return held, None
    if outlived:
        log_line(f"calibration: {outlived}; it is made anew")
    assert settings.projection is not None
    sample = calibration_sample(pool, settings.projection)
    store = Store(warehouse.folder / "activations" / "calibration.duckdb")
    outcome = extract(
        sample,
        "calibration",
        model,
        _of_neurons(settings),
        store,
        False,
        options,
        lambda version: Record("extraction/calibration_sample", "", "", version),
        log_line,
    )
    with store.snapshot() as snapshot:
        frame = neuron_statistics(activation_table.scan(snapshot))
        statistics = by_layer(frame)
        standardized = {
            layer: found.standardize(activation_table.matrix(snapshot, layer)) for layer, found in statistics.items()
        }
    components = leading_components(standardized, settings.projection.dimensions // COMPONENT_SHARE)
    store.path.unlink()  # what was made of it is all that is needed
    # Series of series: of arrays polars makes its own arrays, whose content has another version than what is read back.
    flat = pl.Series([pl.Series(components[layer].ravel()) for layer in frame["layer"].to_list()], dtype=VECTOR)
    names = pl.Series([list(outcome.sample_ids)] * len(frame), dtype=pl.List(pl.String))
    return frame.with_columns(components=flat, calibration_id=pl.lit(identity), sample_ids=names), outcome


def projector_of(warehouse: Warehouse, settings: Extraction) -> tuple[Projector | None, str, dict[str, str]]:
    """The projector of a recipe, the version of its calibration, and that version as an input; none without projection.

    Raises:
        WarehouseError: The calibration has not been materialized.
    """
    if settings.projection is None:
        return None, "", {}
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(CALIBRATION_STATISTICS)
    statistics = by_layer(frame)
    components = {
        layer: flat.to_numpy(writable=True).reshape(-1, len(statistics[layer].mean))
        for layer, flat in zip(frame["layer"].to_list(), frame["components"], strict=True)
    }
    projector = Projector(statistics, settings.projection.dimensions, settings.projection.seed, components)
    return projector, snapshot.inputs[CALIBRATION], snapshot.inputs


def _held(warehouse: Warehouse, identity: str) -> pl.DataFrame | None:
    if not warehouse.tables.path.exists():
        return None
    with warehouse.tables.snapshot() as snapshot:
        if CALIBRATION not in snapshot.records():
            return None
        frame = snapshot.read(CALIBRATION_STATISTICS)
    return frame if frame["calibration_id"].unique().to_list() == [identity] else None


def _of_neurons(settings: Extraction) -> Extraction:
    return settings.model_copy(update={"projection": None})
