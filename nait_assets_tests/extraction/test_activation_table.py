"""The activation table: it holds exactly the wanted samples, and gives every row back by its key."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import (
    Contents,
    altered_rows,
    content_of,
    contents,
    fold,
    incomplete_samples,
    layers_of,
    matrix,
    of_sample,
    samples,
    scan,
)
from nait_assets.resources.warehouse import Store, WarehouseError
from nait_assets.tables import REJECTED_SAMPLES, rejection_rows

LAYERS = (0, 2)
WIDTH = 3
SCHEMA = activation_table.shard_schema(WIDTH, keep_first_and_last=False)
WITH_ENDS = activation_table.shard_schema(WIDTH, keep_first_and_last=True)


def vector(sample_id: str, layer: int, offset: float = 0.0) -> list[float]:
    """A vector that no other sample or layer has."""
    return [100.0 * ord(sample_id) + 10.0 * layer + place + offset for place in range(WIDTH)]


def shard(sample_ids: str, schema: pa.Schema = SCHEMA, offset: float = 0.0) -> pa.Table:
    """Layer by layer, as the spool has them."""
    rows = [(name, layer) for layer in LAYERS for name in sample_ids]
    columns = {
        "sample_id": [name for name, _ in rows],
        "layer": [layer for _, layer in rows],
        "n_tokens": [ord(name) - 90 for name, _ in rows],
        "cut": ["answer" if name == "b" else "" for name, _ in rows],
        "n_answers": [1] * len(rows),
        "n_answers_whole": [int(name != "b") for name, _ in rows],
        "activation": [vector(*row, offset) for row in rows],
        "first_token_activation": [vector(*row, 0.25) for row in rows],
        "last_token_activation": [vector(*row, 0.5) for row in rows],
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "candidates.duckdb")


def write(
    store: Store, wanted: str, shards: Iterable[pa.Table], extraction: str = "one", schema: pa.Schema = SCHEMA
) -> None:
    with store.transaction() as transaction:
        fold(transaction, extraction, list(wanted), shards, schema)


def rows(store: Store) -> dict[tuple[str, int], list[float]]:
    """Every row by its key, as `scan` gives them."""
    found = {}
    with store.snapshot() as snapshot:
        names = samples(snapshot)["sample_id"].to_list()
        for layer, places, vectors in scan(snapshot):
            for place, values in zip(places, vectors, strict=True):
                assert (names[place], layer) not in found
                found[names[place], layer] = values.tolist()
    return found


def expected(sample_ids: str) -> dict[tuple[str, int], list[float]]:
    return {(name, layer): vector(name, layer) for name in sample_ids for layer in LAYERS}


def test_table_holds_what_the_shards_hold(store: Store) -> None:
    """One row is one sample and layer; samples lie in the order of their ids whatever the order they were read in."""
    write(store, "abc", [shard("ca"), shard("b")])

    assert rows(store) == expected("abc")
    with store.snapshot() as snapshot:
        assert samples(snapshot).rows() == [("a", 7, "", 1, 1), ("b", 8, "answer", 1, 0), ("c", 9, "", 1, 1)]
        assert layers_of(snapshot) == [0, 2]
        assert contents(snapshot) == Contents("one", frozenset("abc"))


def test_file_without_tables_holds_nothing(store: Store) -> None:
    """A run that failed at its first row leaves a file without tables."""
    with store.transaction():
        pass

    with store.snapshot() as snapshot:
        assert contents(snapshot) == Contents(None, frozenset())


def test_added_samples_are_inserted_and_vanished_ones_deleted(store: Store) -> None:
    """Changes cost what they change: the rows that stay are not in any shard."""
    write(store, "abc", [shard("abc")])

    write(store, "bcd", [shard("d")])

    assert rows(store) == expected("bcd")
    with store.snapshot() as snapshot:
        assert samples(snapshot)["sample_id"].to_list() == ["b", "c", "d"]


def test_folding_twice_changes_nothing(store: Store) -> None:
    """A shard that was left behind by a run that ended after its commit is folded in again."""
    write(store, "ab", [shard("ab")])

    write(store, "ab", [shard("ab", offset=0.125)])

    assert rows(store) == expected("ab")


def test_sample_in_two_shards_is_an_error(store: Store) -> None:
    """It would have two rows a layer, and twice the weight in every statistic."""
    write(store, "a", [shard("a")])

    with pytest.raises(WarehouseError, match="the shards hold 2 of the 1 samples that the table lacks"):
        write(store, "ab", [shard("b"), shard("b")])

    assert rows(store) == expected("a")


def test_wanted_sample_that_is_nowhere_is_an_error(store: Store) -> None:
    """The version would say that it is there; every later room would find out in its own way, or not at all."""
    write(store, "ab", [shard("ab")])

    with pytest.raises(WarehouseError, match=r"candidates\.duckdb: the shards hold 1 of the 2 samples .* Run again"):
        write(store, "abcd", [shard("c")])

    assert rows(store) == expected("ab")


def test_shards_are_not_looked_at_where_nothing_is_missing(store: Store) -> None:
    """Another run may have folded them and removed them."""

    def gone() -> Iterator[pa.Table]:
        raise FileNotFoundError("shard.arrow")
        yield

    write(store, "ab", [shard("ab")])

    write(store, "b", gone())

    assert rows(store) == expected("b")


def test_shard_without_rows_adds_none(store: Store) -> None:
    """Every one of its samples was rejected."""
    write(store, "a", [SCHEMA.empty_table(), shard("a"), SCHEMA.empty_table()])

    assert rows(store) == expected("a")


def test_shard_that_cannot_be_read_leaves_the_table_as_it_was(store: Store) -> None:
    """It is looked at in the middle of the insert: the rows of those before it are in no table yet."""

    def breaking() -> Iterator[pa.Table]:
        yield shard("b")
        raise OSError("the disk is gone")

    write(store, "a", [shard("a")])

    with pytest.raises(Exception, match="the disk is gone"):
        write(store, "abc", breaking())

    assert rows(store) == expected("a")


def test_shards_are_let_go_one_after_the_other(store: Store) -> None:
    """They are a hundred times the memory of a machine; each is a megabyte here."""
    width, names = 1024, [f"{number:04}" for number in range(4096)]
    schema = activation_table.shard_schema(width, keep_first_and_last=False)
    held: list[int] = []

    def shards() -> Iterator[pa.Table]:
        begun = pa.total_allocated_bytes()
        for place in range(0, len(names), 256):
            held.append(pa.total_allocated_bytes() - begun)
            flat = pa.Array.from_buffers(pa.float32(), 256 * width, [None, pa.allocate_buffer(256 * width * 4)])
            columns = [
                pa.array(names[place : place + 256]),
                pa.array([0] * 256, pa.int16()),
                pa.array([5] * 256, pa.int32()),
                pa.array([""] * 256),
                pa.array([1] * 256, pa.int32()),
                pa.array([1] * 256, pa.int32()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            yield pa.table(columns, schema=schema)

    with store.transaction() as transaction:
        fold(transaction, "one", names, shards(), schema)

    assert len(held) == 16
    assert max(held) < 4 * 2**20


def test_rows_of_unwanted_samples_are_not_taken_from_shards(store: Store) -> None:
    """A sample can leave the corpus between the run that read it and the run that folds it in."""
    write(store, "a", [shard("ab")])

    assert rows(store) == expected("a")


def test_another_extraction_replaces_everything(store: Store) -> None:
    """Activations of two models are never in one table, even if the widths agree."""
    write(store, "ab", [shard("ab", offset=0.125)], extraction="one")

    write(store, "a", [shard("a")], extraction="two")

    assert rows(store) == expected("a")
    with store.snapshot() as snapshot:
        assert contents(snapshot) == Contents("two", frozenset("a"))


def test_failed_write_leaves_the_table_as_it_was(store: Store) -> None:
    """A crash while folding must not leave half of a table that looks whole."""
    write(store, "ab", [shard("ab")])

    with pytest.raises(AttributeError), store.transaction() as transaction:  # noqa: PT012  the transaction is what fails
        fold(transaction, "two", ["c"], [shard("c")], SCHEMA)
        transaction.put_record(None)  # type: ignore[arg-type]

    assert rows(store) == expected("ab")


def test_matrix_is_one_layer_in_the_order_of_the_samples(store: Store) -> None:
    """Row i of the matrix is row i of `samples`, though insertion was in another order; each column is itself."""
    write(store, "abc", [shard("cb", WITH_ENDS), shard("a", WITH_ENDS)], schema=WITH_ENDS)

    with store.snapshot() as snapshot:
        found = {column: matrix(snapshot, 2, column) for column in WITH_ENDS.names if column.endswith("activation")}

    for column, offset in {"activation": 0.0, "first_token_activation": 0.25, "last_token_activation": 0.5}.items():
        np.testing.assert_array_equal(found[column], np.float32([vector(name, 2, offset) for name in "abc"]))


def test_scan_in_small_pieces_gives_every_row_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table does not fit in memory; a piece may end between two layers of a sample."""
    write(store, "abcdefg", [shard("gfe"), shard("dcba")])
    monkeypatch.setattr(activation_table, "SCAN_ROWS", 3)

    assert rows(store) == expected("abcdefg")


