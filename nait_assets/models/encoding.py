"""Conversations as token ids, and token ids as batches: what the model is going to read, in which order."""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from nait_assets.conversation import Conversation
from nait_assets.errors import ModelError, RecipeError, UserError
from nait_assets.models.rendering import Renderer, unshown_parts
from nait_assets.models.spans import is_response, prompt_spans, response_spans
from nait_assets.models.truncation import without_the_middle
from nait_assets.recipe import Extraction, fingerprint

Cut = Literal["", "prompt", "answer"]


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """One example as the model reads it.

    Attributes:
        sample_id: Id of the conversation.
        token_ids: `(n_tokens,)` int32; the first is the beginning-of-sequence token, or what stands for it.
        cut: What was left out to fit the recipe's `max_tokens`: "" nothing; `prompt`, the middle of the prompt;
            `answer`, the end, where the answer stands.
        n_answers: Number of responses of the conversation.
        n_answers_whole: Number of them that are read whole; None where the template rewrites them, so that a cut
            sample's cannot be told.
        unshown: What of the conversation the template does not show, such as "tool calls"; "" if it shows all.
    """

    sample_id: str
    token_ids: np.ndarray
    cut: Cut = ""
    n_answers: int = field(default=1, kw_only=True)
    n_answers_whole: int | None = field(default=1, kw_only=True)
    unshown: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Fitted:
    """The tokens that are read of a conversation.

    Attributes:
        token_ids: `(n_tokens,)` int32.
        cut: As of a sample.
        n_answers: As of a sample.
        n_answers_whole: As of a sample.
        answers: `(n_tokens,)` bool, tokens of responses; None where they cannot be told, or were not asked for.
        n_before: Tokens in front of the first response, of those that would be read if there were room for all.
    """

    token_ids: np.ndarray
    cut: Cut
    n_answers: int
    n_answers_whole: int | None
    answers: np.ndarray | None = None
    n_before: int = 0

    def of_sample(self) -> dict[str, Any]:
        """Fields of a sample that these tokens are read of."""
        return {name: getattr(self, name) for name in ("token_ids", "cut", "n_answers", "n_answers_whole")}


class Refused(Exception):
    """A conversation that is not read; the message is the reason."""


@dataclass(frozen=True)
class _Tokens:
    """A conversation's tokens, the indices of each answer's, and of those that are kept."""

    ids: np.ndarray
    answers: list[np.ndarray]
    kept: np.ndarray


