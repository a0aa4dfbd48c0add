"""Conversations as token ids, and token ids as batches: what the model is going to read, in which order."""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nait_assets.conversation import Conversation
from nait_assets.errors import ModelError, RecipeError, UserError
from nait_assets.models.chat_template import rendered
from nait_assets.recipe import fingerprint

Rendering = Literal["chat", "plain", "folded"]
"""The model's chat template, plain headings, or the chat template with system texts in front of user turns."""
PLAIN_HEADINGS = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n", "tool": "### Tool:\n"}


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """One example as the model reads it.

    Attributes:
        sample_id: Id of the conversation.
        token_ids: `(n_tokens,)` int32; the first is the beginning-of-sequence token, or what stands for it.
        truncated: Whether the conversation was cut to the recipe's `max_tokens`.
        unshown: What of the conversation the template does not show, such as "tool calls"; "" if it shows all.
    """

    sample_id: str
    token_ids: np.ndarray
    truncated: bool
    unshown: str = field(default="", kw_only=True)


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


def encode(
    conversations: Iterable[tuple[str, Conversation | Sequence[Mapping[str, Any]]]],
    tokenizer: Any,
    template: Rendering,
    max_tokens: int,
    unshown: Literal["use", "refuse"] = "use",
) -> tuple[list[EncodedSample], list[tuple[str, str]]]:
    """Tokenise conversations.

    The first token of a causal model is an attention sink: its activations are enormous, and averaged in they make
    every score a function of length. So every sample begins with a token that is left out of the mean: the
    beginning-of-sequence token, which is put in front where the template does not.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        template: The model's chat template, with system messages as they are or folded into user turns; or plain
            headings in the manner of Alpaca.
        max_tokens: Tokens read of each example, the first one included.
        unshown: What becomes of a conversation of which the template does not show something.

    Returns:
        The samples, and pairs of `sample_id` and reason for those that the chat template refuses.

    Raises:
        RecipeError: The tokenizer has no chat template.
        ModelError: It has no token that can begin a sequence.
    """
    if template != "plain" and not tokenizer.chat_template:
        raise RecipeError("extraction.template: the model's tokenizer has no chat template; use `template: plain`.")
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise ModelError(
            "the model's tokenizer has neither a beginning- nor an end-of-sequence token to begin a sequence with."
        )
    samples, refused = [], []
    for identity, given in conversations:
        conversation = Conversation.of(given)
        try:
            text = render(conversation, tokenizer, template)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  a template may raise whatever its author wrote
            refused.append(
                (identity, f"the chat template refuses it: {error}; {_remedy(conversation, tokenizer, template)}")
            )
            continue
        missing = unshown_parts(conversation, text)
        if missing and unshown == "refuse":
            refused.append((identity, f"the template does not show its {missing}"))
            continue
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or ids[0] != first:
            ids = [first, *ids]
        if len(ids) < 2:
            refused.append((identity, "no tokens after the template"))
            continue
        token_ids = np.asarray(ids[:max_tokens], np.int32)
        samples.append(EncodedSample(identity, token_ids, len(ids) > max_tokens, unshown=missing))
    return samples, refused


def render(
    given: Conversation | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    template: Rendering,
    generation: bool = False,
) -> str:
    """A conversation as one text; raises whatever the chat template does.

    Args:
        given: The conversation, or its messages.
        tokenizer: The model's tokenizer.
        template: As for `encode`; a chat template gets tools and calls where it takes them.
        generation: Whether the text ends where the next response would begin.
    """
    conversation = Conversation.of(given)
    if template == "plain":
        return plain_text(conversation.plain())
    if template == "folded":
        conversation = conversation.folded()
    written = str(tokenizer.chat_template)
    messages = [message.for_template(lambda key: key in written) for message in conversation.messages]
    return rendered(tokenizer, messages, conversation.tool_list, generation)


def _remedy(conversation: Conversation, tokenizer: Any, template: Rendering) -> str:
    """What of a recipe would let a refused conversation be read."""
    plain = "`extraction: {template: plain}` or another model reads it"
    if template != "chat" or all(message.role != "system" for message in conversation.messages):
        return plain
    try:
        render(conversation, tokenizer, "folded")
    except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
        return plain
    return f"`extraction: {{system: fold}}`, {plain}"


def unshown_parts(conversation: Conversation, text: str) -> str:
    """Which parts of a conversation are not in the text that a template made of it; "" if all are.

    A template may leave out what was thought before earlier answers: some of it is enough.
    """
    thoughts = [message.reasoning for message in conversation.messages if message.reasoning]
    calls = [call["name"] for message in conversation.messages for call in message.calls]
    tools = [str(tool["function"].get("name")) for tool in conversation.tool_list]
    missing = {
        "reasoning": thoughts and not any(thought in text for thought in thoughts),
        "tool calls": not all(name in text for name in calls),
        "tools": not all(name in text for name in tools) or (conversation.tools and not tools),
    }
    return " and ".join(name for name, is_missing in missing.items() if is_missing)


def plain_text(messages: Sequence[Mapping[str, str]]) -> str:
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
