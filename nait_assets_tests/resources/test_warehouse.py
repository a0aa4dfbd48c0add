"""The DuckDB store: what a slice is after a write that went well, that failed, or that another process made wait."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from nait_assets.extraction.activation_table import activations_of
from nait_assets.lineage import Record
from nait_assets.recipe import PROJECT_ROOT
from nait_assets.resources import home_of
from nait_assets.resources.warehouse import Store, Warehouse, WarehouseError
from nait_assets.tables import CANDIDATE_POOL, IN_DOMAIN_SET, NAIT_DIRECTIONS, NEURON_STATISTICS, Table
from nait_assets_tests.test_recipe import recipe_in

COLUMNS = {"target": pl.String(), "sample_id": pl.String(), "score": pl.Float64(), "rank": pl.Int64()}
SCORES = Table("scoring.nait_scores", pl.Schema(COLUMNS), ("target",), ("sample_id",))
ASSET = "scoring/nait_scores"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store without a file as yet; its path needs quoting in SQL."""
    return Store(tmp_path / "home" / "it's a warehouse.duckdb")


def scores(*values: float) -> pl.DataFrame:
    rows = [(f"{number:04}", value, number + 1) for number, value in enumerate(values)]
    return pl.DataFrame(rows, schema=["sample_id", "score", "rank"], orient="row")


def write(store: Store, version: str, target: str, *values: float) -> None:
    """Write one target's scores with their version record."""
    with store.transaction() as transaction:
        transaction.replace(SCORES, scores(*values), target=target)
        transaction.put_record(Record(ASSET, target, "code", version, {"x": "y"}))


def read(store: Store, target: str) -> list[float]:
    with store.snapshot() as snapshot:
        return snapshot.read(SCORES, target=target)["score"].to_list()


def versions(store: Store) -> dict[str, str]:
    return {name: record.data_version for name, record in store.records().items()}


def test_write_replaces_its_slice_and_no_other(store: Store) -> None:
    """Recomputing one capability leaves the others' rows, whether it now has fewer rows or more."""
    write(store, "1", "math", 0.1, 0.2, 0.3)
    write(store, "1", "code", 0.4)
    write(store, "2", "math", 0.5)
    assert (read(store, "math"), read(store, "code")) == ([0.5], [0.4])
    assert versions(store) == {f"{ASSET}[math]": "2", f"{ASSET}[code]": "1"}


def test_table_without_slices_is_replaced_as_a_whole(store: Store) -> None:
    """The pool is one slice: a row that left its source leaves the table."""
    messages = [{"role": "user", "content": "q"}]
    for ids in (["a", "b"], ["c"]):
        rows = [
            {"sample_id": name, "messages": messages, "source": "s", "source_row": 1, "topic": None} for name in ids
        ]
        with store.transaction() as transaction:
            transaction.replace(CANDIDATE_POOL, pl.DataFrame(rows, schema=dict(CANDIDATE_POOL.columns)))
            transaction.put_record(Record("corpora/candidate_pool", "", "code", "1"))
    with store.snapshot() as snapshot:
        assert snapshot.read(CANDIDATE_POOL)["sample_id"].to_list() == ["c"]


ONE_ROW: list[tuple[Table, dict[str, Any]]] = [
    (
        IN_DOMAIN_SET,
        {
            "capability": "math",
            "sample_id": "a",
            "messages": [{"role": "user", "content": "naïve\n'quoted'"}],
            "source": "s",
            "source_row": 2**40,
            "topic": None,
        },
    ),
    (
        NAIT_DIRECTIONS,
        {
            "capability": "math",
            "layer": 3,
            "direction": [0.1, -1e-30],
            "explained_variance_ratio": 0.1,
            "n_samples": 4,
        },
    ),
]


@pytest.mark.parametrize(("table", "row"), ONE_ROW, ids=["messages", "vectors"])
@pytest.mark.parametrize("n_rows", [0, 1])
def test_frame_comes_back_with_its_values_and_types(
    store: Store, table: Table, row: dict[str, Any], n_rows: int
) -> None:
    """Content is hashed before it is written and after it is read: a type changed on the way would change it."""
    frame = pl.DataFrame([row][:n_rows], schema=dict(table.columns))
    with store.transaction() as transaction:
        transaction.replace(table, frame, capability="math")
        transaction.put_record(Record(table.name.replace(".", "/"), "math", "code", "1"))
    with store.snapshot() as snapshot:
        back = snapshot.read(table, capability="math")
    assert back.equals(frame)
    assert back.schema == frame.schema


