"""The Ray engine, on a Ray that is started here with two workers: the local engine's table, whatever happens to one."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.errors import NumericalError, SetupError
from nait_assets.extraction.activation_table import ACTIVATION, SAMPLE
from nait_assets.extraction.extractor import Outcome, extract
from nait_assets.lineage import Record
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOLINGS, Extraction
from nait_assets.resources.language_model import LanguageModel
from nait_assets.resources.warehouse import Store
from nait_assets_tests.conftest import pool_rows

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'nait_assets[ray]'")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow
TWO_WORKERS = RunOptions(batch_tokens=64, shard_tokens=64, engine="ray", ray_workers=2)
LOCAL = RunOptions(batch_tokens=64, shard_tokens=64)


@pytest.fixture
def corpus() -> pl.DataFrame:
    """40 conversations, which make about 20 shards."""
    rows = [{"sample_id": f"{place:016x}", "messages": row["messages"]} for place, row in enumerate(pool_rows(40))]
    return pl.DataFrame(rows)


@pytest.fixture
def run(tmp_path: Path, model_folder: Path, corpus: pl.DataFrame) -> Callable[..., tuple[Outcome, Store]]:
    """Extract the corpus into a store of some name."""

    def extracted(name: str, options: RunOptions, folder: Path = model_folder, n: int = 40) -> tuple[Outcome, Store]:
        store = Store(tmp_path / f"{name}.duckdb")
        model = LanguageModel(source=str(folder), home=str(tmp_path), dtype="float32")
        record = Record("extraction/candidate_activations", "", "1", "")
        outcome = extract(
            corpus.head(n),
            name,
            model,
            Extraction(max_tokens=64, pool=POOLINGS),
            store,
            False,
            options,
            lambda _: record,
            print,
        )
        return outcome, store

    return extracted


def rows(store: Store) -> tuple[list[Any], list[Any]]:
    """Every row of the table, by its key."""
    with store.snapshot() as snapshot:
        return tuple(
            snapshot.connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
            for table in (ACTIVATION, SAMPLE)
        )


def worker_processes() -> list[Any]:
    """Processes of the actors that this process' Ray started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


def test_table_is_the_local_engine_s_though_a_worker_is_killed(
    tmp_path: Path, run: Callable[..., tuple[Outcome, Store]]
) -> None:
    """A spot instance that goes away costs its shard a second reading, and nothing else."""
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            if len(list((tmp_path / "ray.spool").rglob("*.json"))) >= 3:
                process = worker_processes()[0]
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
            time.sleep(0.01)

    local, expected = run("local", LOCAL)
    killer = threading.Thread(target=kill_one)
    killer.start()
    outcome, found = run("ray", TWO_WORKERS)
    killer.join()

    assert killed
    assert outcome.engine == "ray"
    assert outcome.n_extracted == 40
    assert outcome.n_tokens == local.n_tokens
    assert outcome.data_version == local.data_version
    assert rows(found) == rows(expected)
    assert not (tmp_path / "ray.spool").exists()
    assert not worker_processes()


def test_nan_in_a_worker_is_the_error_that_it_is_here(
    tmp_path: Path, llama: Any, tokenizer: Any, run: Callable[..., tuple[Outcome, Store]]
) -> None:
    """Ray would wrap it in pages of its own; the shards that were read before are kept."""
    import copy

    import torch

    broken = copy.deepcopy(llama)
    with torch.no_grad():
        broken.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    broken.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")

    with pytest.raises(NumericalError, match="first in layer 1"):
        run("broken", TWO_WORKERS, tmp_path / "broken")
    assert not ray.is_initialized()


def test_finished_shards_are_not_read_again(tmp_path: Path, run: Callable[..., tuple[Outcome, Store]]) -> None:
    """Whichever engine wrote them: a run that was begun here can be ended on a cluster."""
    from nait_assets.extraction import extractor

    with pytest.MonkeyPatch.context() as patch:

        def killed_before_the_fold(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(extractor.activation_table, "fold", killed_before_the_fold)
        with pytest.raises(KeyboardInterrupt):
            run("begun", LOCAL)
    shards = sorted((tmp_path / "begun.spool").rglob("*.json"))
    for manifest in shards[:4]:
        manifest.unlink()

    outcome, _ = run("begun", TWO_WORKERS)

    assert outcome.n_extracted == 40
    assert 0 < outcome.n_tokens < run("whole", LOCAL)[0].n_tokens / 2


def test_no_cluster_at_the_address_is_said_in_one_line(run: Callable[..., tuple[Outcome, Store]]) -> None:
    """A typing error in an address must not start a second Ray here."""
    options = RunOptions(engine="ray", ray_address="127.0.0.1:1")
    with pytest.raises(SetupError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        run("nowhere", options)