class Encoder:
    """A tokenizer, and how the recipe's extraction has conversations read.

    The first token of a causal model is an attention sink: its activations are enormous, and averaged in they make
    every score a function of length. So every sample begins with a token that is left out of the mean: the
    beginning-of-sequence token, which is put in front where the template does not.

    Args:
        tokenizer: Tokenizer of the model.
        extraction: Its `max_tokens`, template, date, `truncate` and `unshown` are read.

    Raises:
        RecipeError: The tokenizer has no chat template.
        ModelError: It has no token that can begin a sequence.
    """

    def __init__(self, tokenizer: Any, extraction: Extraction):
        self.tokenizer, self.extraction = tokenizer, extraction
        self.renderer = Renderer.of(tokenizer, extraction)
        if self.renderer.template != "plain" and not tokenizer.chat_template:
            raise RecipeError("extraction.template: the model's tokenizer has no chat template; use `template: plain`.")
        self._first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if self._first is None:
            raise ModelError(
                "the model's tokenizer has neither a beginning- nor an end-of-sequence token to begin a sequence with."
            )

    def sample(self, sample_id: str, conversation: Conversation) -> EncodedSample:
        """A conversation's sample.

        Raises:
            Refused: It is not read.
        """
        fitted, unshown = self.fitted(conversation)
        return EncodedSample(sample_id, **fitted.of_sample(), unshown=unshown)

    def fitted(self, conversation: Conversation, locate: bool = False) -> tuple[Fitted, str]:
        """The tokens that are read of a conversation, and what of it the template does not show.

        Args:
            conversation: The conversation.
            locate: Whether its responses are looked for though all of it is read.

        Raises:
            Refused: The template refuses it, or the recipe does.
        """
        most = self.extraction.max_tokens
        text = self._text(conversation)
        unshown = unshown_parts(conversation, text)
        if unshown and self.extraction.unshown == "refuse":
            raise Refused(f"the template does not show its {unshown}")
        ids = self._token_ids(text)
        if len(ids) < 2:
            raise Refused("no tokens after the template")
        n_answers = sum(map(is_response, conversation.messages))
        if len(ids) > most and self.extraction.truncate == "refuse":
            raise Refused(
                f"it has {len(ids)} tokens, more than extraction.max_tokens: {most}; a larger one, or `truncate: "
                "prompt`, reads it"
            )
        if len(ids) <= most and not locate:
            return Fitted(ids, "", n_answers, n_answers), unshown
        answers = self._indices(text, response_spans(conversation, self.renderer, text))
        if answers is None:
            cut: Cut = "answer" if len(ids) > most else ""
            return Fitted(ids[:most], cut, n_answers, None if cut else n_answers), unshown
        tokens = _Tokens(ids, answers, np.arange(len(ids)))
        if len(ids) > most and self.extraction.truncate == "prompt":
            tokens = self._with_the_answers(conversation, text, tokens)
        return _fitted(tokens, n_answers, len(ids) > most, self.extraction), unshown

    def _text(self, conversation: Conversation) -> str:
        try:
            return self.renderer.text(conversation)
        except UserError:
            raise
        except Exception as error:
            raise Refused(f"the chat template refuses it: {error}; {self._remedy(conversation)}") from error

    def _remedy(self, conversation: Conversation) -> str:
        """What of a recipe would let a refused conversation be read."""
        plain = "`extraction: {template: plain}` or another model reads it"
        if self.renderer.template != "chat" or all(message.role != "system" for message in conversation.messages):
            return plain
        try:
            self.renderer.folding().text(conversation)
        except Exception:  # noqa: BLE001  a template may raise whatever its author wrote
            return plain
        return f"`extraction: {{system: fold}}`, {plain}"

    def _token_ids(self, text: str) -> np.ndarray:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return np.asarray(ids if ids and ids[0] == self._first else [self._first, *ids], np.int32)

    def _indices(self, text: str, spans: list[tuple[int, int]] | None, inside: bool = False) -> list[np.ndarray] | None:
        """Indices of the tokens of each span; None where there are no spans, or the tokenizer does not tell.

        Args:
            text: The text that the spans are of.
            spans: First character, and the one after the last.
            inside: Whether a token has to lie in a span with all of its characters, or with one.
        """
        if spans is None or not getattr(self.tokenizer, "is_fast", False):
            return None
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        begins, ends = np.asarray(tokens["offset_mapping"], np.int64).reshape(-1, 2).T
        if tokens["input_ids"][:1] != [self._first]:  # a token that begins the sequence was put in front
            begins, ends = (np.concatenate([[0], each]) for each in (begins, ends))
        of_text = ends > begins
        of_text[0] = False  # nothing stands before it to predict it from
        if inside:
            return [np.flatnonzero(of_text & (begins >= begin) & (ends <= end)) for begin, end in spans]
        return [np.flatnonzero(of_text & (begins < end) & (ends > begin)) for begin, end in spans]

    def _with_the_answers(self, conversation: Conversation, text: str, tokens: _Tokens) -> _Tokens:
        """The prompt's middle left out; where the answers do not fit even so, of the longest beginning that fits.

        A beginning ends with a response. If the first alone is too long, it is that one, and its end is cut.
        """
        most, found = self.extraction.max_tokens, self._shortened(conversation, text, tokens)
        ends = [place + 1 for place, message in enumerate(conversation.messages) if is_response(message)]
        if len(found.kept) <= most or len(ends) < 2:
            return found
        low, high, best = 0, len(ends) - 1, None
        while low < high:  # the first `low` responses fit, the first `high` + 1 do not
            middle = (low + high + 1) // 2
            tried = self._beginning(conversation, ends[middle - 1])
            if tried is not None and len(tried.kept) <= most:
                low, best = middle, tried
            else:
                high = middle - 1
        return best or self._beginning(conversation, ends[0]) or found

    def _beginning(self, conversation: Conversation, end: int) -> _Tokens | None:
        """A conversation's first messages with the prompt's middle left out; None where the template refuses them."""
        beginning = replace(conversation, messages=conversation.messages[:end])
        try:
            text = self._text(beginning)
        except Refused:
            return None
        answers = self._indices(text, response_spans(beginning, self.renderer, text))
        if answers is None:
            return None
        ids = self._token_ids(text)
        return self._shortened(beginning, text, _Tokens(ids, answers, np.arange(len(ids))))

    def _shortened(self, conversation: Conversation, text: str, tokens: _Tokens) -> _Tokens:
        prompts = self._indices(text, prompt_spans(conversation, self.renderer, text), inside=True)
        if prompts is not None:  # a token across the edge of an answer is the answer's
            taken = np.concatenate([*tokens.answers, np.zeros(0, np.int64)])
            prompts = [np.setdiff1d(part, taken) for part in prompts]
        kept = without_the_middle(len(tokens.ids), prompts, tokens.answers, self.extraction.max_tokens)
        return replace(tokens, kept=kept)


