"""The instance as a command opens it: what it writes is what Dagster writes, and others read it meanwhile."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage

from nait_assets.recipe import PROJECT_ROOT
from nait_assets.resources.instance import ComputeLogs, Connections, KeptEventLog, open_instance


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c", "d"]))
def letters(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion(context.partition_key), metadata={"n": 1})


@dg.asset_check(asset=letters, blocking=True)
def holds() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


JOB = dg.Definitions(assets=[letters], asset_checks=[holds]).resolve_implicit_global_asset_job_def()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def kept(folder: Path) -> Iterator[dg.DagsterInstance]:
    instance = open_instance(folder)
    yield instance
    instance.dispose()


def materialize(instance: dg.DagsterInstance, partition: str) -> str:
    result = JOB.execute_in_process(instance=instance, partition_key=partition, tags={"who": "test"})
    assert result.success
    return result.run_id


def story(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str | None, str | None]]:
    """Types and steps of a run's events, in order."""
    return [
        (entry.dagster_event_type.value if entry.dagster_event_type else None, entry.step_key)
        for entry in instance.all_logs(run_id)
    ]


def test_another_process_finds_what_dagsters_own_storage_would_have_written(
    folder: Path, kept: dg.DagsterInstance
) -> None:
    """The web server and the daemon open the same files by Dagster's own classes, while the command still runs."""
    runs = [materialize(kept, partition) for partition in "abcd"]
    with dg.DagsterInstance.get() as stock:
        assert type(stock.event_log_storage) is SqliteEventLogStorage
        own = materialize(stock, "a")
        for run in runs:
            assert story(stock, run) == story(kept, run) == story(stock, own)
            assert stock.get_run_by_id(run).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
            assert (folder / "history" / "runs" / f"{run}.db").exists(), "each run has its own file"
        assert stock.get_materialized_partitions(letters.key) == set("abcd")
        for record in stock.fetch_materializations(letters.key, limit=10).records:
            assert record.asset_materialization is not None
            assert (record.asset_materialization.tags or {})["dagster/data_version"] == record.partition_key
        checks = stock.event_log_storage.get_asset_check_execution_history(next(iter(holds.check_keys)), limit=10)
        assert [check.status.value for check in checks] == ["SUCCEEDED"] * 5


def test_a_run_of_the_daemon_is_seen_by_a_command_that_is_open(kept: dg.DagsterInstance) -> None:
    """A connection that stays open must not see the files as they were."""
    materialize(kept, "a")
    with dg.DagsterInstance.get() as stock:
        run = materialize(stock, "b")
    assert kept.get_materialized_partitions(letters.key) == {"a", "b"}
    assert kept.get_run_by_id(run) is not None
    assert story(kept, run)


def test_the_web_server_hears_of_events_while_they_come(kept: dg.DagsterInstance) -> None:
    """Its page of a run waits for the run's file to change, and a commit alone changes only the log beside it."""
    run = materialize(kept, "a")
    heard = threading.Event()
    with dg.DagsterInstance.get() as stock:
        n_events = len(stock.all_logs(run))
        cursor = stock.event_log_storage.get_records_for_run(run).cursor
        stock.watch_event_logs(run, cursor, lambda entry, _: heard.set() if "one more" in entry.message else None)
        try:
            kept.report_engine_event("one more", dagster_run=kept.get_run_by_id(run))
            assert heard.wait(20)
        finally:
            stock.end_watch_event_logs(run, lambda *_: None)
        assert len(stock.all_logs(run)) == n_events + 1


CHILD = """
import os, signal, sys
from pathlib import Path
from nait_assets.resources.instance import open_instance
from nait_assets_tests.resources.test_instance import materialize
instance = open_instance(Path(sys.argv[1]))
run = materialize(instance, "a")
materialize(instance, "b")
instance.report_engine_event("the last word", dagster_run=instance.get_run_by_id(run))
print(run, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_that_was_committed_is_lost_with_a_killed_process(folder: Path) -> None:
    """SQLite no longer forces each commit to the disk; the operating system has it, and a kill takes nothing away."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=False, cwd=PROJECT_ROOT
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    run = ended.stdout.split()[-1]
    with dg.DagsterInstance.get() as stock:
        assert stock.get_materialized_partitions(letters.key) == {"a", "b"}
        assert "the last word" in stock.all_logs(run)[-1].message


