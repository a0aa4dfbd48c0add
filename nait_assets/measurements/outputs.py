"""Measurements of what a model says of a sample: how likely its tokens are, and where they leave the last hidden state.

`outputs`, of one forward pass over the conversation: text_loss, the mean cross-entropy in nats of all tokens but the
first; answer_loss, the mean over the tokens of the assistant's responses, each given all that stands before it; and
vector, the position-weighted mean of the last hidden state over all tokens, sum_i w_i h_i with w_i = i / sum_j j, i
from 1 (RDS+, arXiv 2503.01807, section 3). `answers`, of one forward pass over the response tokens alone:
answer_loss_alone, the mean over the same tokens without anything that was asked. Of several responses, each then
follows the one before. Both sequences begin with the token that every sample begins with.

Traps: the head's logits of a batch would be `[tokens, vocabulary]`, so they are made a block at a time, and only their
softmax is float32 (`models.one_pass`). A sample whose responses are cut off or cannot be told from the template keeps
its text_loss and vector, has no answer_loss, and `answers` gives the reason.
Cost: a forward pass each; what `answers` reads is as long as the responses.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext, store_of
from nait_assets.measurements.trained import TrainedOutput
from nait_assets.models.answers import AnsweredSample, encode_with_answers, require_offsets
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.batches import Batch, PooledActivations
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import encode, plan
from nait_assets.models.one_pass import End, Part, PassReader, Reading, finite_samples
from nait_assets.models.running import rejected_before, require_context
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel
from nait_assets.tables import VECTOR

if TYPE_CHECKING:
    import torch

PRE_EXPERIENCED_MODEL = TrainedOutput("measurements/pre_experienced_model", place="trained/pre_experienced_model")


class Outputs(Part):
    """Losses and the position-weighted mean of the last hidden state; without losses its plain mean.

    Args:
        losses: Whether to read losses, for which the model needs its head.
    """

    reads_end = True

    def __init__(self, losses: bool = True):
        self.reads_logits = losses

    def start(self, batch: Batch, packing: Packing, dtype: "torch.dtype") -> "_OfBatch":  # noqa: ARG002, D102
        return _OfBatch(batch, packing, self.reads_logits)

    def trial(self) -> tuple[Part, Sequence[str]]:
        """By the loss too: some models scale their logits behind the head, and are read as they are."""
        return self, ("vector", "text_loss") if self.reads_logits else ("vector",)

    def what(self, row: int) -> str:  # noqa: ARG002, D102
        return "outputs"


class _OfBatch(Reading):
    """The outputs of a batch."""

    def __init__(self, batch: Batch, packing: Packing, losses: bool):
        self._batch, self._packing, self._losses = batch, packing, losses
        self._columns: dict[str, torch.Tensor] = {}

    def finish(self, end: End) -> None:
        packing = self._packing
        weights = _weights(packing, increasing=self._losses)
        self._columns = {"vector": to_device(weights, packing.device) @ end.hidden.float()}
        if self._losses:
            losses = end.losses(packing.behind_first)
            for name, members in (("text_loss", None), ("answer_loss", answer_tokens(self._batch))):
                self._columns[name] = to_device(sample_means(packing, members), packing.device) @ losses

    def columns(self) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        return finite_samples(self._columns.values()), self._columns


class OutputReader(PassReader):
    """A model in memory that turns batches into losses and vectors, and nothing else.

    Args:
        model: Model in memory, with its language-model head.
        losses: As of `Outputs`.
        packs: Whether samples are read side by side; found out by a trial by default.
    """

    def __init__(self, model: LoadedModel, losses: bool = True, packs: bool | None = None):
        super().__init__(model, {"": Outputs(losses)}, packs)


def _weights(packing: Packing, increasing: bool) -> np.ndarray:
    """`(n_samples, n_tokens)` float32: weights of each sample's tokens, by index or all the same; they sum to 1."""
    matrix = np.zeros((len(packing.lengths), sum(packing.lengths)), np.float32)
    for row, (begin, end) in enumerate(packing.bounds):
        weights = np.arange(1, end - begin + 1, dtype=np.float64) if increasing else np.ones(end - begin)
        matrix[row, begin:end] = weights / weights.sum()
    return matrix


def sample_means(packing: Packing, members: np.ndarray | None) -> np.ndarray:
    """`(n_samples, n_tokens)` float32 that takes each sample's mean over its members, or over all but its first token.

    A row of a sample without members is 0.
    """
    matrix = np.zeros((len(packing.lengths), sum(packing.lengths)), np.float32)
    for row, (begin, end) in enumerate(packing.bounds):
        indices = np.arange(begin + 1, end)
        indices = indices if members is None else indices[members[begin + 1 : end]]
        matrix[row, indices] = 1 / max(1, len(indices))
    return matrix


def answer_tokens(batch: Batch) -> np.ndarray:
    """`(n_tokens,)` bool of a batch: tokens of responses; of samples that do not say, none."""
    return np.concatenate(
        [
            sample.answers if isinstance(sample, AnsweredSample) else np.zeros(len(sample.token_ids), bool)
            for sample in batch
        ]
    )


