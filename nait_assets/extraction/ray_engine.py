"""The Ray engine: shards are read by a pool of actors, on this machine or on a cluster.

Actors load the model once, store their shards in the spool themselves, and give back the manifest alone: activations
never travel through Ray's object store. An actor that dies is started again, and its shard with it.
"""

import contextlib
import dataclasses
import logging
import os
import pickle
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nait_assets.errors import SetupError, WorkerError
from nait_assets.extraction.spool import Manifest
from nait_assets.extraction.worker import Job, Worker
from nait_assets.models.encoding import Shard
from nait_assets.models.running import RunOptions

ATTEMPTS = 3
"""How often a shard may end its worker's process; Ray hands it to another without end."""
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def read(shards: Sequence[Shard], job: Job, options: RunOptions) -> Iterator[Manifest]:
    """Have a pool of actors read shards.

    Args:
        shards: At least one.
        job: What the actors need; its spool is a folder that all of them see.
        options: Address of Ray and size of its pool of actors.

    Yields:
        The manifest of each shard once it is stored, in no fixed order.

    Raises:
        SetupError: Ray is not installed, or there is no cluster at the address.
        NumericalError: The model computed NaN or infinity.
        WorkerError: A shard killed three workers.
    """
    items = [{"index": index, "shard": pickle.dumps(shard)} for index, shard in enumerate(shards)]
    job = dataclasses.replace(job, model=job.model.with_dtype(job.model.resolved_dtype()))
    n_workers = min(options.ray_workers, len(items))
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _cluster(options, n_workers), tempfile.TemporaryDirectory(prefix=".begun.", dir=folder) as begun:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = ATTEMPTS
        context.execution_no_progress_timeout_s = -1  # a shard may take longer than its half hour
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map(
            _Actor,
            fn_constructor_args=[job, Path(begun)],
            compute=ray.data.ActorPoolStrategy(size=n_workers, max_tasks_in_flight_per_actor=1),
            num_cpus=options.ray_cpus,
            num_gpus=options.ray_gpus or None,
        )
        for row in rows.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, job: Job, begun: Path):
        self._worker, self._begun = Worker(job), begun

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": pickle.dumps(self._outcome(row))}

    def _outcome(self, row: dict[str, Any]) -> Manifest | Exception:
        """The manifest, or the error as a value: Ray would edit its message and drop its cause."""
        try:
            shard: Shard = pickle.loads(row["shard"])
            marks = self._begun / str(row["index"])
            with marks.open("ab") as file:
                file.write(b".")
            if marks.stat().st_size > ATTEMPTS:
                raise WorkerError(
                    f"reading shard {shard.name} of {len(shard.samples)} samples ended its worker {ATTEMPTS} times, "
                    "most likely because memory ran out. Use fewer workers on a machine, or smaller `batch_tokens`."
                )
            (manifest,) = self._worker.read([shard])
        except Exception as error:  # noqa: BLE001  raised again by `read`
            return error
        return manifest


@contextlib.contextmanager
def _cluster(options: RunOptions, n_workers: int) -> Iterator[None]:
    """Ray, connected: the cluster at the address, left running, or one on this machine that ends with the block."""
    for name, value in SETTINGS.items():  # before Ray is imported
        os.environ.setdefault(name, value)
    if options.ray_address is None:  # Ray listens on every interface, and without a token writes one to the user's home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SetupError("engine 'ray' needs Ray: `pip install 'nait_assets[ray]'`, or use engine 'local'.") from error
    _require_reachable(options.ray_address)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    terminated = signal.getsignal(signal.SIGTERM)
    local: dict[str, Any] = {
        "num_cpus": max(1, round(n_workers * options.ray_cpus)),
        "include_dashboard": False,
        "object_store_memory": 10**8,
    }
    try:
        ray.init(
            options.ray_address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(local if options.ray_address is None else {}),
        )
    except ConnectionError as error:
        raise SetupError(f"--ray-address: there is no Ray cluster at {options.ray_address!r}: {error}") from error
    if terminated not in (None, signal.SIG_DFL) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)  # Ray put its own there
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str | None) -> None:
    """Refuse an address at which nobody listens: Ray itself takes minutes to give up."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host:  # None, or "auto"
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise SetupError(
            f"--ray-address: there is no Ray cluster at {address!r} ({error}). Use host:port of its head, or "
            "leave it out to start Ray on this machine."
        ) from error
