"""Starting the process that trains, following its log, and what it means when it ends."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

import nait_assets
from nait_assets.errors import NumericalError, SetupError, UserError, WorkerError
from nait_assets.models.progress import Progress
from nait_assets.training.job import ERROR, FIGURES, OUTPUT, ROWS, Job
from nait_assets.training.launch import Launch

WORKER = "nait_assets.training.worker"
POLL_SECONDS = 0.2
N_LINES = 5
"""Of what the process printed, where it ended without a reason."""
RAISED: Mapping[str, type[UserError]] = {"NumericalError": NumericalError, "SetupError": SetupError}


def run_jobs(jobs: Sequence[Job], launch: Launch, log_line: Callable[[str], None]) -> None:
    """Carry out jobs in one process, or in the processes that a file of accelerate asks for.

    Args:
        jobs: Jobs in their folders; those that have begun go on.
        launch: How processes are started.
        log_line: Function that takes lines for the run's log.

    Raises:
        NumericalError: A loss is NaN or infinite.
        SetupError: The processes are others than were asked for.
        WorkerError: The process ended without a reason that it could give.
    """
    for job in jobs:
        for name in (ERROR, FIGURES):
            (job.folder / name).unlink(missing_ok=True)
    n_starts = {job.folder: sum("start" in entry for entry in job.log()) for job in jobs}
    output, progress = jobs[0].folder / OUTPUT, _progress(jobs, log_line)
    with output.open("wb") as printed:
        process = subprocess.Popen(
            [*_command(launch, jobs[0].on_cpu), *(str(job.folder) for job in jobs)],
            stdin=subprocess.PIPE,  # which closes with this process: the other one then ends
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
        progress.begin()
        try:
            for job in jobs:
                _follow(job, n_starts[job.folder], process, progress, log_line)
            process.wait()
        finally:
            progress.close()
            _end(process)
    _raise_if_failed(jobs, process.returncode, output)


def _command(launch: Launch, on_cpu: bool) -> list[str]:
    if launch.file is None:
        return [sys.executable, "-m", WORKER]
    port = _free_port() if on_cpu or launch.n_processes > 1 else 0
    place = ["--main_process_port", str(port)] if port and int(launch.entries.get("num_machines", 1)) == 1 else []
    starter = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch.file)]
    return [*starter, *place, "-m", WORKER]


def _environment() -> dict[str, str]:
    root = str(Path(nait_assets.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "WANDB_SILENT": "true"}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _progress(jobs: Sequence[Job], log_line: Callable[[str], None]) -> Progress:
    """The progress of all jobs together, so that the time left is that of the whole output."""
    sizes = [(len(lengths) * epochs, int(lengths.sum()) * epochs) for lengths, epochs in map(_lengths, jobs)]
    name = jobs[0].label if len(jobs) == 1 else f"{jobs[0].label.rpartition(', ')[0]}, {len(jobs)} models"
    return Progress(name, sizes, log_line)


def _lengths(job: Job) -> tuple[pl.Series, int]:
    """Tokens of each row of a job, and how often it is read."""
    rows = pl.read_parquet(job.folder / ROWS, columns=["token_ids"], glob=False)
    return rows["token_ids"].list.len(), job.settings["epochs"]


def _follow(
    job: Job,
    n_starts: int,
    process: "subprocess.Popen[bytes]",
    progress: Progress,
    log_line: Callable[[str], None],
) -> None:
    """Show a job's progress until it has its figures, or the process ends; earlier starts of it are passed over."""
    lengths, _ = _lengths(job)
    rows_of_token = len(lengths) / max(1, int(lengths.sum()))
    n_shown, has_ended = 0, False
    n_tokens: int | None = None
    while not has_ended:
        time.sleep(POLL_SECONDS)
        has_ended = process.poll() is not None or (job.folder / FIGURES).exists()
        log = job.log()  # after that question: of a job that has ended it is whole
        starts = [place for place, entry in enumerate(log) if "start" in entry]
        if len(starts) <= n_starts:
            continue
        if n_tokens is None:
            n_tokens = log[starts[-1]]["n_tokens"]
            progress.skip(round(n_tokens * rows_of_token), n_tokens)
        entries = log[starts[-1] + 1 :]
        for entry in entries[n_shown:]:
            if "note" in entry:
                log_line(f"{job.label}: {entry['note']}")
            else:
                before, n_tokens = n_tokens, entry["n_tokens"]
                n_rows = round(n_tokens * rows_of_token) - round(before * rows_of_token)  # which add up
                progress.advance(n_rows, n_tokens - before)
        n_shown = len(entries)


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _raise_if_failed(jobs: Sequence[Job], status: int, output: Path) -> None:
    for job in jobs:
        if (job.folder / ERROR).exists():
            error = json.loads((job.folder / ERROR).read_text(encoding="utf-8"))
            raise RAISED[error["class"]](error["message"])
    if status == 0 and all((job.folder / FIGURES).exists() for job in jobs):
        return
    unfinished = next((job for job in jobs if not (job.folder / FIGURES).exists()), jobs[-1])
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-N_LINES:]
    ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    advice = " The system ends what takes too much memory; try fewer `training.max_tokens`." if status == -9 else ""
    raise WorkerError(
        f"{unfinished.label}: the process that trains {ended}.{advice} `nait run` goes on from the last checkpoint. "
        f"Its last lines:\n" + "\n".join(lines)
    )