def require_outputs(recipe: Recipe, model: LanguageModel) -> None:
    """Find what would keep a model's outputs from being read, before its weights are loaded.

    Raises:
        ModelError: It has no head, or its tokenizer does not fit.
        RecipeError: Its context is shorter than `max_tokens`.
    """
    tokenizer = model.tokenizer()
    require_offsets(tokenizer)
    encode([], tokenizer, recipe.extraction)
    require_context(model.skeleton().config, recipe.extraction.max_tokens)
    model.require_head()


def experienced(context: MeasurementContext) -> LanguageModel:
    """The model that was briefly trained on a few of the candidates."""
    dtype = str(context.model.resolved_dtype()).removeprefix("torch.")
    folder = PRE_EXPERIENCED_MODEL.folder(context.warehouse)
    return LanguageModel(source=str(folder), dtype=dtype, home=context.model.home, device=context.model.device)


def _read(
    context: MeasurementContext,
    missing: pl.DataFrame,
    name: str,
    alone: bool,
    model: Callable[[MeasurementContext], Any],
) -> Iterator[Chunk]:
    """Chunks of outputs, or of answers alone, of one of the two models."""
    settings, found = context.recipe.extraction, model(context)
    samples, refused = encode_with_answers(conversations_of(missing), found.tokenizer(), settings)
    if alone:
        refused += [(sample.sample_id, sample.unanswered) for sample in samples if sample.unanswered]
        samples = [sample.alone() for sample in samples if not sample.unanswered]
    frame = _of_answers if alone else _of_outputs
    if refused:
        yield Chunk(frame([], {}), refused)
    if not samples:
        return
    loaded = found.load_causal()
    require_context(loaded.network.config, settings.max_tokens)
    reader = OutputReader(loaded)
    batch_tokens = context.options.batch_tokens_on(loaded.device.type)
    alone_ids = rejected_before(store_of(context.warehouse, name, context.corpus), context.corpus)
    for shard in plan(samples, batch_tokens, context.options.shard_tokens, alone=alone_ids):
        results = list(reader.read(shard.batches))
        read = [sample for result in results for sample in result.samples if isinstance(sample, AnsweredSample)]
        pooled = [result.pooled for result in results if result.pooled is not None]
        columns = PooledActivations.joined(pooled).columns if pooled else {}
        cost = Cost(n_forward=len(read), n_tokens=sum(len(sample.token_ids) for sample in read))
        yield Chunk(frame(read, columns), [pair for result in results for pair in result.rejected], cost)


OUTPUT_COLUMNS = pl.Schema(
    {
        "n_tokens": pl.Int64(),
        "n_answer_tokens": pl.Int64(),
        "cut": pl.String(),
        "text_loss": pl.Float64(),
        "answer_loss": pl.Float64(),
        "vector": VECTOR,
    }
)
ANSWER_COLUMNS = pl.Schema({"answer_loss_alone": pl.Float64()})


def _of_outputs(samples: Sequence[AnsweredSample], columns: dict[str, np.ndarray]) -> pl.DataFrame:
    counts = [int(sample.answers.sum()) for sample in samples]
    rows = {
        "sample_id": [sample.sample_id for sample in samples],
        "n_tokens": [len(sample.token_ids) for sample in samples],
        "n_answer_tokens": counts,
        "cut": [sample.cut for sample in samples],
        "text_loss": columns["text_loss"] if samples else [],
        "answer_loss": [
            float(loss) if count else None
            for loss, count in zip(columns["answer_loss"] if samples else [], counts, strict=True)
        ],
        "vector": list(columns["vector"]) if samples else [],
    }
    return pl.DataFrame(rows, schema={"sample_id": pl.String(), **OUTPUT_COLUMNS})


def _of_answers(samples: Sequence[AnsweredSample], columns: dict[str, np.ndarray]) -> pl.DataFrame:
    rows = {
        "sample_id": [sample.sample_id for sample in samples],
        "answer_loss_alone": columns["answer_loss"] if samples else [],
    }
    return pl.DataFrame(rows, schema={"sample_id": pl.String(), **ANSWER_COLUMNS})


def _settings(recipe: Recipe) -> list[Any]:
    return [recipe.model, *recipe.extraction.reading]


def _own(context: MeasurementContext) -> LanguageModel:
    return context.model


def _measurement(name: str, description: str, alone: bool, of_trained: bool) -> Measurement:
    return Measurement(
        name=name,
        description=description,
        columns=ANSWER_COLUMNS if alone else OUTPUT_COLUMNS,
        read=functools.partial(_read, name=name, alone=alone, model=experienced if of_trained else _own),
        settings=_settings,
        upstream=(PRE_EXPERIENCED_MODEL.key,) if of_trained else (),
        preflight=require_outputs,
    )


_ALL = (
    "How likely the model finds a sample. One row is one sample: the mean loss of its tokens, that of its responses, "
    "and the position-weighted mean of its last hidden states."
)
_ALONE = (
    "How likely the model finds a sample's responses without what was asked. One row is one sample: the mean loss of "
    "the response tokens alone."
)
_TRAINED = " The model is the pre-experienced one, briefly trained on a few of the candidates."
MEASUREMENTS = (
    _measurement("outputs", _ALL, alone=False, of_trained=False),
    _measurement("answers", _ALONE, alone=True, of_trained=False),
    _measurement("experienced_outputs", _ALL + _TRAINED, alone=False, of_trained=True),
    _measurement("experienced_answers", _ALONE + _TRAINED, alone=True, of_trained=True),
)
