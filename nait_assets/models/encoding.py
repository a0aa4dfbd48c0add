"""Conversations as token ids, and token ids as batches: what the model is going to read, in which order."""

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from nait_assets.errors import ModelError, RecipeError
from nait_assets.recipe import fingerprint

PLAIN_HEADINGS = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n", "tool": "### Tool:\n"}


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """One example as the model reads it.

    Attributes:
        sample_id: Id of the conversation.
        token_ids: `(n_tokens,)` int32; the first is the beginning-of-sequence token, or what stands for it.
        truncated: Whether the conversation was cut to the recipe's `max_tokens`.
    """

    sample_id: str
    token_ids: np.ndarray
    truncated: bool


@dataclass(frozen=True)
class Shard:
    """Batches that are stored together: what a killed run loses at most.

    Attributes:
        batches: Each a list of samples of similar length.
        name: Hash of the samples and of how they are batched, so that a shard on disk is known to be this one.
    """

    batches: tuple[tuple[EncodedSample, ...], ...]
    name: str

    @property
    def samples(self) -> list[EncodedSample]:
        """All samples, in order."""
        return [sample for batch in self.batches for sample in batch]

    @property
    def n_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(len(sample.token_ids) for sample in self.samples)


def conversations_of(samples: pl.DataFrame) -> list[tuple[str, list[dict[str, str]]]]:
    """Pairs of `sample_id` and messages, of a frame with these two columns."""
    return list(zip(samples["sample_id"].to_list(), samples["messages"].to_list(), strict=True))


def encode(
    conversations: Iterable[tuple[str, list[dict[str, str]]]],
    tokenizer: Any,
    template: Literal["chat", "plain"],
    max_tokens: int,
) -> tuple[list[EncodedSample], list[tuple[str, str]]]:
    """Tokenise conversations.

    The first token of a causal model is an attention sink: its activations are enormous, and averaged in they make
    every score a function of length. So every sample begins with a token that is left out of the mean: the
    beginning-of-sequence token, which is put in front where the template does not.

    Args:
        conversations: Pairs of `sample_id` and messages.
        tokenizer: Tokenizer of the model.
        template: The model's chat template, or plain headings in the manner of Alpaca.
        max_tokens: Tokens read of each example, the first one included.

    Returns:
        The samples, and pairs of `sample_id` and reason for those that the chat template refuses.

    Raises:
        RecipeError: The tokenizer has no chat template.
        ModelError: It has no token that can begin a sequence.
    """
    if template == "chat" and not tokenizer.chat_template:
        raise RecipeError("extraction.template: the model's tokenizer has no chat template; use `template: plain`.")
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise ModelError(
            "the model's tokenizer has neither a beginning- nor an end-of-sequence token to begin a sequence with."
        )
    samples, refused = [], []
    for identity, messages in conversations:
        try:
            text = render(messages, tokenizer, template)
        except Exception as error:  # noqa: BLE001  a template may raise whatever its author wrote
            refused.append((identity, f"the chat template refuses it: {error}"))
            continue
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or ids[0] != first:
            ids = [first, *ids]
        if len(ids) < 2:
            refused.append((identity, "no tokens after the template"))
            continue
        samples.append(EncodedSample(identity, np.asarray(ids[:max_tokens], np.int32), len(ids) > max_tokens))
    return samples, refused


def render(messages: Sequence[dict[str, str]], tokenizer: Any, template: Literal["chat", "plain"]) -> str:
    """A conversation as one text; raises whatever the chat template does."""
    if template == "plain":
        return plain_text(messages)
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False))


def plain_text(messages: Sequence[dict[str, str]]) -> str:
    """A conversation under plain headings, for models without a chat template."""
    return "\n\n".join(PLAIN_HEADINGS[message["role"]] + message["content"] for message in messages)


def plan(
    samples: Sequence[EncodedSample],
    batch_tokens: int,
    shard_tokens: int,
    shard_samples: float = math.inf,
    alone: Container[str] = (),
) -> list[Shard]:
    """Shards of batches: samples by length, longest first, as many to a batch as the budget holds.

    Longest first: a batch that does not fit in memory fails at the beginning. The plan depends on the samples and the
    budgets alone, so a run that is begun again makes the same batches.

    Args:
        samples: Samples in any order.
        batch_tokens: Most tokens of a batch; a longer sample is a batch of its own.
        shard_tokens: Most tokens of a shard; a larger batch is a shard of its own.
        shard_samples: Most samples of a shard, which its size in bytes depends on; a batch with more is a shard of its
            own.
        alone: Sample ids that are batches of their own, behind the others: those that failed before, as a batch of
            which every sample fails would end the run.
    """
    failed = [sample for sample in samples if sample.sample_id in alone]
    if failed:
        others = [sample for sample in samples if sample.sample_id not in alone]
        together = plan(others, batch_tokens, shard_tokens, shard_samples)
        return together + plan(failed, 1, shard_tokens, shard_samples)
    ordered = sorted(samples, key=lambda sample: (-len(sample.token_ids), sample.sample_id))
    batches = _filled(ordered, lambda sample: (len(sample.token_ids),), (batch_tokens,))
    shards = _filled(
        batches,
        lambda batch: (sum(len(sample.token_ids) for sample in batch), len(batch)),
        (shard_tokens, shard_samples),
    )
    return [
        Shard(tuple(map(tuple, batches)), fingerprint([[sample.sample_id for sample in batch] for batch in batches]))
        for batches in shards
    ]


def _filled(items: Sequence[Any], sizes: Callable[[Any], tuple[int, ...]], most: tuple[float, ...]) -> list[list[Any]]:
    """Items in their order, in groups none of whose sizes is over its limit; a larger item is a group of its own."""
    groups: list[list[Any]] = []
    room: tuple[float, ...] = ()
    for item in items:
        size = sizes(item)
        if not groups or any(need > left for need, left in zip(size, room, strict=True)):
            groups.append([])
            room = most
        groups[-1].append(item)
        room = tuple(left - need for need, left in zip(size, room, strict=True))
    return groups
