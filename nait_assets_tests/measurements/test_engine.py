"""Measurements: what is kept, what is read again, and what a run that is cut off leaves."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.errors import DataError, WarehouseError
from nait_assets.lineage import Record
from nait_assets.measurements.catalogue import outputs_of
from nait_assets.measurements.checks import check_measurement, check_trained
from nait_assets.measurements.engine import (
    Chunk,
    Measurement,
    MeasurementContext,
    Update,
    bring_up_to_date,
    rejected_of,
    rows_of,
    store_of,
)
from nait_assets.measurements.outputs import PRE_EXPERIENCED_MODEL
from nait_assets.models.cost import Cost
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.tables import CANDIDATE_POOL, VECTOR

Conversations = dict[str, str]


def characters(_context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Two samples a part: how long the question is, and a vector of it; an empty one is rejected."""
    for part in samples.sort("sample_id").iter_slices(2):
        texts = {row["sample_id"]: row["messages"][0]["content"] for row in part.iter_rows(named=True)}
        rows = [(name, len(text), [float(len(text)), 1.0]) for name, text in texts.items() if text]
        frame = pl.DataFrame(rows, {"sample_id": pl.String, "length": pl.Int64, "vector": VECTOR}, orient="row")
        yield Chunk(frame, [(name, "it is empty") for name, text in texts.items() if not text], Cost(len(texts)))


MEASUREMENT = Measurement(
    "characters",
    "One row is one sample.",
    pl.Schema({"length": pl.Int64(), "vector": VECTOR}),
    characters,
    lambda recipe: recipe.extraction.max_tokens,
)


@pytest.fixture
def context(make_recipe: Callable[..., Recipe], tmp_path: Path) -> MeasurementContext:
    """Over an empty home."""
    recipe = make_recipe()
    model = LanguageModel.of(recipe, tmp_path / "home")
    return MeasurementContext(recipe, Warehouse(home=str(tmp_path / "home")), model, RunOptions(), POOL, lambda _: None)


def put_pool(context: MeasurementContext, texts: Conversations) -> None:
    """Make the pool consist of these questions, by sample id."""
    rows = [
        {"sample_id": name, "messages": [{"role": "user", "content": text}], "source": "s", "source_row": 0}
        for name, text in texts.items()
    ]
    with context.warehouse.tables.transaction() as tables:
        tables.replace(CANDIDATE_POOL, pl.DataFrame(rows, schema=CANDIDATE_POOL.columns))
        tables.put_record(Record("corpora/candidate_pool", "", "1", str(sorted(texts))))


def read(context: MeasurementContext, reading: Measurement = MEASUREMENT, **resting: str) -> Update:
    """Bring the reading up to date."""
    return bring_up_to_date(
        reading, context, resting, lambda version: Record("measurements/candidate_characters", "", "1", version)
    )


def lengths(context: MeasurementContext) -> dict[str, int]:
    """What the table says, by sample id."""
    rows, _ = rows_of(context.warehouse, MEASUREMENT, POOL)
    return dict(rows.select("sample_id", "length").iter_rows())


def test_only_what_the_table_lacks_is_read(context: MeasurementContext) -> None:
    """One new row in a pool of a million costs one row."""
    put_pool(context, {"a": "1", "b": "22", "c": "333"})
    first = read(context)
    assert (first.n_read, first.n_removed, first.cost.n_forward) == (3, 0, 3)
    put_pool(context, {"b": "22", "c": "333", "d": "4444"})
    second = read(context)
    assert (second.n_read, second.n_removed, second.cost.n_forward) == (1, 1, 1)
    assert lengths(context) == {"b": 2, "c": 3, "d": 4}
    third = read(context)
    assert (third.n_read, third.cost.n_forward) == (0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        lambda context: (replace(context, recipe=_with_tokens(context.recipe, 32)), MEASUREMENT, {}),
        lambda context: (context, replace(MEASUREMENT, version="2"), {}),
        lambda context: (context, MEASUREMENT, {"model:m": "other weights"}),
    ],
    ids=["setting", "algorithm", "what it rests on"],
)
def test_everything_is_read_again_when_it_would_come_out_otherwise(
    context: MeasurementContext, changed: Callable[[MeasurementContext], Any]
) -> None:
    """Rows of two models in one table would be compared with each other."""
    put_pool(context, {"a": "1", "b": "22", "c": "333"})
    read(context)
    other, reading, resting = changed(context)
    assert read(other, reading, **resting).cost.n_forward == 3
    assert lengths(context) == {"a": 1, "b": 2, "c": 3}


def _with_tokens(recipe: Recipe, n: int) -> Recipe:
    return recipe.model_copy(update={"extraction": recipe.extraction.model_copy(update={"max_tokens": n})})


