"""Tables in blocks: whatever order they are stored in, a row comes with the place of its sample."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.resources import row_blocks
from nait_assets.resources.row_blocks import blocks, stream
from nait_assets.resources.warehouse import Store
from nait_assets.tables import VECTOR, Table

N = 5000
WIDTH = 3
TABLE = Table("toys.vectors", pl.Schema({"sample_id": pl.String, "vector": VECTOR, "new": pl.Float64}), (), ())
GONE = {"s0007", "s2100", "s4999"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A table that was written in two parts, in no order, and of which rows were deleted."""
    order = np.random.default_rng(0).permutation(N)
    store = Store(tmp_path_factory.mktemp("rows") / "rows.duckdb")
    for part in np.array_split(order, 2):
        with store.transaction() as transaction:
            frame = pl.DataFrame({"sample_id": [f"s{number:04}" for number in part]})
            numbers = np.repeat(part.astype(np.float32)[:, None], WIDTH, axis=1)
            written = Table(TABLE.name, pl.Schema({"sample_id": pl.String, "vector": VECTOR}), (), ())
            transaction.append(written, frame.with_columns(vector=pl.Series(numbers.tolist(), dtype=VECTOR)))
    with store.transaction() as transaction:
        transaction.connection.execute(f"DELETE FROM {TABLE.name} WHERE sample_id IN {tuple(GONE)}")
    return store


@pytest.mark.parametrize("rows_of_a_block", [1, 4096])
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_each_row_stands_at_the_place_of_its_sample(
    store: Store, step: int, rows_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all samples, of some, and of few; samples that the table lacks have no row, and no other's."""
    monkeypatch.setattr(row_blocks, "MOST_NUMBERS", rows_of_a_block * WIDTH)
    wanted = [f"s{number:04}" for number in range(0, N, step)]
    found: dict[int, list[float]] = {}
    with store.snapshot() as snapshot:
        for places, rows in blocks(snapshot, TABLE, ["vector", "sample_id"], wanted):
            assert len(rows) <= max(row_blocks.FEWEST_ROWS, rows_of_a_block)
            assert [wanted[place] for place in places] == rows["sample_id"].to_list()
            found |= dict(zip(places.tolist(), rows["vector"].to_list(), strict=True))
    assert sorted(found) == [place for place, name in enumerate(wanted) if name not in GONE]
    assert all(vector == [place * step] * WIDTH for place, vector in found.items())


def test_rows_of_one_sample_have_one_place(tmp_path: Path) -> None:
    """Activations have a row for each layer."""
    store = Store(tmp_path / "layers.duckdb")
    with store.transaction() as transaction:
        transaction.connection.execute(
            "CREATE TABLE layers AS SELECT chr((97 + i % 3)::INTEGER) AS sample_id, i // 3 AS layer FROM range(9) r(i)"
        )
    with store.snapshot() as snapshot:
        ((places, batch),) = stream(snapshot.connection, "layers", "layer", ["c", "a"], 100)
    assert places.tolist() == [1, 0] * 3
    assert batch["layer"].to_pylist() == [0, 0, 1, 1, 2, 2]


def test_column_of_a_later_version_is_null(store: Store) -> None:
    """A home of an earlier version stays readable."""
    with store.snapshot() as snapshot:
        (_, rows), *_ = blocks(snapshot, TABLE, ["new"], ["s0001"])
    assert rows.to_dict(as_series=False) == {"new": [None]}
    assert rows.schema == {"new": pl.Float64}
