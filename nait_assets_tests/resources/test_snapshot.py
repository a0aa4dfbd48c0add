"""What a snapshot says of a table without having it in memory is what is said of the whole frame."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.lineage import Record
from nait_assets.resources.spooled_rows import PART_ROWS, SpooledRows
from nait_assets.resources.warehouse import Store
from nait_assets.tables import EXAMPLE, INDICES, N_CHARACTERS, VECTOR, Table, content_digest, content_version

KINDS = Table(
    "room.kinds",
    pl.Schema(
        {
            "part": pl.String(),
            "sample_id": pl.String(),
            "number": pl.Int16(),
            "score": pl.Float64(),
            "rank": pl.Int64(),
            "messages": EXAMPLE["messages"],
            "vector": VECTOR,
            "indices": INDICES,
            "ok": pl.Boolean(),
        }
    ),
    ("part",),
    ("sample_id", "number"),
)


def rows(n: int, nulls: bool) -> pl.DataFrame:
    """Rows in no order, of every kind of column that a table has."""
    chance = np.random.default_rng(n)

    def perhaps(value: object) -> object:
        return None if nulls and chance.random() < 0.3 else value

    made = [
        {
            "sample_id": f"{place % 7:03}",
            "number": place,
            "score": perhaps(float(chance.choice([0.1, -0.0, 1e300]))),
            "rank": perhaps(place),
            "messages": perhaps([{"role": "user", "content": f"é'\n{place}"}] * (place % 3)),
            "vector": perhaps([0.25] * (place % 4)),
            "indices": perhaps(list(range(place % 5))),
            "ok": perhaps(place % 2 == 0),
        }
        for place in chance.permutation(n).tolist()
    ]
    return pl.DataFrame(made, schema=KINDS.written_columns)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "warehouse.duckdb")


def stored(store: Store, **parts: pl.DataFrame) -> Store:
    with store.transaction() as transaction:
        for part, frame in parts.items():
            transaction.replace(KINDS, frame, part=part)
            transaction.put_record(Record(KINDS.asset, part, "code", "1"))
    return store


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("n", [0, 1, 41])
def test_a_table_has_the_version_of_its_frame(store: Store, n: int, nulls: bool) -> None:
    """Records state the version of a frame; the audit takes that of the table, and would call a sound home broken."""
    frame = rows(n, nulls)
    with stored(store, one=frame, other=rows(5, True)).snapshot() as snapshot:
        assert snapshot.version(KINDS, part="one") == content_version(frame, KINDS.key)
        assert snapshot.content(KINDS, part="one") == content_digest(frame, KINDS.key)
        assert snapshot.digest(KINDS, part="one") == content_digest(
            snapshot.rows(KINDS, part="one"), tuple(KINDS.columns)
        )


def test_a_version_sees_every_slice_of_a_large_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in the last part of a column counts like one in the first."""
    monkeypatch.setattr("nait_assets.resources.snapshot.SLICE_ROWS", 2048)
    frame = pl.concat([rows(40, True).with_columns(number=pl.col("number") + 50 * at) for at in range(120)])
    changed = frame.with_columns(rank=pl.when(pl.col("number") == frame["number"].max()).then(7).otherwise("rank"))
    with stored(store, one=frame, other=changed).snapshot() as snapshot:
        assert snapshot.version(KINDS, part="one") == content_version(frame, KINDS.key)
        assert snapshot.version(KINDS, part="one") != snapshot.version(KINDS, part="other")


def test_rows_of_some_samples_are_those_of_the_slice(store: Store) -> None:
    """A table of the pool is asked for twenty of a million rows."""
    with stored(store, one=rows(41, False), other=rows(41, False)).snapshot() as snapshot:
        found = snapshot.rows_of(KINDS, ["003", "005", "not there"], part="one")
        assert set(found["part"]) == {"one"}
        assert sorted(found["sample_id"].unique()) == ["003", "005"]
        assert len(found) == len(snapshot.rows(KINDS, part="one").filter(pl.col("sample_id").is_in(["003", "005"])))
        assert snapshot.rows_of(KINDS, []).is_empty()
        assert snapshot.inputs == {}


def test_what_is_reduced_or_spooled_is_noted_as_read(store: Store) -> None:
    """What was made of a part of each row rests on the whole table."""
    frame = rows(41, False)
    with stored(store, one=frame).snapshot() as snapshot:
        lengths = snapshot.reduced(KINDS, {"number": pl.col("number"), "length": N_CHARACTERS}, part="one")
        assert lengths.sort("number").equals(frame.select("number", length=N_CHARACTERS).sort("number"))
        assert snapshot.inputs == {"room/kinds[one]": "1"}
    with stored(store, one=frame).snapshot() as snapshot:
        assert snapshot.spooled(KINDS, part="one").frame().equals(snapshot.rows(KINDS, part="one"))
        assert snapshot.inputs == {"room/kinds[one]": "1"}


@pytest.mark.parametrize("n", [41, 2 * PART_ROWS + 3])
@pytest.mark.parametrize("is_there", [False, True])
def test_spooled_rows_have_their_version_in_the_transaction_that_writes_them(
    store: Store, n: int, is_there: bool
) -> None:
    """The pool comes from disk, and its version from the table; of one just made, DuckDB may find no rows."""
    spooled, frame = SpooledRows(KINDS.written_columns), rows(n, True)
    spooled.append(frame)
    if is_there:
        stored(store, one=rows(5, False))
    with store.transaction() as transaction:
        transaction.replace(KINDS, spooled, part="other")
        assert transaction.version(KINDS, part="other") == content_version(frame, KINDS.key)
