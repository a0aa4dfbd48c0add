"""The warm-up of LESS: a LoRA adapter trained on a share of the pool, with a checkpoint at the end of every epoch.

Xia et al. 2024 (arXiv 2402.04333, section 3.1 and 4.1): LoRA on the attention's four projections, AdamW without weight
decay, gradients clipped to norm 1, a linear rise from zero over the first 3% of the steps, rounded up, and a linear
fall to zero. A checkpoint is what the gradients are taken at: the adapter's weights, Adam's first and second moments,
the epoch's mean learning rate. As the published code trains, one sequence at a time is read, and the mean over a batch
of their losses is stepped on. Unlike there, the share is drawn by hash, so that a row more in the pool leaves the
others as they were, and the loss is over the words of the responses without the token that ends a turn (`answers`).

A folder of checkpoints grows beside the final one and takes its place at the end; a run that is cut off begins again
after the last whole epoch, and makes the same bytes. Size: 12 bytes a weight of the adapter and epoch; rank 128 has
14.7 million weights on SmolLM2-135M, and 134 million on Llama-2-7B (6.4 GB for four epochs).
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field, field_validator

from nait_assets.conversation import conversations_of
from nait_assets.errors import DataError, NumericalError
from nait_assets.lineage import Record
from nait_assets.measurements.trained import TRAINED_FROM, TrainedOutput, is_trained_from
from nait_assets.models.adapter import Adapter, adapted
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.cost import Cost
from nait_assets.models.running import model_inputs
from nait_assets.models.training import EpochResult, scheduled, train_epoch
from nait_assets.recipe import Recipe, fingerprint, rounded_up, seeded_order
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources.files import put_in_place, replacing_folder
from nait_assets.resources.language_model import LanguageModel, LoadedModel

if TYPE_CHECKING:
    import torch

CHECKPOINTS = TrainedOutput("measurements/less_checkpoints", place="trained/less_checkpoints")
ALGORITHM = "2"
BETAS, EPSILON = (0.9, 0.999), 1e-8
LARGEST_NORM = 1.0
WARMUP_RATIO = 0.03
"""Share of the steps in which the learning rate rises."""
WEIGHTS, FIRST, SECOND, STATE = "weights.safetensors", "first_moment.safetensors", "second_moment.safetensors", "state"


class LessCheckpointsOptions(MeasurementOptions):
    """The warm-up of the adapter whose gradients are taken."""

    section = "less_checkpoints"
    share: float = Field(0.05, gt=0, le=1, description="Share of the pool, drawn by `seed`, that it is trained on.")
    epochs: int = Field(4, ge=1, description="Epochs; each leaves a checkpoint that gradients are taken at.")
    rank: int = Field(128, ge=1, description="Rank of the LoRA adapter; gradients are of its weights alone.")
    alpha: float = Field(512, gt=0, description="alpha / rank scales what the adapter adds.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of the adapter's inputs that training leaves out.")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="Linear modules that get an adapter."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Highest rate, after 3% of the steps; it falls to zero.")
    batch_size: int = Field(128, ge=1, description="Examples in a training step.")
    seed: int = Field(0, ge=0, description="Seed of the share, the adapter, the order and the dropout.")

    @field_validator("target_modules")
    @classmethod
    def _modules_are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names) or not all(names):
            raise ValueError(f"modules {list(names)} must be distinct names, such as q_proj")
        return names


@dataclass(frozen=True)
class Checkpoint:
    """The state at the end of an epoch, on disk.

    Attributes:
        folder: Folder that holds it.
    """

    folder: Path

    @cached_property
    def state(self) -> dict[str, Any]:
        """`epoch`, `n_steps` since the beginning, mean `learning_rate` and `loss` of the epoch; and the adapter's."""
        return json.loads((self.folder / f"{STATE}.json").read_text())

    def tensors(self, file: str) -> "dict[str, torch.Tensor]":
        """The adapter's weights, or Adam's first or second moments, by name of the weight."""
        from safetensors.torch import load_file

        return load_file(self.folder / file)

    def adapter(self, model: LoadedModel) -> Adapter:
        """An adapter of the shape that the checkpoints of this warm-up have; its weights are not yet theirs."""
        return adapted(model, **self.state["adapter"])


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up did.

    Attributes:
        checkpoints: One an epoch.
        n_samples: Number of samples that were trained on.
        refused: Pairs of `sample_id` and reason, of those drawn that have no response to train on.
        n_resumed: Epochs that an earlier run had finished.
        cost: Cost of this run; its seconds are measured by whoever asked.
    """

    checkpoints: list[Checkpoint]
    n_samples: int
    refused: list[tuple[str, str]]
    n_resumed: int
    cost: Cost


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that the warm-up reads."""
    options = LessCheckpointsOptions.of(recipe).model_dump()  # not in JSON's form: homes of schema 1 keep their folder
    return [recipe.model, *recipe.extraction.reading, options]


