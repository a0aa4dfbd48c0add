"""Making the models of runs: one that is there already is used, one that was begun goes on, the others are trained.

Belongs here: from a run to its folder, through jobs and the process that trains (`process`). Does not belong here:
which runs there are (`planned`).
"""

import importlib.metadata
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock

from nait_assets.errors import DataError, RecipeError
from nait_assets.losses import kinds_of_reasons
from nait_assets.models.libraries import LIBRARIES
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.resources.files import put_in_place, sha256
from nait_assets.tables import INDICES
from nait_assets.training.card import model_card
from nait_assets.training.encoding import EncodedRow, encode_rows
from nait_assets.training.job import FIGURES, LOG, ROWS, Job
from nait_assets.training.models import Model, has_weights, read_manifest
from nait_assets.training.process import run_jobs
from nait_assets.training.runs import FOLDER, MANIFEST, TRAINERS, TrainingRun, training_of

BATCH_TOKENS = {"cuda": 16384}
BATCH_TOKENS_ELSEWHERE = 512  # on two cores a tenth faster than 1,024, and a gigabyte less with SmolLM2-135M
LONGEST = 4
"""The longest rows that are read at once may have as many times the tokens that a device reads at once."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a training is run: none of it changes its result, save for rounding.

    Attributes:
        batch_tokens: Tokens that a device reads at once, about; None for what suits the device.
        checkpoint_seconds: Seconds between checkpoints.
    """

    batch_tokens: int | None = None
    checkpoint_seconds: float = 300.0


@dataclass(frozen=True)
class Made:
    """The model of a run.

    Attributes:
        run: Run that it is of.
        model: The model.
        curve: A row a step, columns of `tables.LOSS_CURVES` but the key.
        trained: Whether it was trained now; else it was there.
        notes: What is to be known: the size of a batch, rows left out, checkpoints that were refused.
    """

    run: TrainingRun
    model: Model
    curve: pl.DataFrame
    trained: bool
    notes: tuple[str, ...] = ()


def make(
    runs: Sequence[TrainingRun],
    recipe: Recipe,
    base: LanguageModel,
    home: Path,
    options: TrainingOptions,
    log_line: Callable[[str], None],
    with_weights: bool = False,
) -> list[Made]:
    """The models of runs, in their order.

    Args:
        runs: Runs of one output.
        recipe: Recipe with a section `training`.
        base: The model that is trained.
        home: Folder of the home.
        options: How they are trained.
        log_line: Function that takes lines for the run's log.
        with_weights: Whether one whose weights were removed after its evaluation is trained again.

    Raises:
        DataError: No row of a run has a token to learn.
        RecipeError: The rows of a step cannot be divided among the processes.
        NumericalError: A loss is NaN or infinite.
        WorkerError: The process that trains ended without a reason.
    """
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    with FileLock(home / FOLDER / ".lock"):  # two runs of Dagster's may want the same model
        missing = {run.key: run for run in runs if not _is_there(run, home, with_weights)}
        jobs = [_prepared(run, recipe, base, home, options, log_line) for run in missing.values()]
        if jobs:
            run_jobs([job for job, _ in jobs], runs[0].launch, log_line)
        notes = {}
        for run, (job, said) in zip(missing.values(), jobs, strict=True):
            notes[run.key] = _finished(run, job, home, said)
    return [_made(run, base, home, run.key in missing, notes.get(run.key, ())) for run in runs]


def _is_there(run: TrainingRun, home: Path, with_weights: bool) -> bool:
    folder = run.folder(home)
    return (folder / MANIFEST).is_file() and (has_weights(folder) or not with_weights)


def _prepared(
    run: TrainingRun,
    recipe: Recipe,
    base: LanguageModel,
    home: Path,
    options: TrainingOptions,
    log_line: Callable[[str], None],
) -> tuple[Job, tuple[str, ...]]:
    """The job of a run in its folder, with checkpoints if it was begun; and what is to be known of it."""
    settings = run.settings
    rows, refused = encode_rows(
        run.conversations, base.tokenizer(), settings["max_tokens"], settings["reading"], settings["loss_on"]
    )
    if not rows:
        raise DataError(_nothing_to_learn(run, refused))
    job = _job_of(run, rows, recipe, base, home, options)
    notes = _notes(run, rows, refused)
    for note in notes:
        log_line(f"{run.label}: {note}")
    if job.folder.exists() and not _goes_on(job):
        log_line(f"{run.label}: what was begun by other versions or processes is not gone on with")
        shutil.rmtree(job.folder)
    job.folder.mkdir(exist_ok=True)
    frame = pl.DataFrame(
        {
            "sample_id": [row.sample_id for row in rows],
            "token_ids": [row.token_ids for row in rows],
            "labels": [row.labels for row in rows],
            "truncated": [row.truncated for row in rows],
        },
        schema_overrides={"token_ids": INDICES, "labels": INDICES},  # rows of one length would be an array
    )
    frame.write_parquet(job.folder / ROWS)
    job.write()
    return job, notes


def _goes_on(job: Job) -> bool:
    try:
        return Job.read(job.folder).goes_on_as(job)
    except (OSError, ValueError, TypeError):
        return False


def _nothing_to_learn(run: TrainingRun, refused: Sequence[tuple[str, str]]) -> str:
    if not run.conversations:
        return (
            f"{run.label}: there are no rows to train on. Give `selection.tokens` or `ratios` more, `min_score` or "
            "`filters` less, or name other `training.runs`."
        )
    first = kinds_of_reasons(Counter(reason for _, reason in refused))[0][0]
    return (
        f"{run.label}: none of its {len(run.conversations)} rows has a token to learn; most often {first}. "
        f"Use more `training.max_tokens` (it is {run.settings['max_tokens']}), or other rows."
    )