def test_scan_reads_the_column_asked_for(store: Store) -> None:
    """The ends are scanned by the same code as the mean."""
    write(store, "a", [shard("a", WITH_ENDS)], schema=WITH_ENDS)

    with store.snapshot() as snapshot:
        found = {layer: vectors[0].tolist() for layer, _, vectors in scan(snapshot, "last_token_activation")}

    assert found == {layer: vector("a", layer, 0.5) for layer in LAYERS}


def test_table_without_samples_is_empty_and_readable(store: Store) -> None:
    """A corpus of which every sample was rejected still has a table, with no rows and the right columns."""
    write(store, "", [])

    assert rows(store) == {}
    with store.snapshot() as snapshot:
        assert samples(snapshot).columns == ["sample_id", "n_tokens", "cut", "n_answers", "n_answers_whole"]
        assert layers_of(snapshot) == []
        assert matrix(snapshot, 0).shape == (0, WIDTH)


def test_one_sample_is_found_by_its_id(store: Store) -> None:
    """`nait explain` asks for one sample, also for one that is not there."""
    write(store, "ab", [shard("ab")])

    with store.snapshot() as snapshot:
        found = of_sample(snapshot, "b")
        assert of_sample(snapshot, "z") == {}

    assert {layer: values.tolist() for layer, values in found.items()} == {
        layer: vector("b", layer) for layer in LAYERS
    }
    assert found[0].dtype == np.float32


