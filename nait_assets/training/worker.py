"""A process that trains: `python -m nait_assets.training.worker JOB ...`, by itself or under `accelerate launch`.

It reads jobs that `making` wrote and leaves each one's model, log and figures in the job's folder; what goes wrong
that a user can do something about is in `error.json`. The trainer is TRL's; what is set here and why, docs/training.md
says. It ends when whoever started it is gone, so that no two trainings write one folder.
"""

import contextlib
import ctypes
import gc
import json
import logging
import math
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nait_assets.errors import NumericalError, SetupError, UserError
from nait_assets.resources.files import replacing
from nait_assets.training import checkpoints
from nait_assets.training.job import ERROR, FIGURES, LOG, ROWS, Job
from nait_assets.training.trainer import trainer_of

if TYPE_CHECKING:
    from transformers import TrainerCallback


def main(arguments: list[str]) -> int:
    """Carry out jobs in order; the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for argument in arguments:
        job = Job.read(Path(argument))
        try:
            train(job)
        except UserError as error:
            _say(job, type(error).__name__, str(error))
            return 1
        _give_memory_back()
    return 0


def _give_memory_back() -> None:
    """Free what the last training held, or the next one comes on top: a trainer and its callbacks hold each other."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed; others have no such call
        ctypes.CDLL(None).malloc_trim(0)


def _end_with_parent() -> None:
    """Whoever started this holds the other end of standard input: it closes with that process, however that ends."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    os._exit(3)


def _say(job: Job, kind: str, message: str) -> None:
    with replacing(job.folder / ERROR) as temporary:
        temporary.write_text(json.dumps({"class": kind, "message": message}) + "\n", encoding="utf-8")


def train(job: Job) -> None:
    """Train a job's model, from its last whole checkpoint on if there is one, and write it into `final`.

    Raises:
        NumericalError: A loss or a gradient's norm is NaN or infinite.
        SetupError: The processes are others than the recipe's file asks for.
    """
    import polars as pl
    import transformers

    began = time.monotonic()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(job.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**job.pretrained, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    trainer = trainer_of(job, tokenizer)
    rows = pl.read_parquet(job.folder / ROWS, glob=False)
    notes = Notes(job, trainer, rows["sample_id"].to_list(), rows["token_ids"].list.len().to_list())
    trainer.add_callback(_callback(notes))
    _require_processes(trainer, job)
    main_process = trainer.accelerator.is_main_process
    whole, refused = checkpoints.last_whole(job.folder / "checkpoints") if main_process else (None, [])
    whole = _same_everywhere(whole)
    if main_process:
        notes.go_on_from(whole, refused)
    trainer.train(resume_from_checkpoint=str(whole) if whole else None)
    _save(trainer, tokenizer, job)
    if main_process:
        spent = {"seconds_of_process": time.monotonic() - began, "cpu_seconds": time.process_time() - notes.cpu_began}
        figures = {**spent, "peak_bytes": _peak_bytes(), **_hardware(trainer)}
        (job.folder / FIGURES).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()


class Notes:
    """What is written down while a model is trained, and what follows: checkpoints, and an end where numbers end.

    Args:
        job: Job that is carried out.
        trainer: Trainer that does so.
        sample_ids: Ids of the rows.
        lengths: Tokens of the rows.
    """

    def __init__(self, job: Job, trainer: Any, sample_ids: list[str], lengths: list[int]):
        self.job, self.trainer = job, trainer
        self.sample_ids, self.lengths = sample_ids, lengths
        self.is_main = trainer.accelerator.is_main_process
        self.seconds_before = 0.0
        self.n_tokens = 0
        self.n_batches_done = 0
        self.began = self.saved = time.monotonic()
        self.cpu_began = time.process_time()

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.job.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def go_on_from(self, checkpoint: Path | None, refused: Sequence[str]) -> None:
        """Take the log back to a checkpoint, or to nothing, and say so."""
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        entries = [one for one in self.job.log() if one.get("step", 0) <= step]
        before = [one for one in entries if "step" in one]
        if before:
            self.seconds_before, self.n_tokens = before[-1]["seconds"], before[-1]["n_tokens"]
        with replacing(self.job.folder / LOG) as temporary:
            temporary.write_text("".join(json.dumps(one) + "\n" for one in entries), encoding="utf-8")
        self.log({"start": step, "n_tokens": self.n_tokens, "pid": os.getpid()})
        for sentence in [*refused, *([f"goes on from step {step}"] if step else [])]:
            self.log({"note": sentence})

    def begin(self) -> None:
        """The first batch is about to be read."""
        self.began = self.saved = time.monotonic()
        self.cpu_began = time.process_time()

    def of_step(self, step: int, n_steps: int, logs: Mapping[str, Any]) -> None:
        """Write down a step.

        Raises:
            NumericalError: Its loss or its gradient's norm is not finite; the trainer itself would go on.
        """
        rows = self._rows_of_step()
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite(float(logs.get(name, 0.0)))]
        if broken:
            names = ", ".join(self.sample_ids[row] for row in rows[:3])
            what = broken[0].replace("grad_norm", "gradient norm")
            raise NumericalError(
                f"{self.job.label}: step {step} of {n_steps} has a {what} of {logs[broken[0]]}; its {len(rows)} rows "
                f"here are {names}{' and others' if len(rows) > 3 else ''}. Nothing was stored. Try a lower "
                f"`training.learning_rate` (it is {self.job.settings['learning_rate']:g}), or `training.bf16: false`."
            )
        self.n_tokens += sum(self.lengths[row] for row in rows) * self.job.n_processes
        if self.is_main:
            seconds = self.seconds_before + time.monotonic() - self.began
            kept = {name: logs.get(name) for name in ("epoch", "loss", "grad_norm", "learning_rate")}
            self.log({"step": step, "n_steps": n_steps, **kept, "n_tokens": self.n_tokens, "seconds": seconds})

    def _rows_of_step(self) -> list[int]:
        """Rows of this process' batches in the step that has just ended; the loader is a batch ahead."""
        collator, arguments = self.trainer.data_collator, self.trainer.args
        per_epoch = math.ceil(len(self.sample_ids) / (arguments.per_device_train_batch_size * self.job.n_processes))
        in_epoch = self.n_batches_done % per_epoch
        n_batches = min(arguments.gradient_accumulation_steps, per_epoch - in_epoch)
        taken, collator.batches = collator.batches[:n_batches], collator.batches[n_batches:]
        self.n_batches_done += n_batches
        return [row for batch in taken for row in batch]

    def is_due(self, step: int, n_steps: int) -> bool:
        """Whether a checkpoint is to be written now, the same in all processes; the end needs none."""
        due = step < n_steps and time.monotonic() - self.saved >= self.job.checkpoint_seconds
        return bool(_same_everywhere(due))

    def sealed(self, step: int) -> None:
        """Note that a checkpoint is whole, and remove those that it makes needless."""
        self.trainer.accelerator.wait_for_everyone()
        if self.is_main:
            folder = self.job.folder / "checkpoints"
            checkpoints.seal(folder / f"checkpoint-{step}")
            checkpoints.remove_earlier(folder)
        self.saved = time.monotonic()