def _fitted(tokens: _Tokens, n_answers: int, too_long: bool, extraction: Extraction) -> Fitted:
    """What is read of a conversation whose answers are known: the kept tokens, at most `max_tokens` of them."""
    is_answer = np.zeros(len(tokens.ids), bool)
    for part in tokens.answers:
        is_answer[part] = True
    kept = tokens.kept[: extraction.max_tokens]
    is_kept = np.zeros(len(tokens.ids), bool)
    is_kept[kept] = True
    n_whole = sum(bool(is_kept[part].all()) for part in tokens.answers) if too_long else n_answers
    cut: Cut = "prompt" if extraction.truncate == "prompt" and n_whole == n_answers else "answer"
    return Fitted(
        tokens.ids[kept],
        cut if too_long else "",
        n_answers,
        n_whole,
        is_answer[kept],
        int(is_answer[tokens.kept].argmax()),
    )


def encode(
    conversations: Iterable[tuple[str, Conversation | Sequence[Mapping[str, Any]]]],
    tokenizer: Any,
    extraction: Extraction,
) -> tuple[list[EncodedSample], list[tuple[str, str]]]:
    """Tokenise conversations.

    Args:
        conversations: Pairs of `sample_id` and conversation.
        tokenizer: Tokenizer of the model.
        extraction: The recipe's: how they are written out, and what gives way where one is too long.

    Returns:
        The samples, and pairs of `sample_id` and reason for those that the chat template or the recipe refuses.

    Raises:
        RecipeError: The tokenizer has no chat template.
        ModelError: It has no token that can begin a sequence.
    """
    encoder = Encoder(tokenizer, extraction)
    return readable(conversations, encoder.sample)


Sample = TypeVar("Sample", bound=EncodedSample)


def readable(
    conversations: Iterable[tuple[str, Conversation | Sequence[Mapping[str, Any]]]],
    sample_of: Callable[[str, Conversation], Sample],
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """The samples of conversations, and pairs of `sample_id` and reason of those that are refused."""
    samples, refused = [], []
    for sample_id, given in conversations:
        try:
            samples.append(sample_of(sample_id, Conversation.of(given)))
        except Refused as error:
            refused.append((sample_id, str(error)))
    return samples, refused


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
