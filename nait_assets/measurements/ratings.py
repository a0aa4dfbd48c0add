"""Ratings: how probable a model finds each mark from 1 to 5 for an example: what SelectIT scores by.

arXiv 2402.16705. The model is shown the example and asked for a mark, in five wordings of one question (ours; the
paper's idea is that a sure model gives the same mark whatever the wording). P(1) to P(5) are the probabilities of the
five digits as its next token, renormalised over the five: softmax of the five logits. The published code takes a
softmax of these probabilities once more, which flattens every rating to nearly a fifth; we do not. It knows the digits
by Llama 2's token numbers, and where a prompt fails every later score moves up one place; here digits are looked up,
and a rating keeps its sample and wording.

Which token a digit is: the one that this tokenizer writes where the assistant's reply begins, in the conversation as
the template shows it, so with or without a space as the model would say it. A tokenizer that needs several is refused.
A conversation has `extraction.max_tokens` tokens, as everywhere, or what the model's context leaves beside the
question; what gives way is as `extraction.truncate` says, never the question.

Cost: five forward passes a sample and model, each about a hundred tokens longer than the sample; logits of the last
token only. Several models are in memory at once, so that a row is whole when it is stored.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.conversation import messages_of
from nait_assets.errors import ModelError, NumericalError, RecipeError
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext, store_of
from nait_assets.models.attention import to_device
from nait_assets.models.batches import Batch, BatchReader, can_be_packed, require_known_tokens
from nait_assets.models.cost import Cost
from nait_assets.models.encoding import Cut, EncodedSample, plan
from nait_assets.models.libraries import LIBRARIES
from nait_assets.models.rendering import Renderer
from nait_assets.models.running import model_inputs, rejected_before
from nait_assets.models.truncation import without_the_middle
from nait_assets.recipe import Extraction, ModelSpec, Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel
from nait_assets.tables import VECTOR

if TYPE_CHECKING:
    import torch

QUESTIONS = (
    "Rate the quality of the response to the instruction. Answer with one digit from 1 (poor) to 5 (excellent).",
    "How well does the response meet the instruction? Give a mark from 1 (not at all) to 5 (fully), the digit alone.",
    "On a scale from 1 to 5, where 5 is best, how good is this answer to what was asked? Reply with the number only.",
    "Which grade does this response deserve: 1 (bad), 2 (weak), 3 (fair), 4 (good) or 5 (very good)? Say the digit.",
    "Judge how accurate, helpful and clear the response is as a whole. Write a score from 1 (lowest) to 5 (highest).",
)
MARKS = ("1", "2", "3", "4", "5")
HEADINGS = {"system": "System", "user": "Instruction", "assistant": "Response", "tool": "Tool"}
SAMPLES_OF_PART = 16
MODELS_FIELD = "measurements.ratings.models"
SEAM = 8
"""Tokens that a conversation may grow by when it is cut and written into the question."""
COLUMNS = pl.Schema({"ratings": VECTOR, "n_parameters": pl.List(pl.Int64()), "cut": pl.String()})


class RatingsOptions(MeasurementOptions):
    """Which models rate."""

    section = "ratings"
    models: tuple[ModelSpec, ...] = Field(
        (), description="Models that rate, all in memory at once; the recipe's by default."
    )


@dataclass(frozen=True, eq=False)
class RatedPrompt(EncodedSample):
    """A sample in one wording of the question, up to where the mark stands.

    Attributes:
        question: Index of the wording.
    """

    question: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Marks:
    """How a tokenizer writes the marks in a reply.

    Attributes:
        token_ids: Token ids of the five digits.
        n_behind: Tokens behind the digit, such as the one that ends the turn.
        n_room: Tokens that a conversation may have.
    """

    token_ids: tuple[int, ...]
    n_behind: int
    n_room: int


class Asker:
    """A tokenizer, and the template by which it writes the five questions about a conversation.

    Args:
        tokenizer: Tokenizer of the model.
        name: Name of the model, for errors.
        extraction: Most tokens of a conversation, what gives way where it has more, and how the question is written.
        context: Tokens that the model can read; None where it does not say.

    Raises:
        RecipeError: The tokenizer has no chat template.
        ModelError: It has nothing to begin a sequence with, or several tokens for a digit, or the model's context has
            no room for a conversation.
    """

    def __init__(self, tokenizer: Any, name: str, extraction: Extraction, context: int | None):
        self.tokenizer, self.truncate, self.context = tokenizer, extraction.truncate, context
        self.renderer = Renderer(tokenizer, extraction.template, extraction.template_date)
        max_tokens = extraction.max_tokens
        if extraction.template == "chat" and not tokenizer.chat_template:
            raise RecipeError(f"extraction.template: the tokenizer of {name!r} has no chat template; use `plain`.")
        bos = tokenizer.bos_token_id
        self.first = bos if bos is not None else tokenizer.eos_token_id
        if self.first is None:
            raise ModelError(f"the tokenizer of {name!r} has no token to begin a sequence with.")
        token_ids, n_behind = self._digits(name)
        longest = max(len(self._token_ids("", question, "1")) for question in QUESTIONS)
        room = max_tokens if context is None else min(max_tokens, context - longest - SEAM)
        if room < SEAM:
            raise ModelError(
                f"{MODELS_FIELD}: the context of {name!r}, {context} tokens, has no room for a conversation beside "
                f"the question's {longest}. Name a model with a longer context."
            )
        self.marks = Marks(token_ids, n_behind, room)

    def prompts(self, sample_id: str, messages: Sequence[dict[str, str]]) -> list[RatedPrompt]:
        """The five prompts about a conversation.

        Raises:
            ValueError: The mark of one is not where it should be, or the recipe refuses what is too long; the message
                is the reason.
        """
        text, cut = self._fitted(messages)
        found = []
        for index, question in enumerate(QUESTIONS):
            token_ids = self._token_ids(text, question, "1")
            end = len(token_ids) - 1 - self.marks.n_behind
            if end < 2 or token_ids[end] != self.marks.token_ids[0]:
                raise ValueError(f"question {index + 1} about it does not end where the mark stands")
            if self.context is not None and end > self.context:
                raise ValueError(
                    f"question {index + 1} about it has {end} tokens, more than the model's {self.context}"
                )
            found.append(RatedPrompt(sample_id, np.asarray(token_ids[:end], np.int32), cut, question=index))
        return found

    def _digits(self, name: str) -> tuple[tuple[int, ...], int]:
        """Token ids of the five digits in a reply, and how many tokens stand behind them."""
        written = np.asarray([self._token_ids("a", QUESTIONS[0], mark) for mark in MARKS], dtype=object)
        lengths = {len(token_ids) for token_ids in written}
        differ = [index for index in range(min(lengths)) if len({token_ids[index] for token_ids in written}) > 1]
        digits = [token_ids[differ[0]] for token_ids in written] if differ else []
        if len(lengths) > 1 or len(differ) != 1 or len(set(digits)) != len(MARKS):
            raise ModelError(
                f"{MODELS_FIELD}: the tokenizer of {name!r}, {type(self.tokenizer).__name__}, does not write each "
                "digit from 1 to 5 as a single token of its own, so that none has a probability. Name another model."
            )
        return tuple(int(digit) for digit in digits), lengths.pop() - 1 - differ[0]

    def _fitted(self, messages: Sequence[dict[str, str]]) -> tuple[str, Cut]:
        """A conversation's text, cut to the tokens that there is room for, and what of it gave way."""
        text, room = conversation_text(messages), self.marks.n_room
        token_ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(token_ids) <= room:
            return text, ""
        if self.truncate == "refuse":
            raise ValueError(f"it has {len(token_ids)} tokens, and there is room for {room}")
        if self.truncate == "prompt" and self.tokenizer.is_fast:
            shorter, is_whole = self._without_the_middle(text, messages)
            if is_whole:
                return shorter, "prompt"
            text = shorter
            token_ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        cut = self.tokenizer.decode(token_ids[:room], clean_up_tokenization_spaces=False)
        return cut.rstrip("\ufffd"), "answer"  # a letter of several tokens may have been cut in two

    def _without_the_middle(self, text: str, messages: Sequence[dict[str, str]]) -> tuple[str, bool]:
        """The text without the middle of what is no response, and whether there is room for what is left."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        begins, ends = np.asarray([(0, 0), *offsets], np.int64).T  # the first token is always kept: here none
        parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
        begin = 0
        for message in messages:
            begin += len(HEADINGS[message["role"]]) + 2
            end = begin + len(message["content"])
            tokens = np.flatnonzero((ends > begins) & (begins >= begin) & (ends <= end))
            parts[message["role"] == "assistant"].append(tokens)
            begin = end + 2
        kept = without_the_middle(len(begins), parts[False], parts[True], self.marks.n_room + 1)
        runs = np.split(kept[1:], np.flatnonzero(np.diff(kept[1:]) > 1) + 1)
        shorter = "".join(text[begins[run[0]] : ends[run[-1]]] for run in runs)
        return shorter, len(kept) <= self.marks.n_room + 1

    def _token_ids(self, text: str, question: str, reply: str) -> list[int]:
        """The question about a conversation's text and the reply to it, as the model would have read them."""
        messages = [
            {"role": "user", "content": f"{text}\n\n{question}"},
            {"role": "assistant", "content": reply},
        ]
        shown = self.renderer.text(messages)
        token_ids = list(self.tokenizer(shown, add_special_tokens=False)["input_ids"])
        return token_ids if token_ids and token_ids[0] == self.first else [self.first, *token_ids]