def test_a_run_that_is_cut_off_loses_the_part_in_flight(context: MeasurementContext) -> None:
    """An hour of a paid judge must survive the power cut; the old table must serve until the new one is whole."""
    put_pool(context, {"a": "1"})
    read(context)
    put_pool(context, {name: name * 3 for name in "abcdefg"})

    def cut_off(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
        for number, part in enumerate(characters(context, samples)):
            if number == 2:
                raise KeyboardInterrupt
            yield part

    with pytest.raises(KeyboardInterrupt):
        read(context, replace(MEASUREMENT, read=cut_off))
    assert lengths(context) == {"a": 1}
    rest = read(context)
    assert rest.cost.n_forward == 2
    assert lengths(context) == {"a": 1, **{name: 3 for name in "bcdefg"}}


def test_a_sample_that_cannot_be_read_has_a_reason_and_is_tried_again(context: MeasurementContext) -> None:
    """A judge that was busy may answer tomorrow; a number in its place would be believed."""
    put_pool(context, {"a": "1", "b": ""})
    assert read(context).rejected == (("b", "it is empty"),)
    assert rejected_of(context.warehouse, MEASUREMENT, POOL) == {"b": "it is empty"}
    mended = replace(MEASUREMENT, read=lambda _, samples: iter([_row(samples)]))
    assert read(context, mended).n_read == 1
    assert rejected_of(context.warehouse, MEASUREMENT, POOL) == {}


def _row(samples: pl.DataFrame) -> Chunk:
    assert samples["sample_id"].to_list() == ["b"]
    return Chunk(pl.DataFrame({"sample_id": ["b"], "length": [0], "vector": [[0.0, 0.0]]}))


def test_a_reading_of_nothing_is_an_error(context: MeasurementContext) -> None:
    """An empty table would give an empty subset, a day later."""
    put_pool(context, {"a": "", "b": ""})
    with pytest.raises(DataError, match=r"characters of candidates: not one example .*; the first: it is empty"):
        read(context)


def test_the_version_is_one_of_the_content(context: MeasurementContext) -> None:
    """A judge that answers otherwise is another input; the same answers in another order are not."""
    put_pool(context, {"a": "1", "b": "22"})
    read(context)
    version = context.warehouse.records()["measurements/candidate_characters"].data_version
    read(context, replace(MEASUREMENT, version="2"))
    assert context.warehouse.records()["measurements/candidate_characters"].data_version == version
    put_pool(context, {"a": "1", "b": "222"})
    read(context, replace(MEASUREMENT, version="3"))
    assert context.warehouse.records()["measurements/candidate_characters"].data_version != version


def test_the_audit_and_the_checks_find_what_was_changed_behind_them(context: MeasurementContext) -> None:
    """A number that somebody edited, NaN, a row that is gone."""
    output, _ = outputs_of(MEASUREMENT)
    put_pool(context, {"a": "1", "b": "22", "c": ""})
    read(context)
    record = context.warehouse.records()["measurements/candidate_characters"]
    assert output.faults(context.warehouse, record) == []
    assert all(verdict.passed for verdict in check_measurement(context.warehouse, MEASUREMENT, POOL).values())
    with store_of(context.warehouse, "characters", POOL).transaction() as transaction:
        transaction.connection.execute(
            "UPDATE measurements.candidate_characters SET vector = [1, 'nan'::FLOAT] WHERE sample_id = 'a'"
        )
    assert output.faults(context.warehouse, record)
    assert not check_measurement(context.warehouse, MEASUREMENT, POOL)["numbers_are_finite"].passed
    with store_of(context.warehouse, "characters", POOL).transaction() as transaction:
        transaction.connection.execute("DELETE FROM measurements.candidate_characters WHERE sample_id = 'a'")
    verdict = check_measurement(context.warehouse, MEASUREMENT, POOL)["samples_are_accounted_for"]
    assert not verdict.passed
    assert "such as a" in verdict.description


def test_a_reading_that_says_nothing_of_a_sample_is_a_mistake_of_ours(context: MeasurementContext) -> None:
    """Left out in silence, a candidate could never be chosen, and nobody would know."""
    put_pool(context, {"a": "1", "b": "22"})
    with pytest.raises(AssertionError, match="says nothing of 2 samples"):
        read(context, replace(MEASUREMENT, read=lambda *_: iter(())))


def test_what_was_not_made_is_an_error(context: MeasurementContext) -> None:
    """With the words of all other tables."""
    with pytest.raises(WarehouseError, match="nothing in it has been made yet"):
        rows_of(context.warehouse, MEASUREMENT, POOL)


def test_a_trained_folder_that_somebody_changed_is_found(context: MeasurementContext) -> None:
    """Weights that were swapped would judge every candidate otherwise, under the old version."""
    output = PRE_EXPERIENCED_MODEL
    folder = output.folder(context.warehouse)
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"trained")
    record = Record(output.key, "", "1", folder_version(folder))
    with context.warehouse.tables.transaction() as tables:
        tables.put_record(record)
    assert check_trained(context.warehouse, output)["files_are_as_written"].passed
    assert output.faults(context.warehouse, record) == []
    (folder / "weights").write_bytes(b"swapped")
    assert not check_trained(context.warehouse, output)["files_are_as_written"].passed
    assert output.faults(context.warehouse, record) == [f"the files in {folder} are not those that were written"]
    (folder / "weights").unlink()
    folder.rmdir()
    assert not check_trained(context.warehouse, output)["files_are_as_written"].passed
    assert output.faults(context.warehouse, record) == [f"{folder} is gone"]
