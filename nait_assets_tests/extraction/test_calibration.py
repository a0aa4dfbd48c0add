"""The calibration: which candidates it takes, what it measures, and that it is frozen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CALIBRATION
from nait_assets.extraction.calibration import calibrate, calibration_identity, calibration_sample, projectors_of
from nait_assets.extraction.catalogue import calibration_output
from nait_assets.extraction.extractor import Outcome, extract
from nait_assets.lineage import Record
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction, Projection, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Store, WarehouseError
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL, content_version
from nait_assets_tests.conftest import pool_rows

MakeRecipe = Callable[..., Recipe]
PROJECTION = Projection(dimensions=32, calibration_samples=6)
SETTINGS = Extraction(max_tokens=64, projection=PROJECTION)


def pool_of(n: int) -> pl.DataFrame:
    """A pool of n candidates; the first are the same whatever n."""
    rows = [{"sample_id": f"{number:04}", "messages": row["messages"]} for number, row in enumerate(pool_rows(n))]
    return pl.DataFrame(rows, schema={name: CANDIDATE_POOL.columns[name] for name in ("sample_id", "messages")})


def chosen(pool: pl.DataFrame, n_samples: int = 100, seed: int = 0) -> set[str]:
    """The candidates that calibrate."""
    projection = Projection(dimensions=32, calibration_samples=n_samples, seed=seed)
    sample = calibration_sample(pool, projection)
    assert sample.columns == pool.columns
    assert len(sample) == sample["sample_id"].n_unique()
    return set(sample["sample_id"].to_list())


@pytest.fixture
def model(make_recipe: MakeRecipe, tmp_path: Path) -> LanguageModel:
    """The two-layer Llama."""
    return LanguageModel.of(make_recipe(), tmp_path / "home")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """An empty home."""
    return Warehouse(home=str(tmp_path / "home"))


def calibrated(
    pool: pl.DataFrame, model: LanguageModel, warehouse: Warehouse, settings: Extraction = SETTINGS
) -> tuple[pl.DataFrame, Outcome | None]:
    """Calibrate, and keep the outcome in the home as the asset does."""
    frame, outcome = calibrate(pool, model, settings, warehouse, RunOptions(), lambda _: None)
    with warehouse.tables.transaction() as transaction:
        transaction.replace(CALIBRATION_STATISTICS, frame)
        transaction.put_record(Record(CALIBRATION, "", "1", "version"))
    return frame, outcome


def test_the_sample_is_of_the_size_asked_for_or_the_whole_pool() -> None:
    """A pool smaller than the sample calibrates with what there is."""
    pool = pool_of(300)
    assert len(chosen(pool, 100)) == 100
    assert chosen(pool, 300) == chosen(pool, 10_000) == set(pool["sample_id"].to_list())


def test_the_sample_is_drawn_by_the_seed() -> None:
    """It repeats, and another seed is another draw: 100 of 300 share a third by chance."""
    pool = pool_of(300)
    assert chosen(pool, seed=1) == chosen(pool, seed=1)
    assert 10 < len(chosen(pool, seed=1) & chosen(pool, seed=2)) < 60


def test_order_of_rows_does_not_change_the_sample() -> None:
    """The same pool from a file that was sorted otherwise is the same pool."""
    pool = pool_of(300)
    assert chosen(pool.sample(fraction=1, shuffle=True, seed=0)) == chosen(pool)


def test_a_larger_sample_holds_the_smaller_and_a_longer_pool_replaces_few() -> None:
    """A draw by position would be another one altogether for every row that is added in front."""
    assert chosen(pool_of(300), 50) < chosen(pool_of(300), 100)
    assert len(chosen(pool_of(301)) - chosen(pool_of(300))) <= 1


@pytest.mark.parametrize("site", ["mlp", "residual"])
def test_calibration_is_mean_and_deviation_of_every_neuron_over_the_sample(
    model: LanguageModel, warehouse: Warehouse, tmp_path: Path, site: str
) -> None:
    """Against numpy in float64, over what an extraction of the same candidates without a projection keeps."""
    settings = SETTINGS.model_copy(update={"site": site})
    pool = pool_of(20)
    frame, outcome = calibrated(pool, model, warehouse, settings)
    assert outcome is not None
    assert (outcome.n_extracted, frame["n_samples"].to_list(), frame["layer"].to_list()) == (6, [6, 6], [0, 1])
    store = Store(tmp_path / "neurons.duckdb")
    neurons = settings.model_copy(update={"projection": None})
    record = Record("extraction/candidate_activations", "", "", "")
    extract(pool, "pool", model, neurons, store, False, RunOptions(), lambda _: record, lambda _: None)
    with store.snapshot() as snapshot:
        names = activation_table.samples(snapshot)["sample_id"].to_list()
        places = [place for place, name in enumerate(names) if name in chosen(pool, 6)]
        for row in frame.iter_rows(named=True):
            exact = activation_table.matrix(snapshot, row["layer"])[places].astype(np.float64)
            np.testing.assert_allclose(row["mean"], exact.mean(axis=0), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(row["standard_deviation"], exact.std(axis=0), rtol=1e-4, atol=1e-6)


def test_activations_of_the_sample_are_not_kept(model: LanguageModel, warehouse: Warehouse) -> None:
    """Every neuron of 512 samples is what a projection is there to avoid; and they are no output of the home."""
    calibrated(pool_of(20), model, warehouse)
    assert list((warehouse.folder / "activations").rglob("*")) == []
    assert set(warehouse.records()) == {CALIBRATION}


def test_calibration_is_frozen_when_the_pool_changes(model: LanguageModel, warehouse: Warehouse) -> None:
    """Else one row more in the pool would have the model read all the others again."""
    frame, _ = calibrated(pool_of(20), model, warehouse)
    again, outcome = calibrated(pool_of(30)[5:], model, warehouse)
    assert outcome is None
    assert again.equals(frame)
    key = CALIBRATION_STATISTICS.key
    assert content_version(again, key) == content_version(frame, key), "what is read back is the same to lineage too"


@pytest.mark.parametrize(
    "changed",
    [
        {"site": "residual"},
        {"layers": (1,)},
        {"max_tokens": 63},
        {"template": "plain"},
        {"projection": PROJECTION.model_copy(update={"seed": 1})},
        {"projection": PROJECTION.model_copy(update={"calibration_samples": 7})},
        {"projection": PROJECTION.model_copy(update={"dimensions": 64})},
    ],
    ids=str,
)
def test_another_extraction_or_sample_is_calibrated_anew(
    model: LanguageModel, warehouse: Warehouse, changed: dict[str, object]
) -> None:
    """Statistics of other neurons, or of the same under other conditions, would standardise nothing."""
    settings = SETTINGS.model_copy(update=changed)
    calibrated(pool_of(20), model, warehouse)
    frame, outcome = calibrated(pool_of(20), model, warehouse, settings)
    assert outcome is not None
    assert frame["calibration_id"].unique().to_list() == [calibration_identity(model, settings)]


def test_another_model_is_calibrated_anew(
    make_recipe: MakeRecipe, model: LanguageModel, warehouse: Warehouse, tmp_path: Path
) -> None:
    """Here the dtype alone, which is part of how a model is read."""
    other = LanguageModel.of(make_recipe(model={"source": model.source, "dtype": "bfloat16"}), tmp_path / "home")
    calibrated(pool_of(20), model, warehouse)
    assert calibrated(pool_of(20), other, warehouse)[1] is not None


@pytest.mark.parametrize(("dimensions", "n_components"), [(16, 4), (64, 5)])
def test_one_dimension_in_four_is_a_component_of_the_sample(
    model: LanguageModel, warehouse: Warehouse, dimensions: int, n_components: int
) -> None:
    """Six samples span five dimensions about their mean, so there are no more components than that."""
    projection = PROJECTION.model_copy(update={"dimensions": dimensions})
    settings = SETTINGS.model_copy(update={"projection": projection})
    frame, _ = calibrated(pool_of(20), model, warehouse, settings)
    assert frame["components"].list.len().to_list() == [48 * n_components] * 2
    projector = projectors_of(warehouse, settings)[0]["all"]
    assert projector.n_components == n_components
    matrix = np.concatenate([projector.components[layer] for layer in (0, 1)], axis=1).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n_components), atol=1e-5)


def test_a_projector_is_made_of_the_calibration_that_the_home_has(model: LanguageModel, warehouse: Warehouse) -> None:
    """And its version is an input of every activation that is projected with it."""
    frame, _ = calibrated(pool_of(20), model, warehouse)
    projectors, version, inputs = projectors_of(warehouse, SETTINGS)
    assert list(projectors) == ["all"]
    projector = projectors["all"]
    assert (projector.dimensions, projector.seed, version, inputs) == (32, 0, "version", {CALIBRATION: "version"})
    for row in frame.iter_rows(named=True):
        np.testing.assert_array_equal(projector.statistics[row["layer"]].mean, np.float32(row["mean"]))


def test_without_a_projection_there_is_no_projector(warehouse: Warehouse) -> None:
    """And no calibration is asked for."""
    assert projectors_of(warehouse, Extraction()) == ({}, "", {})


def test_a_missing_calibration_is_named(model: LanguageModel, warehouse: Warehouse) -> None:
    """Who selects the activations alone learns what to make first."""
    calibrated(pool_of(20), model, warehouse)
    with warehouse.tables.transaction() as transaction:
        transaction.connection.execute("DELETE FROM lineage.versions")
    with pytest.raises(WarehouseError, match=rf"{CALIBRATION} has not been materialized in .*`nait run`"):
        projectors_of(warehouse, SETTINGS)


@pytest.mark.parametrize(("n_left", "kept"), [(6, True), (3, True), (2, False), (0, False)])
def test_a_calibration_is_kept_while_half_of_its_sample_is_in_the_pool(
    model: LanguageModel, warehouse: Warehouse, n_left: int, kept: bool
) -> None:
    """A pool that was replaced would be projected by what other texts do; one that grows keeps what was read."""
    pool = pool_of(20)
    frame, _ = calibrated(pool, model, warehouse)
    sample = sorted(chosen(pool, 6))
    assert frame["sample_ids"].to_list() == [sample, sample]
    other = pool.filter(~pl.col("sample_id").is_in(sample[n_left:]))
    with warehouse.tables.transaction() as tables:
        rows = {name: [None] * len(other) for name in CANDIDATE_POOL.columns if name not in other.columns}
        tables.replace(CANDIDATE_POOL, other.with_columns(**{name: pl.Series(rows[name]) for name in rows}))
    lines: list[str] = []

    again, outcome = calibrate(other, model, SETTINGS, warehouse, RunOptions(), lines.append)

    said = calibration_output("all").why_outlived(warehouse, "")
    assert (outcome is None) == kept
    assert (said == "") == kept
    assert again["sample_ids"].to_list() == ([sample, sample] if kept else [sorted(chosen(other, 6))] * 2)
    if not kept:
        assert said == (
            f"of the 6 candidates that it was made from, {n_left / 6:.0%} are still in the pool, fewer than 50%"
        )
        assert any(said in line for line in lines)