def test_slice_column_is_filled_in(store: Store) -> None:
    """An asset hands over the rows of its partition; the store adds the key."""
    write(store, "1", "math", 0.1)
    with store.snapshot() as snapshot:
        assert snapshot.read(SCORES, target="math")["target"].to_list() == ["math"]


def test_failed_write_leaves_the_old_table_and_its_record(store: Store) -> None:
    """Data and version are one transaction: never new rows under an old version, nor the reverse."""
    write(store, "1", "math", 0.1)

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.replace(SCORES, scores(0.9), target="math")
            transaction.put_record(Record(ASSET, "math", "code", "2"))
            raise RuntimeError("after the write")

    with pytest.raises(RuntimeError, match="after the write"):
        fail()
    assert read(store, "math") == [0.1]
    assert versions(store) == {f"{ASSET}[math]": "1"}


def test_frame_that_lacks_a_column_fails_and_changes_nothing(store: Store) -> None:
    """The rows of the slice are deleted before the new ones arrive."""
    write(store, "1", "math", 0.1)

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.replace(SCORES, scores(0.9), target="math")
            transaction.replace(SCORES, scores(0.9).drop("rank"), target="math")

    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="rank"):
        fail()
    assert read(store, "math") == [0.1]


def test_failed_first_write_leaves_nothing_materialized(store: Store) -> None:
    """A file without tables is a store in which nothing has been written yet."""

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.replace(SCORES, scores(0.9), target="math")
            raise RuntimeError("after the write")

    with pytest.raises(RuntimeError, match="after the write"):
        fail()
    assert store.records() == {}
    with pytest.raises(WarehouseError, match="has not been materialized"):
        read(store, "math")
    write(store, "1", "math", 0.1)
    assert read(store, "math") == [0.1]


WRITE_AND_DIE = """
import os, sys
from dataclasses import replace
from pathlib import Path
import polars as pl
from nait_assets.lineage import Record
from nait_assets.resources.warehouse import Store
from nait_assets.tables import Table
with Store(Path(sys.argv[1])).transaction() as transaction:
    frame = pl.DataFrame({"sample_id": ["a"], "score": [0.9], "rank": [1]})
    columns = {"target": pl.String(), "sample_id": pl.String(), "score": pl.Float64(), "rank": pl.Int64()}
    table = Table("scoring.nait_scores", pl.Schema(columns), ("target",), ("sample_id",))
    transaction.replace(table, frame, target="math")
    transaction.put_record(Record("scoring/nait_scores", "math", "code", "2"))
    os._exit(9)
"""


def test_killed_writer_leaves_the_old_table_and_no_lock(store: Store) -> None:
    """A run that the operating system ends for want of memory cleans nothing up."""
    write(store, "1", "math", 0.1)
    died = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(store.path)], capture_output=True, check=False)
    assert died.returncode == 9, died.stderr
    assert read(store, "math") == [0.1]
    assert versions(store) == {f"{ASSET}[math]": "1"}
    write(store, "3", "math", 0.3)
    assert read(store, "math") == [0.3]


READ_IN_FORKED_PROCESSES = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
from nait_assets.resources.warehouse import Store

store = Store(Path(sys.argv[1]))
with store.snapshot(), store.snapshot():
    pass

def read():
    with store.snapshot() as snapshot:
        assert snapshot.records()

process = multiprocessing.get_context("fork").Process(target=read)
process.start()
process.join()
codes = [process.exitcode, subprocess.run(["true"], preexec_fn=lambda: None).returncode]
child = os.fork()
if child == 0:
    read()
    sys.exit()