def test_storages_that_the_settings_name_are_left_as_they_are(folder: Path) -> None:
    """A home may keep its events in another database."""
    (folder / "dagster.yaml").write_text(
        "event_log_storage:\n"
        "  module: dagster._core.storage.event_log\n"
        "  class: ConsolidatedSqliteEventLogStorage\n"
        f"  config: {{base_dir: {folder}}}\n"
        "compute_logs:\n"
        "  module: dagster._core.storage.noop_compute_log_manager\n"
        "  class: NoOpComputeLogManager\n"
    )
    with open_instance(folder) as instance:
        assert type(instance.event_log_storage).__name__ == "ConsolidatedSqliteEventLogStorage"
        assert type(instance.compute_log_manager).__name__ == "NoOpComputeLogManager"


def test_where_they_name_none_connections_stay_open(kept: dg.DagsterInstance) -> None:
    """Else the test above would show nothing. A step in another process would open the same."""
    for instance in (kept, dg.DagsterInstance.from_ref(kept.get_ref())):
        assert isinstance(instance.event_log_storage, KeptEventLog)
        assert isinstance(instance.compute_log_manager, ComputeLogs)


def test_only_the_latest_files_stay_open(tmp_path: Path) -> None:
    """A thousand runs are a thousand files."""
    connections = Connections(2)
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(5)]
    for url in urls:
        with connections.transaction(url) as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE found (x)"))
    assert list(connections._engines) == urls[-2:]
    with connections.transaction(urls[0]) as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM found")).scalar() == 0
    connections.close()
    assert not connections._engines


def test_a_transaction_within_one_is_part_of_it(tmp_path: Path) -> None:
    """Two transactions on one connection would commit each other's halves."""
    connections, url = Connections(2), f"sqlite:///{tmp_path}/1.db"
    with connections.transaction(url) as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE found (x)"))
    with contextlib.suppress(KeyError), connections.transaction(url) as outer:
        outer.execute(sqlalchemy.text("INSERT INTO found VALUES (1)"))
        with connections.transaction(url) as inner:
            inner.execute(sqlalchemy.text("INSERT INTO found VALUES (2)"))
        raise KeyError
    with connections.transaction(url) as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM found")).scalar() == 0
    connections.close()


PRINTING = """
import subprocess, sys
from pathlib import Path
from nait_assets.resources.instance import captured
print("before")
with captured(sys.stdout, Path(sys.argv[1])), captured(sys.stderr, Path(sys.argv[2])):
    print("by Python")
    subprocess.run(["sh", "-c", "echo by a child; echo an error >&2"])
    print("the last", end="")
print("\\nafter")
"""


def test_what_a_step_prints_is_in_its_file_and_where_it_would_have_gone(tmp_path: Path) -> None:
    """The web server shows the file; a person at the terminal sees the same as it comes."""
    files = tmp_path / "logs" / "step.out", tmp_path / "logs" / "step.err"
    ended = subprocess.run(
        [sys.executable, "-c", PRINTING, *map(str, files)], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT
    )
    assert [file.read_text() for file in files] == ["by Python\nby a child\nthe last", "an error\n"]
    assert ended.stdout == "before\nby Python\nby a child\nthe last\nafter\n"
    assert ended.stderr == "an error\n"


def test_the_web_server_reads_what_was_printed(kept: dg.DagsterInstance) -> None:
    """By Dagster's own reader, at the place where its own manager would have written."""
    key = ["run", "compute_logs", "step"]
    with kept.compute_log_manager.capture_logs(key):
        pass
    with dg.DagsterInstance.get() as stock:
        assert stock.compute_log_manager.is_capture_complete(key)
        assert stock.compute_log_manager.get_log_data(key).stdout == b""