def test_a_digest_is_of_the_sample_the_layer_and_every_number(store: Store) -> None:
    """Written out: whoever audits with another tool must come to the same."""
    write(store, "a", [shard("a", WITH_ENDS)], schema=WITH_ENDS)
    with store.snapshot() as snapshot:
        rows = snapshot.connection.execute("SELECT layer, digest FROM extraction.activation ORDER BY layer").fetchall()
    for layer, digest in rows:
        numbers = np.array([*vector("a", layer), *vector("a", layer, 0.25), *vector("a", layer, 0.5)], "<f4")
        wanted = hashlib.sha256(f"a:{layer}:".encode() + numbers.tobytes()).digest()[:8]
        assert digest == int.from_bytes(wanted, "little")


def test_the_hash_of_the_content_is_the_same_before_and_after_the_commit(store: Store) -> None:
    """It is recorded in the transaction that writes the rows. DuckDB 2.0 once found none there, of so many."""
    names = [f"{number:05}" for number in range(3000)]
    table = pa.table(
        {
            "sample_id": names,
            "layer": [0] * len(names),
            "n_tokens": [1] * len(names),
            "cut": [""] * len(names),
            "n_answers": [1] * len(names),
            "n_answers_whole": [1] * len(names),
            "activation": np.arange(WIDTH * len(names), dtype=np.float32).reshape(-1, WIDTH).tolist(),
        },
        schema=SCHEMA,
    )
    with store.transaction() as transaction:
        fold(transaction, "one", names, [table], SCHEMA)
        transaction.replace(REJECTED_SAMPLES, rejection_rows([("x", "no token")]), corpus="candidates")
        before = content_of(transaction)
        assert len(samples(transaction)) == len(names)
    with store.snapshot() as snapshot:
        assert content_of(snapshot) == before
        assert altered_rows(snapshot) == ([], [])
        assert incomplete_samples(snapshot) == []
