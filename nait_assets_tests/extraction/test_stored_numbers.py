"""Activations as float16: half the room, float32 for every reader, and nothing else of the pipeline knows of it."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from nait_assets.extraction import activation_table
from nait_assets.extraction.spool import Spool
from nait_assets.extraction.stored_numbers import halved, number_in_sql, scale_of, whole
from nait_assets.recipe import Extraction
from nait_assets.resources.warehouse import Store
from nait_assets.scoring.faces import faces
from nait_assets_tests.extraction.test_extractor import CORPUS, Bench, bench
from nait_assets_tests.extraction.test_extractor import SETTINGS as EXACT

__all__ = ["bench"]

HALVED = EXACT.model_copy(update={"store": "float16"})
PRECISION = 2.0**-11
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(numpy_strategies.arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(1, 5)), elements=NUMBERS))
def test_any_row_keeps_eleven_bits_of_its_numbers(values: np.ndarray) -> None:
    """Tiny and huge rows alike, down to a small part of a row's largest; and stored again they stay as they are."""
    bits, scales = halved(values)
    found = whole(bits, scales)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    kept = np.abs(values) >= np.maximum(largest * 2.0**-28, 2.0**-110)
    assert (np.abs(found - values)[kept] <= 1.001 * PRECISION * np.abs(values)[kept]).all()
    assert (np.abs(found - values) <= np.maximum(largest * 2.0**-38, 2.0**-110)).all(where=~kept)
    again, same = halved(found)
    np.testing.assert_array_equal(whole(again, same), found)


def test_sql_reads_the_same_numbers() -> None:
    """A query over all rows of a neuron sees what the readers of vectors see: every one of the 65,536 patterns."""
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    table = pa.table({"a": pa.FixedSizeListArray.from_arrays(pa.array(bits), 1), "a_scale": np.full(len(bits), 0.125)})
    table = table.set_column(1, "a_scale", table["a_scale"].cast(pa.float32()))
    with duckdb.connect() as connection:
        connection.register("rows", table)
        found = connection.sql(f"SELECT {number_in_sql('a', '0', True)} AS number FROM rows").to_arrow_table()["number"]
    assert found.type == pa.float32()
    np.testing.assert_array_equal(found.to_numpy(), whole(bits[:, None], np.full(len(bits), 0.125, np.float32))[:, 0])


def everything(store: Store, column: str) -> dict[str, Any]:
    """A column as each reader has it, by name of the reader; `(n_samples, width)` by layer."""
    with store.snapshot() as snapshot:
        names = activation_table.samples(snapshot)["sample_id"].to_list()
        layers = activation_table.layers_of(snapshot)
        scanned = {layer: np.zeros_like(activation_table.matrix(snapshot, layer, column)) for layer in layers}
        for layer, places, vectors in activation_table.scan(snapshot, column):
            assert vectors.dtype == np.float32
            scanned[layer][places] = vectors
        frame = activation_table.rows(snapshot, column)
        assert frame["sample_id"].to_list() == [name for name in names for _ in layers]
        in_rows = np.array(frame["activation"].to_list(), np.float32).reshape(len(names), len(layers), -1)
        return {
            "scan": scanned,
            "matrix": {layer: activation_table.matrix(snapshot, layer, column) for layer in layers},
            "rows": {layer: in_rows[:, place] for place, layer in enumerate(layers)},
        }


@pytest.fixture
def exact(bench: Bench, tmp_path: Path) -> Store:
    """The same corpus in float32."""
    store, bench.store = bench.store, Store(tmp_path / "exact.duckdb")
    bench.extract(settings=EXACT, keep_first_and_last=True)
    found, bench.store = bench.store, store
    return found


@pytest.mark.parametrize("column", ["activation", "first_token_activation", "last_token_activation"])
def test_every_reader_gets_float32(bench: Bench, exact: Store, column: str) -> None:
    """All of them the same numbers, within the precision of those that the model computed."""
    bench.extract(settings=HALVED, keep_first_and_last=True)
    found, expected = everything(bench.store, column), everything(exact, column)["matrix"]
    for of_layer in found.values():
        assert of_layer.keys() == expected.keys()
        for layer, values in of_layer.items():
            np.testing.assert_allclose(values, expected[layer], rtol=PRECISION)
            np.testing.assert_array_equal(values, found["scan"][layer])
    name = CORPUS["sample_id"].sort()[3]
    with bench.store.snapshot() as snapshot:
        one = activation_table.of_sample(snapshot, name)
        first = faces(snapshot, {(1, 4): False}, "none", n=1)[1, 4][0].sample_id
    if column == "activation":
        for layer, vector in one.items():
            np.testing.assert_array_equal(vector, found["matrix"][layer][3])
        assert CORPUS["sample_id"].sort().to_list().index(first) == found["matrix"][1][:, 4].argmax()


