"""How likely a model finds the answers of a task's examples: the mean negative log-likelihood of their tokens, in nats.

Examples are read as they are everywhere in the project: the same template, and the same answers' tokens as in losses
and gradients, without the token that ends a turn. Read side by side without padding, no example sees another, so that
a loss does not depend on the batch, save for rounding. The head is applied to the answers' tokens alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError
from nait_assets.evaluation.tables import EXAMPLES
from nait_assets.losses import kinds_of_reasons
from nait_assets.measurements.outputs import Outputs, answer_tokens, sample_means
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.batches import Batch
from nait_assets.models.encoding import plan
from nait_assets.models.one_pass import End, Part, PassReader, Reading, finite_samples
from nait_assets.recipe import Extraction
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

METRIC = "loss"


class AnswerLosses(Part):
    """The mean loss of each sample's answer, the column `loss`."""

    reads_end = reads_logits = True

    def start(self, batch: Batch, packing: Packing, dtype: "torch.dtype") -> "_OfBatch":  # noqa: ARG002, D102
        return _OfBatch(batch, packing)

    def trial(self) -> tuple[Part, Sequence[str]]:
        """What the model says of all tokens: the samples of a trial have no answers."""
        return Outputs().trial()

    def what(self, row: int) -> str:  # noqa: ARG002, D102
        return "losses"


class _OfBatch(Reading):
    """The losses of a batch."""

    def __init__(self, batch: Batch, packing: Packing):
        self._answers, self._packing = answer_tokens(batch), packing
        self._columns: dict[str, torch.Tensor] = {}

    def finish(self, end: End) -> None:
        device = self._packing.device
        means = to_device(sample_means(self._packing, self._answers), device) @ end.losses(self._answers)
        self._columns = {METRIC: means}

    def columns(self) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        return finite_samples(self._columns.values()), self._columns


class AnswerReader(PassReader):
    """A model in memory that turns batches into the losses of answers.

    Args:
        model: Model in memory, with its language-model head.
        packs: Whether samples are read side by side; found out by a trial by default.
    """

    def __init__(self, model: LoadedModel, packs: bool | None = None):
        super().__init__(model, {"": AnswerLosses()}, packs)


def encoded(
    conversations: Sequence[tuple[str, Conversation]], tokenizer: Any, extraction: Extraction
) -> tuple[list[AnsweredSample], list[tuple[str, str]]]:
    """A task's examples as the model reads them, and pairs of `sample_id` and reason of those without an answer.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        extraction: How conversations are written out, and their most tokens.

    Raises:
        DataError: Not one has an answer that is read.
    """
    samples, refused = encode_with_answers(conversations, tokenizer, extraction)
    refused += [
        (sample.sample_id, sample.unanswered.replace("extraction.max_tokens", "evaluation.max_tokens"))
        for sample in samples
        if sample.unanswered
    ]
    answered = [sample for sample in samples if not sample.unanswered]
    if not answered:
        (reason, _), *_ = kinds_of_reasons([(reason, 1) for _, reason in refused] or [("it has no examples", 1)])
        raise DataError(f"no example of the task has an answer whose loss can be taken: {reason}.")
    return answered, refused


def answer_losses(samples: Sequence[AnsweredSample], reader: AnswerReader, batch_tokens: int) -> pl.DataFrame:
    """Rows of `tables.EXAMPLES` but the key: the mean loss of each example's answer, its number of tokens the weight.

    Args:
        samples: Examples with answers.
        reader: Model in memory.
        batch_tokens: Most tokens that are read at once.

    Raises:
        NumericalError: A loss is NaN or infinite.
    """
    rows = []
    for shard in plan(samples, batch_tokens, shard_tokens=batch_tokens):
        for result in reader.read(shard.batches):
            if result.rejected:
                name, reason = result.rejected[0]
                raise DataError(f"the example {name} of a task cannot be read: {reason}.")
            assert result.pooled is not None
            for sample, loss in zip(result.samples, result.pooled.columns[METRIC], strict=True):
                assert isinstance(sample, AnsweredSample)
                rows.append((sample.sample_id, METRIC, float(loss), float(sample.answers.sum())))
    written = EXAMPLES.written_columns
    return pl.DataFrame(rows, schema=written, orient="row").sort("sample_id")