def conversation_text(messages: Sequence[dict[str, str]]) -> str:
    """A conversation under headings."""
    return "\n\n".join(f"{HEADINGS[message['role']]}:\n{message['content']}" for message in messages)


class RatingReader(BatchReader):
    """A model in memory that gives the probabilities of the five digits as the next token.

    Samples of a batch are filled up on the right: a causal model does not see what stands behind a token, so the
    logits at a sample's own last token are those that it has alone. A trial finds out whether that is so.

    Args:
        model: Model in memory, with its language-model head.
        digits: Token ids.
        packs: Whether several samples are read at once; found out by a trial by default.
    """

    def __init__(self, model: LoadedModel, digits: Sequence[int], packs: bool | None = None):
        self.digits = list(digits)
        if packs is None:
            packs = can_be_packed(model, lambda packs: RatingReader(model, digits, packs), "rating")
        super().__init__(model, packs)

    def _forward(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """Which samples are finite `(1, n_samples)`, and `rating`, `(n_samples, 5)`, on the device."""
        import torch

        lengths = [len(sample.token_ids) for sample in batch]
        numbers = np.zeros((len(batch), max(lengths)), np.int64)
        for row, sample in enumerate(batch):
            numbers[row, : lengths[row]] = sample.token_ids
        require_known_tokens(numbers, self.model.network)
        last, indices = np.unique(np.asarray(lengths) - 1, return_inverse=True)
        device = self.model.device
        logits = self.model.network(
            input_ids=to_device(numbers, device), logits_to_keep=to_device(last, device), use_cache=False
        ).logits  # (n_samples, n_last, vocabulary)
        rows = torch.arange(len(batch), device=device)
        chosen = logits[rows, to_device(indices, device)][:, self.digits].float()
        return torch.isfinite(chosen).all(dim=1)[None], {"rating": chosen.softmax(dim=1)}

    def _name_the_broken(self, batch: Batch) -> None:
        import torch

        with torch.inference_mode():
            broken = sorted({sample.sample_id for sample in batch if not self._forward([sample])[0].all()})
        names = ", ".join((broken or [sample.sample_id for sample in batch])[:10])
        raise NumericalError(
            f"NaN or infinite logits for sample(s) {names}. Nothing was stored of them. Try `dtype: float32` of the "
            "model, or look at the weights."
        )


def models_of(recipe: Recipe, model: LanguageModel) -> list[tuple[ModelSpec, LanguageModel]]:
    """The models that rate, in the recipe's order: its own where `measurements.ratings` names none."""
    named = RatingsOptions.of(recipe).models
    if not named:
        return [(recipe.model, model)]
    return [
        (spec, LanguageModel.of(recipe, Path(model.home), model.device, spec, field=f"{MODELS_FIELD}.{number}.source"))
        for number, spec in enumerate(named)
    ]


def _asker(recipe: Recipe, spec: ModelSpec, model: LanguageModel) -> Asker:
    context = getattr(model.skeleton().config, "max_position_embeddings", None)
    return Asker(model.tokenizer(), spec.source, recipe.extraction, context)


def _read(context: MeasurementContext, missing: pl.DataFrame) -> Iterator[Chunk]:
    models = models_of(context.recipe, context.model)
    askers = [_asker(context.recipe, *one) for one in models]
    loaded = [model.load_causal() for _, model in models]
    readers = [RatingReader(one, asker.marks.token_ids) for one, asker in zip(loaded, askers, strict=True)]
    sizes = [sum(parameter.numel() for parameter in one.network.parameters()) for one in loaded]
    batch_tokens = context.options.batch_tokens_on(loaded[0].device.type)
    alone = rejected_before(store_of(context.warehouse, MEASUREMENT.name, context.corpus), context.corpus)
    pairs = messages_of(missing)
    pairs.sort(key=lambda pair: (-len(conversation_text(pair[1])), pair[0]))  # what does not fit in memory fails first
    for begin in range(0, len(pairs), SAMPLES_OF_PART):
        yield rated(pairs[begin : begin + SAMPLES_OF_PART], askers, readers, sizes, batch_tokens, alone)


def rated(
    pairs: Sequence[tuple[str, Sequence[dict[str, str]]]],
    askers: Sequence[Asker],
    readers: Sequence[RatingReader],
    sizes: Sequence[int],
    batch_tokens: int,
    alone: Container[str],
) -> Chunk:
    """Ratings of samples by every model; of a sample that lacks one, the first reason.

    Args:
        pairs: `sample_id` and messages.
        askers: Asker of each model.
        readers: Reader of each model.
        sizes: Number of parameters of each model.
        batch_tokens: Most tokens of a batch.
        alone: Sample ids that are read by themselves, since they failed before.
    """
    shape = len(readers), len(QUESTIONS), len(MARKS)
    ratings = {sample_id: np.full(shape, np.nan, np.float32) for sample_id, _ in pairs}
    cut: dict[str, Cut] = dict.fromkeys(ratings, "")
    reasons: dict[str, str] = {}
    cost = Cost()
    for index, (asker, reader) in enumerate(zip(askers, readers, strict=True)):
        prompts: list[RatedPrompt] = []
        for sample_id, messages in pairs:
            try:
                prompts += asker.prompts(sample_id, messages) if sample_id not in reasons else []
            except Exception as error:  # noqa: BLE001  a template may raise whatever its author wrote
                reasons[sample_id] = f"it cannot be asked about: {error}"
        shards = plan(prompts, batch_tokens, batch_tokens, alone=alone)
        for result in reader.read([list(batch) for shard in shards for batch in shard.batches]):
            for sample_id, reason in result.rejected:
                reasons.setdefault(sample_id, reason)
            for row, prompt in enumerate(result.samples):
                assert isinstance(prompt, RatedPrompt)
                assert result.pooled is not None
                ratings[prompt.sample_id][index, prompt.question] = result.pooled.columns["rating"][row]
                if cut[prompt.sample_id] != "answer":  # by the model with the shortest context
                    cut[prompt.sample_id] = prompt.cut or cut[prompt.sample_id]
        cost += Cost(n_forward=len(prompts), n_tokens=sum(len(prompt.token_ids) for prompt in prompts))
    rated_ids = [sample_id for sample_id in ratings if sample_id not in reasons]
    lacking = [sample_id for sample_id in rated_ids if not np.isfinite(ratings[sample_id]).all()]
    assert not lacking, "a prompt without a rating and without a reason"
    rows = {
        "sample_id": rated_ids,
        "ratings": [ratings[sample_id].ravel() for sample_id in rated_ids],
        "n_parameters": [list(sizes) for _ in rated_ids],
        "cut": [cut[sample_id] for sample_id in rated_ids],
    }
    return Chunk(pl.DataFrame(rows, schema={"sample_id": pl.String(), **COLUMNS}), list(reasons.items()), cost)


def _settings(recipe: Recipe) -> list[Any]:
    models = list(RatingsOptions.of(recipe).models) or [recipe.model]
    settings = recipe.extraction
    return [models, settings.max_tokens, settings.truncate, settings.template, settings.template_date.isoformat()]


def _external_versions(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    models = models_of(recipe, model)
    if len(models) == 1:
        return model_inputs(models[0][1], models[0][0].source)
    return {
        name if name in LIBRARIES else f"{name}#{index}": version
        for index, (spec, one) in enumerate(models, start=1)
        for name, version in model_inputs(one, spec.source).items()
    }


def _preflight(recipe: Recipe, model: LanguageModel) -> None:
    for spec, one in models_of(recipe, model):
        _asker(recipe, spec, one)
        one.require_head()


MEASUREMENT = Measurement(
    name="ratings",
    description=(
        "How probable each model finds each mark from 1 to 5 for the response. One row is one sample: for each model "
        "and each of five wordings of the question, five probabilities."
    ),
    columns=COLUMNS,
    read=_read,
    settings=_settings,
    external_versions=_external_versions,
    preflight=_preflight,
)