def _notes(run: TrainingRun, rows: Sequence[EncodedRow], refused: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    batch, cut = run.settings["batch_size"], sum(row.truncated for row in rows)
    notes = [f"{len(rows)} rows are fewer than a batch of {batch}: the batch is {len(rows)}, one step an epoch"]
    found = notes if len(rows) < batch else []
    if refused:
        reasons = kinds_of_reasons(Counter(reason for _, reason in refused))
        found = [
            *found,
            f"{len(refused)} rows are left out: {'; '.join(f'{n} x {reason}' for reason, n in reasons[:3])}",
        ]
    if cut:
        found = [*found, f"{cut} rows are cut to {run.settings['max_tokens']} tokens"]
    return tuple(found)


def _job_of(
    run: TrainingRun,
    rows: Sequence[EncodedRow],
    recipe: Recipe,
    base: LanguageModel,
    home: Path,
    options: TrainingOptions,
) -> Job:
    training, n_processes = training_of(recipe), run.launch.n_processes
    batch_size = run.settings["batch_size"]
    if batch_size % n_processes:
        raise RecipeError(
            f"training.batch_size: {batch_size} rows cannot be divided among the {n_processes} processes of "
            f"{run.launch.file}; use {n_processes * max(1, batch_size // n_processes)}."
        )
    device = base.resolved_device().type if run.launch.file is None else ("cpu" if run.launch.on_cpu else "cuda")
    tokens = options.batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS_ELSEWHERE)
    bf16 = run.settings["bf16"]
    return Job(
        folder=run.growing(home),
        label=run.label,
        pretrained=base.pretrained(),
        settings=run.settings,
        seed=run.seed,
        batch_size=batch_size,
        rows_at_once=rows_at_once([len(row.token_ids) for row in rows], batch_size // n_processes, tokens),
        bf16=base.dtype_name() == "bfloat16" if bf16 == "auto" else bf16,
        on_cpu=device == "cpu",
        n_processes=n_processes,
        fsdp=run.launch.kind == "FSDP",
        gradient_checkpointing=training.gradient_checkpointing,
        report_to=training.report_to,
        checkpoint_seconds=options.checkpoint_seconds,
        libraries={name: importlib.metadata.version(name) for name in (*LIBRARIES, *TRAINERS)},
    )


def rows_at_once(lengths: Sequence[int], most: int, tokens: int) -> int:
    """Rows that a process reads at once: the largest divisor of `most` of which on average fit into some tokens.

    Args:
        lengths: Tokens of the rows.
        most: Rows of a step in a process.
        tokens: Tokens that a device reads at once, about; the longest rows together may have four times as many.
    """
    longest = np.cumsum(sorted(lengths, reverse=True))
    mean = float(np.mean(lengths))
    fits = [
        n
        for n in range(1, most + 1)
        if most % n == 0 and n * mean <= tokens and longest[min(n, len(longest)) - 1] <= LONGEST * tokens
    ]
    return max(fits, default=1)


def _finished(run: TrainingRun, job: Job, home: Path, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Put a trained model into its place with manifest and card; all that is to be known of it."""
    log = job.log()
    said = (*notes, *(entry["note"] for entry in log if "note" in entry))
    steps = [entry for entry in log if "step" in entry]
    figures = json.loads((job.folder / FIGURES).read_text(encoding="utf-8"))
    rows = pl.read_parquet(job.folder / ROWS, glob=False)
    final = job.folder / "final"
    manifest = {
        "key": run.key,
        "label": run.label,
        "base": dict(run.base),
        "settings": dict(run.settings),
        "seed": run.seed,
        "launch": run.launch.settings,
        "libraries": dict(job.libraries),
        "sample_ids": rows["sample_id"].to_list(),
        "n_rows": len(rows),
        "n_tokens": int(rows["token_ids"].list.len().sum()),
        "n_answer_tokens": int(rows.select((pl.col("labels").list.eval(pl.element() >= 0)).list.sum().sum()).item()),
        "n_truncated": int(rows["truncated"].sum()),
        "n_left_out": len(run.conversations) - len(rows),
        "n_steps": steps[-1]["step"],
        "loss": mean_loss(steps, run.settings["epochs"]),
        "seconds": steps[-1]["seconds"],
        **figures,
        "notes": list(said),
    }
    (final / "README.md").write_text(model_card(manifest), encoding="utf-8")
    (final / LOG).write_text((job.folder / LOG).read_text(encoding="utf-8"), encoding="utf-8")
    files = {file.name: sha256(file) for file in sorted(final.iterdir()) if file.is_file()}
    text = json.dumps({**manifest, "files": files}, indent=1, sort_keys=True) + "\n"
    (final / MANIFEST).write_text(text, encoding="utf-8")
    put_in_place(final, run.folder(home))
    shutil.rmtree(job.folder)
    return said


def mean_loss(steps: Sequence[dict[str, Any]], epochs: int) -> float:
    """Mean of the steps' losses over the last epoch; the trainer's own mean is wrong after a resume."""
    n_steps = -(-len(steps) // epochs)
    return float(np.mean([entry["loss"] for entry in steps[-n_steps:]]))


def _made(run: TrainingRun, base: LanguageModel, home: Path, trained: bool, notes: tuple[str, ...]) -> Made:
    folder = run.folder(home)
    log = (folder / LOG).read_text(encoding="utf-8").splitlines()
    steps = [entry for entry in map(json.loads, log) if "step" in entry]
    columns = ("step", "epoch", "loss", "grad_norm", "learning_rate", "n_tokens", "seconds")
    curve = pl.DataFrame([{name: entry[name] for name in columns} for entry in steps])
    return Made(
        run, Model(base, run.key, run.number, folder), curve, trained, notes or tuple(read_manifest(folder)["notes"])
    )