def _callback(notes: Notes) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Following(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            n = math.ceil(len(notes.sample_ids) / (args.per_device_train_batch_size * notes.job.n_processes))
            epochs, steps = divmod(state.global_step, math.ceil(n / args.gradient_accumulation_steps))
            notes.n_batches_done = epochs * n + steps * args.gradient_accumulation_steps
            notes.begin()

        def on_log(self, _args: Any, state: Any, _control: Any, **given: Any) -> None:
            if "loss" in given["logs"]:
                notes.of_step(state.global_step, state.max_steps, given["logs"])

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = notes.is_due(state.global_step, state.max_steps)

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            notes.sealed(state.global_step)

    return Following()


def _require_processes(trainer: Any, job: Job) -> None:
    """Whether the processes are as the file for accelerate asks: it falls back to others without a word."""
    found = {"n_processes": trainer.accelerator.num_processes, "fsdp": bool(trainer.is_fsdp_enabled)}
    wanted = {"n_processes": job.n_processes, "fsdp": job.fsdp}
    if found != wanted:
        raise SetupError(f"training.accelerate: the processes are {found}, and the file asks for {wanted}.")


def _same_everywhere(value: Any) -> Any:
    """A value of the main process, in all processes."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _save(trainer: Any, tokenizer: Any, job: Job) -> None:
    final = job.folder / "final"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.model.config.use_cache = True  # the trainer turns it off: what is saved would generate slowly
    trainer.save_model(str(final))
    if trainer.accelerator.is_main_process:
        tokenizer.save_pretrained(final)
        for name in ("training_args.bin", "README.md"):  # a pickle; and `card` writes another
            (final / name).unlink(missing_ok=True)


def _peak_bytes() -> int:
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hardware(trainer: Any) -> dict[str, Any]:
    import torch

    device = trainer.args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "rows_at_once": trainer.args.per_device_train_batch_size,
        "accumulation": trainer.args.gradient_accumulation_steps,
        "n_processes": trainer.accelerator.num_processes,
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries print at exit what is of no use