read()
print([*codes, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
"""


def test_forked_processes_read_with_engines_of_their_own(store: Store) -> None:
    """Ray forks with a function to call before the program, and the parent's engines crash a child that ends them."""
    write(store, "1", "math", 0.1)
    command = [sys.executable, "-c", READ_IN_FORKED_PROCESSES, str(store.path)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 0]"], done.stderr


def test_store_is_one_file_between_writes(store: Store) -> None:
    """The write-ahead log is folded in, so that a copy of the file is a copy of the data."""
    write(store, "1", "math", 0.1)
    assert list(store.path.parent.iterdir()) == [store.path]


def test_row_groups_are_small(store: Store) -> None:
    """A row group of the usual 122,880 rows of wide vectors would not fit into memory."""
    write(store, "1", "math", *[0.5] * 5000)
    with store.snapshot() as snapshot:
        query = f"SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('{SCORES.name}')"
        assert snapshot.connection.execute(query).fetchone() == (3,)


HOLD = """
import sys, duckdb
connection = duckdb.connect()
connection.execute("ATTACH '{path}' AS store ({option})")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(store: Store, option: str) -> Iterator[subprocess.Popen[str]]:
    """The file attached by a second process, until the block ends or its standard input is closed."""
    code = HOLD.format(path=str(store.path).replace("'", "''"), option=option)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_lock_that_is_never_freed_is_told_with_the_file_and_the_holder(store: Store) -> None:
    """Reader and writer give up after the stated time and say who holds what, and what to do."""
    write(store, "1", "math", 0.1)
    impatient = Store(store.path, lock_timeout_seconds=0.1)
    with held_by_another_process(store, "READ_WRITE") as holder:
        for attempt in (impatient.snapshot, impatient.transaction):
            with pytest.raises(WarehouseError) as error, attempt():
                pass
            message = str(error.value)
            assert message.startswith(f"{store.path} was locked by another process for 0.1 s")
            assert f"PID {holder.pid}" in message
            assert "Wait for that run to end, or close the program" in message
    assert read(store, "math") == [0.1]


def test_writer_waits_for_the_lock_says_so_and_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Concurrent runs are how the system works in parallel: the second waits for the first."""
    write(store, "1", "math", 0.1)
    with held_by_another_process(store, "READ_WRITE") as holder:

        class FreeWhenTheWaitIsLogged(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                assert holder.stdin is not None
                holder.stdin.close()

        log, handler = logging.getLogger("nait_assets.resources.warehouse"), FreeWhenTheWaitIsLogged()
        log.addHandler(handler)
        try:
            write(store, "2", "math", 0.2)
        finally:
            log.removeHandler(handler)
    assert read(store, "math") == [0.2]
    assert caplog.messages == [f"waiting for the lock on {store.path}"]


def test_readers_do_not_exclude_each_other(store: Store) -> None:
    """The UI reads while a run reads: two in this process, and one in another."""
    write(store, "1", "math", 0.1)
    with held_by_another_process(store, "READ_ONLY"), store.snapshot() as first:
        assert read(store, "math") == first.read(SCORES, target="math")["score"].to_list() == [0.1]


def test_reader_cannot_write(store: Store) -> None:
    """A statement at the wrong end fails, where it would otherwise leave data without a version."""
    write(store, "1", "math", 0.1)
    with store.snapshot() as snapshot, pytest.raises(Exception, match="read-only"):
        snapshot.connection.execute(f"DELETE FROM {SCORES.name}")


def test_file_is_free_after_a_block_that_failed(store: Store) -> None:
    """A connection left open would lock out every other process for as long as this one lives."""
    write(store, "1", "math", 0.1)
    for attempt in (store.snapshot, store.transaction):
        with pytest.raises(RuntimeError), attempt():
            raise RuntimeError
        with held_by_another_process(store, "READ_WRITE"):
            pass


def test_file_is_free_after_each_block_though_the_process_keeps_its_engine(store: Store) -> None:
    """DuckDB is started once and not for each block; a file that stayed attached would lock out the UI."""
    write(store, "1", "math", 0.1)
    for attempt in (store.snapshot, store.transaction):
        with attempt() as first:
            pass
        with held_by_another_process(store, "READ_WRITE"):
            pass
        with attempt() as second, pytest.raises(Exception, match="closed"):
            first.connection.execute("SELECT 1")
        assert second.connection is not first.connection


def test_nothing_that_a_block_registers_is_there_in_the_next(store: Store) -> None:
    """The engine is the same; a table of an earlier block would be read in place of the file's."""
    write(store, "1", "math", 0.1)
    with store.snapshot() as first:
        first.connection.register("incoming", pl.DataFrame({"x": [1]}).to_arrow())
        first.connection.execute("CREATE TEMP TABLE staged AS SELECT 1")
    with store.snapshot() as second:
        for name in ("incoming", "staged"):
            with pytest.raises(Exception, match="does not exist"):
                second.connection.execute(f"FROM {name}")


def test_records_are_those_of_the_file_as_it_is_now(store: Store) -> None:
    """Records of a file that stays as it is are read once; one that another process writes is read again."""
    write(store, "1", "math", 0.1)
    old = time.time() - 10
    os.utime(store.path, (old, old))
    assert [record.data_version for record in store.records().values()] == ["1"]
    store.records().clear()
    assert len(store.records()) == 1, "what one caller does to its answer is not in another's"
    write(store, "2", "math", 0.2)
    assert [record.data_version for record in store.records().values()] == ["2"]
    with store.transaction() as transaction:
        before = transaction.records()
        transaction.put_record(replace(next(iter(before.values())), data_version="3"))
        assert [record.data_version for record in transaction.records().values()] == ["3"]


def test_missing_file_is_told_with_what_makes_it(store: Store) -> None:
    """Measurement makes no empty file; a store without one has no records."""
    with pytest.raises(WarehouseError) as error, store.snapshot():
        pass
    assert str(error.value).startswith(f"{store.path} does not exist")
    assert "`nait run`" in str(error.value)
    assert store.records() == {}
    assert not store.path.exists()


def test_missing_slice_is_named_with_what_makes_it(store: Store) -> None:
    """A slice that was never written is an error and not an empty table."""
    write(store, "1", "math", 0.1)
    with store.snapshot() as snapshot, pytest.raises(WarehouseError) as error:
        snapshot.read(SCORES, target="code")
    assert str(error.value).startswith(f"{ASSET}[code] has not been materialized in {store.path}")
    assert "`nait run`" in str(error.value)
    assert snapshot.inputs == {}


def test_file_that_is_no_data_base_is_told_at_once(tmp_path: Path) -> None:
    """Waiting for a lock would not mend it."""
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(b"no data base " * 1000)
    with pytest.raises(WarehouseError, match=r"cannot be opened.*not a valid DuckDB") as error, Store(path).snapshot():
        pass
    assert str(path) in str(error.value)


def test_inputs_are_the_versions_of_what_was_read(store: Store) -> None:
    """An output's record says what it was really made from: read, not declared."""
    write(store, "v1", "math", 0.1)
    write(store, "v2", "code", 0.2)
    with store.transaction() as transaction:
        transaction.replace(NEURON_STATISTICS, pl.DataFrame(schema=dict(NEURON_STATISTICS.columns)))
        transaction.put_record(Record("features/neuron_statistics", "", "code", "v3"))
        transaction.put_record(Record("extraction/candidate_activations", "", "code", "v4"))
    with store.snapshot() as snapshot:
        assert snapshot.inputs == {}
        snapshot.read(SCORES, target="math")
        snapshot.read(NEURON_STATISTICS)
        assert snapshot.note("extraction/candidate_activations").data_version == "v4"
        assert snapshot.inputs == {
            f"{ASSET}[math]": "v1",
            "features/neuron_statistics": "v3",
            "extraction/candidate_activations": "v4",
        }


def test_record_comes_back_as_it_was_put(store: Store) -> None:
    """Inputs of any name, and one record for each partition: the newest."""
    first = Record("a/b", "math", "1:abc", "old", {"source:0:${X}/it's.jsonl": "1"})
    second = Record("a/b", "math", "1:abc", "new", {"source:0:${X}/it's.jsonl": "2", "model": "m@1"})
    with store.transaction() as transaction:
        for record in (first, second, Record("a/b", "", "1", "whole")):
            transaction.put_record(record)
    assert store.records() == {"a/b[math]": second, "a/b": Record("a/b", "", "1", "whole")}


def test_transaction_sees_what_it_has_written(store: Store) -> None:
    """The view over all scores is made in the transaction that writes one of their tables."""
    with store.transaction() as transaction:
        assert not transaction.has_table(SCORES.name)
        transaction.replace(SCORES, scores(0.1), target="math")
        transaction.connection.execute(f"CREATE VIEW scoring.scores AS FROM {SCORES.name}")
        assert transaction.has_table(SCORES.name)
        assert transaction.has_table("scoring.scores")
        assert not transaction.has_table("scoring.nait")


def test_records_of_a_home_are_those_of_all_its_files(tmp_path: Path) -> None:
    """Planning asks once what the home holds: small tables, candidates, and every in-domain file."""
    warehouse = Warehouse(home=str(tmp_path))
    assert warehouse.records() == {}
    stores = [warehouse.tables, activations_of(warehouse, "candidates"), activations_of(warehouse, "math")]
    for number, store in enumerate(stores):
        with store.transaction() as transaction:
            transaction.put_record(Record(f"asset_{number}", "", "code", "1"))
    assert sorted(warehouse.records()) == ["asset_0", "asset_1", "asset_2"]
    assert [store.path.relative_to(tmp_path).as_posix() for store in stores] == [
        "warehouse.duckdb",
        "activations/candidates.duckdb",
        "activations/in_domain/math.duckdb",
    ]


def test_home_is_the_environments_or_the_recipes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes share no home unless they are told to: each keeps the activations of its own pool only."""
    recipe = recipe_in(tmp_path, name="mine")
    assert home_of(recipe) == PROJECT_ROOT / "data" / "home" / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAIT_HOME", "here")
    assert home_of(recipe) == tmp_path / "here"


def test_a_column_that_an_earlier_version_did_not_write_is_null_and_is_added(tmp_path: Path) -> None:
    """A home outlives the version that made it: what it holds can be read, and written on."""
    before = Table("room.grows", pl.Schema({"name": pl.String()}), (), ("name",))
    after = Table("room.grows", pl.Schema({"name": pl.String(), "parts": pl.List(pl.String())}), (), ("name",))
    store = Store(tmp_path / "warehouse.duckdb")
    with store.transaction() as transaction:
        transaction.replace(before, pl.DataFrame({"name": ["a"]}))
    with store.snapshot() as snapshot:
        assert snapshot.rows(after).rows() == [("a", None)]
    with store.transaction() as transaction:
        transaction.append(after, pl.DataFrame({"name": ["b"], "parts": [["c"]]}))
    with store.snapshot() as snapshot:
        assert snapshot.rows(after).sort("name").rows() == [("a", None), ("b", ["c"])]


@pytest.mark.parametrize("reads", ["read_text('{}')", "glob('{}*')", "read_csv('{}')", "read_blob('{}')"])
def test_a_view_in_the_place_of_a_table_reads_nothing(reads: str, tmp_path: Path) -> None:
    """A home may come from a stranger: whoever looks at it must not read his own files into it."""
    (tmp_path / "secret.txt").write_text("secret\n")
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as theirs:
        for name in ("corpora.candidate_pool", "lineage.versions"):
            theirs.execute(f"CREATE SCHEMA {name.split('.')[0]}")
            theirs.execute(f"CREATE VIEW {name} AS FROM {reads.format(tmp_path / 'secret.txt')}")
    with pytest.raises(WarehouseError, match="a view that reads other files"):
        Store(path).records()
    with pytest.raises(WarehouseError, match="a view that reads other files"), Store(path).snapshot() as snapshot:
        snapshot.rows(CANDIDATE_POOL)


def test_a_query_sees_no_variable_of_python(store: Store) -> None:
    """DuckDB looks names up among the caller's variables."""
    write(store, "v1", "math", 1.0)
    secret = pl.DataFrame({"name": ["secret"]})
    with pytest.raises(duckdb.CatalogException), store.snapshot() as snapshot:
        snapshot.connection.execute("FROM secret").fetchall()
    assert len(secret) == 1


def test_an_engine_reaches_no_other_file_and_loads_nothing(store: Store, tmp_path: Path) -> None:
    """Nor can what was switched off be switched on again."""
    write(store, "v1", "math", 1.0)
    with store.snapshot() as snapshot:
        for query in (
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'other.duckdb'}'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET allowed_paths = ['/']",
        ):
            with pytest.raises(duckdb.Error):
                snapshot.connection.execute(query)
    assert not (tmp_path / "out.csv").exists()


def test_large_sorts_may_still_use_the_disk(store: Store) -> None:
    """What DuckDB writes beside its file is allowed."""
    with store.transaction() as transaction:
        transaction.connection.execute("SET memory_limit = '60MB'")
        query = "SELECT count(*) FROM (SELECT DISTINCT range::VARCHAR || '-' || hash(range) FROM range(2_000_000))"
        assert transaction.connection.execute(query).fetchone() == (2_000_000,)
        transaction.connection.execute("RESET memory_limit")