def checkpoints_in(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a folder, by epoch; none where there is no folder."""
    found = [Checkpoint(each) for each in folder.glob("epoch_*")] if folder.is_dir() else []
    return sorted(found, key=lambda checkpoint: checkpoint.state["epoch"])


def warm_up(
    pool: pl.DataFrame,
    recipe: Recipe,
    model: LanguageModel,
    folder: Path,
    before: Record | None,
    log_line: Callable[[str], None],
) -> WarmUp:
    """Train the adapter, and leave the checkpoints in `folder`; or keep those that are there, of the same training.

    Args:
        pool: Columns `sample_id` and `messages`.
        recipe: Its model, extraction and `measurements.less_checkpoints` are read.
        model: Model of the recipe; stays as it is.
        folder: What it holds is replaced when all epochs are done.
        before: Record of the checkpoints that are there, or None.
        log_line: Receives lines for the run's log.

    Raises:
        DataError: None of the samples drawn has a response, or the only step would have a learning rate of zero.
        NumericalError: The loss of one is NaN or infinite.
    """
    options = LessCheckpointsOptions.of(recipe)
    drawn = draw(pool, options.share, options.seed)
    samples, refused = answered(drawn, recipe, model)
    identity = fingerprint(
        ALGORITHM, settings(recipe), model_inputs(model, recipe.model.source), drawn["sample_id"].to_list()
    )
    if is_trained_from(folder, identity, before):
        return WarmUp(checkpoints_in(folder), len(samples), refused, options.epochs, Cost())
    if not samples:
        reason = f"; the first: {refused[0][1]}" if refused else ""
        raise DataError(
            f"measurements.less_checkpoints.share: {options.share:g} of {len(pool)} candidates are {len(drawn)}, and "
            f"none of them has a response to train on{reason}. Use a larger share, or more `extraction.max_tokens`."
        )
    if options.epochs * math.ceil(len(samples) / options.batch_size) == 1:
        raise DataError(
            "measurements.less_checkpoints: the warm-up has a single step, whose learning rate is zero, as every first "
            "one's is. Use more epochs, a larger share, or a smaller batch_size."
        )
    growing = folder.with_name(f".{folder.name}.{identity}")
    for stale in folder.parent.glob(f".{folder.name}.*"):
        if stale != growing:
            shutil.rmtree(stale)  # of another pool, model or options: its epochs must not be taken up
    growing.mkdir(parents=True, exist_ok=True)
    done = checkpoints_in(growing)
    if len(done) < options.epochs:
        _train(samples, options, model.load_causal(), growing, done, log_line)
    (growing / TRAINED_FROM).write_text(identity)
    put_in_place(growing, folder)
    n_epochs = options.epochs - len(done)
    n_sequences, n_tokens = n_epochs * len(samples), n_epochs * sum(len(sample.token_ids) for sample in samples)
    cost = Cost(n_sequences, n_sequences, n_tokens)
    return WarmUp(checkpoints_in(folder), len(samples), refused, len(done), cost)


def answered(
    rows: pl.DataFrame, recipe: Recipe, model: LanguageModel
) -> tuple[list[AnsweredSample], list[tuple[str, str]]]:
    """Samples with response tokens to take a loss over; pairs of `sample_id` and reason of those without."""
    samples, refused = encode_with_answers(conversations_of(rows), model.tokenizer(), recipe.extraction)
    without = [(sample.sample_id, sample.unanswered) for sample in samples if sample.unanswered]
    return [sample for sample in samples if not sample.unanswered], [*refused, *without]


def draw(pool: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The rows whose hash is smallest, a share of the pool rounded up, in the order of their hashes."""
    order = seeded_order(pool["sample_id"].to_list(), f"{seed}:share")
    return pool[order[: rounded_up(share, len(pool))]]


def _train(
    samples: Sequence[AnsweredSample],
    options: LessCheckpointsOptions,
    model: LoadedModel,
    folder: Path,
    before: Sequence[Checkpoint],
    log_line: Callable[[str], None],
) -> None:
    """Train from the last of the checkpoints before, or from the beginning; write one more at the end of each epoch."""
    import torch

    shape: dict[str, Any] = {
        "rank": options.rank,
        "alpha": options.alpha,
        "dropout": options.dropout,
        "target_modules": list(options.target_modules),
        "seed": options.seed,
    }
    adapter = adapted(model, **shape)
    optimizer = torch.optim.AdamW(
        adapter.weights.values(), lr=options.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0
    )
    if before:
        _restore(before[-1], adapter, optimizer)
    n_steps = math.ceil(len(samples) / options.batch_size)
    for epoch in range(len(before) + 1, options.epochs + 1):
        with torch.random.fork_rng():
            # The dropout of an epoch has a seed of its own, so that an interrupted run ends in the same bytes.
            torch.manual_seed(_number(f"{options.seed}:dropout:{epoch}"))
            result = _train_epoch(samples, options, adapter, optimizer, epoch, n_steps)
        state = {
            "epoch": epoch,
            "n_steps": epoch * n_steps,
            "learning_rate": math.fsum(result.learning_rates) / len(result.learning_rates),
            "loss": math.fsum(result.losses) / len(result.losses),
            "adapter": shape,
        }
        _write(folder, state, adapter, optimizer)
        log_line(f"less_checkpoints: epoch {epoch} of {options.epochs}, loss {state['loss']:.3f}")


def _train_epoch(
    samples: Sequence[AnsweredSample],
    options: LessCheckpointsOptions,
    adapter: Adapter,
    optimizer: "torch.optim.Optimizer",
    epoch: int,
    n_steps: int,
) -> EpochResult:
    order = seeded_order([sample.sample_id for sample in samples], f"{options.seed}:epoch:{epoch}")

    def learning_rate(step: int) -> float:
        return rate((epoch - 1) * n_steps + step, options.epochs * n_steps, options.learning_rate)

    try:
        ordered = [samples[index] for index in order]
        return train_epoch(adapter, optimizer, ordered, options.batch_size, learning_rate, LARGEST_NORM)
    except NumericalError as error:
        raise NumericalError(
            f"{CHECKPOINTS.key}: {error} in epoch {epoch}; use a smaller "
            "measurements.less_checkpoints.learning_rate, or model.dtype float32."
        ) from error


def rate(step: int, n_steps: int, peak: float) -> float:
    """The learning rate of a step of the whole training, counted from 0, as transformers' trainer has it.

    It rises over ceil(0.03 x `n_steps`) steps, the first of which has 0, and falls to what would be 0 after the last.
    """
    return scheduled(step, n_steps, peak, rounded_up(WARMUP_RATIO, n_steps))


def _write(folder: Path, state: Mapping[str, Any], adapter: Adapter, optimizer: "torch.optim.Optimizer") -> None:
    """Write a checkpoint, whole or not at all."""
    from safetensors.torch import save_file

    moments = optimizer.state
    tensors = {
        WEIGHTS: {name: weight.detach() for name, weight in adapter.weights.items()},
        FIRST: {name: moments[weight]["exp_avg"] for name, weight in adapter.weights.items()},
        SECOND: {name: moments[weight]["exp_avg_sq"] for name, weight in adapter.weights.items()},
    }
    with replacing_folder(folder / f"epoch_{state['epoch']}") as temporary:
        for file, by_name in tensors.items():
            save_file({name: tensor.cpu().contiguous() for name, tensor in by_name.items()}, temporary / file)
        (temporary / f"{STATE}.json").write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")


def _restore(checkpoint: Checkpoint, adapter: Adapter, optimizer: "torch.optim.Optimizer") -> None:
    """Put weights and optimizer back into the state that they had when the checkpoint was written."""
    import torch

    adapter.put(checkpoint.tensors(WEIGHTS))
    first, second = checkpoint.tensors(FIRST), checkpoint.tensors(SECOND)
    for name, weight in adapter.weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(float(checkpoint.state["n_steps"])),
            "exp_avg": first[name].to(adapter.device),
            "exp_avg_sq": second[name].to(adapter.device),
        }


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