def test_the_disk_is_halved(bench: Bench, exact: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards too; a scale for each row is all that is added."""
    folded: list[pa.Table] = []
    table = Spool.table
    monkeypatch.setattr(Spool, "table", lambda self, manifest: folded.append(table(self, manifest)) or folded[-1])
    outcome = bench.extract(settings=HALVED)
    schema = folded[0].schema
    assert schema.field("activation").type == pa.list_(pa.uint16(), outcome.width)
    assert schema.field(scale_of("activation")).type == pa.float32()
    with bench.store.snapshot() as halves, exact.snapshot() as whole_:
        kinds = [
            str(one.connection.sql(f"SELECT activation FROM {activation_table.ACTIVATION}").types[0])
            for one in (halves, whole_)
        ]
    assert kinds == [f"USMALLINT[{outcome.width}]", f"FLOAT[{outcome.width}]"]


def test_what_is_stored_is_read_once_and_its_version_is_that_of_its_numbers(bench: Bench) -> None:
    """A second run reads nothing; another way to store reads everything, whose numbers differ."""
    first = bench.extract(settings=HALVED)
    assert (bench.rows_read, bench.extract(settings=HALVED).n_extracted) == (len(CORPUS), 0)
    other = bench.extract(settings=EXACT)
    assert other.n_extracted == len(CORPUS)
    assert len({first.extraction_id, other.extraction_id}) == len({first.data_version, other.data_version}) == 2


def test_homes_of_float32_stay_as_they_are() -> None:
    """The default is no part of what identifies an extraction: nothing that was read before is read again."""
    assert "store" not in Extraction().model_dump()
    assert "store" in HALVED.model_dump()


@pytest.mark.parametrize(
    "change",
    [
        "activation_scale = 2 * activation_scale",
        "activation = list_transform(activation, lambda x: xor(x, 1)::USMALLINT)",
    ],
)
def test_a_number_or_a_scale_that_changed_is_found(bench: Bench, change: str) -> None:
    """The digest of a row covers both; of a row that is not finite the audit says so."""
    bench.extract(settings=HALVED)
    name = CORPUS["sample_id"].sort()[2]
    with bench.store.transaction() as transaction:
        assert activation_table.altered_rows(transaction) == ([], [])
        query = f"UPDATE {activation_table.ACTIVATION} SET {change} WHERE layer = 1 AND sample_id = '{name}'"
        transaction.connection.execute(query)
    with bench.store.snapshot() as snapshot:
        assert activation_table.altered_rows(snapshot) == ([(name, 1)], [])


def test_numbers_that_are_not_finite_are_found(bench: Bench) -> None:
    """31,744 are the bits of infinity."""
    bench.extract(settings=HALVED)
    name = CORPUS["sample_id"].sort()[2]
    with bench.store.transaction() as transaction:
        infinite = "list_transform(activation, lambda x: 31744::USMALLINT)"
        query = f"UPDATE {activation_table.ACTIVATION} SET activation = {infinite} WHERE sample_id = '{name}'"
        transaction.connection.execute(query)
    with bench.store.snapshot() as snapshot:
        altered, broken = activation_table.altered_rows(snapshot)
    assert set(altered) == set(broken) == {(name, layer) for layer in (0, 1)}


def test_a_smaller_set_is_lent_the_same_bits(bench: Bench, tmp_path: Path) -> None:
    """Rows go from file to file as they are stored."""
    bench.extract(settings=HALVED, keep_first_and_last=True)
    names = CORPUS["sample_id"].sort().to_list()[2:5]
    schema = activation_table.shard_schema(bench.model.skeleton().config.intermediate_size, True, store="float16")
    other = Store(tmp_path / "smaller.duckdb")
    with bench.store.snapshot() as lender, other.transaction() as transaction:
        lent = list(activation_table.lent(lender, names, schema))
        activation_table.fold(transaction, "one", names, lent, schema)
    whole_, few = everything(bench.store, "activation")["matrix"], everything(other, "activation")["matrix"]
    for layer, matrix in few.items():
        np.testing.assert_array_equal(matrix, whole_[layer][2:5])
    with other.snapshot() as snapshot:
        assert activation_table.altered_rows(snapshot) == ([], [])
