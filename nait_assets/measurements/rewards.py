"""Measurements of a reward model: how good it finds each answer, one number, and how long the answer is.

A reward model is a sequence classifier with one output that reads a question and its answer as a pair of texts, as
OpenAssistant/reward-model-deberta-v3-large-v2 does. The answer is the last message, the question everything in front of
it, under headings where that is more than one message. A pair that is longer than `max_tokens`, or than the model
reads, loses tokens at the end of the longer of the two. Refused are classifiers with several outputs, and tokenizers
that put nothing between the two texts: such a model wants a chat template, and would read the pair as one text.
The length is the answer's tokens by the reward model's own tokenizer, before anything is cut.

Known defects: the scale and the zero of a reward are the model's own: rewards of two models cannot be compared. Most
reward models read English and single questions.
Cost: one pass of the reward model over each sample, in float32; DeBERTa-v3-large has 435 million parameters.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from nait_assets.conversation import messages_of
from nait_assets.errors import ModelError
from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.models.cost import Cost
from nait_assets.models.libraries import SENTENCES, library_versions
from nait_assets.recipe import Recipe
from nait_assets.recipe.measurements import MeasurementOptions
from nait_assets.recipe.sections import hub_is_pinned
from nait_assets.resources import LanguageModel
from nait_assets.resources.model_source import ModelSource, resolved

if TYPE_CHECKING:
    import torch

FIELD = "measurements.rewards.source"
SUGGESTION = "such as OpenAssistant/reward-model-deberta-v3-large-v2"
BATCH_TOKENS = 4096
CHUNK_SAMPLES = 256
COLUMNS = pl.Schema({"reward": pl.Float64(), "n_response_tokens": pl.Int64(), "truncated": pl.Boolean()})


class RewardsOptions(MeasurementOptions):
    """Which reward model rates: a sequence classifier of transformers with one output."""

    section = "rewards"
    needed_by = ("measurements/candidate_rewards", "measurements/in_domain_rewards")
    source: str = Field(min_length=1, description="'hub:<org>/<name>', 'package:<module>', or a local folder.")
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")
    max_tokens: int = Field(512, ge=8, description="Tokens of a question and its answer that the model reads.")
    _hub_is_pinned = model_validator(mode="after")(hub_is_pinned)


@dataclass(frozen=True)
class RewardModel:
    """A reward model in memory.

    Attributes:
        encoder: A `CrossEncoder` in float32.
        limit: Most tokens of a pair, special ones included; longer pairs are cut.
        n_known: Size of the vocabulary: token ids from here on are not the model's.
        pads: Whether pairs of different lengths can be read together.
    """

    encoder: Any
    limit: int
    n_known: int
    pads: bool


@dataclass(frozen=True)
class EncodedPair:
    """A question and its answer, and what is counted of them.

    Attributes:
        texts: Question and answer.
        n_tokens: Tokens that the model reads of the pair.
        n_response_tokens: Tokens of the whole answer, special ones left out.
        truncated: Whether the pair is cut.
    """

    texts: tuple[str, str]
    n_tokens: int
    n_response_tokens: int
    truncated: bool


def source_of(recipe: Recipe, home: str | Path) -> ModelSource:
    """Where the reward model that a recipe names is.

    Args:
        recipe: A relative folder is relative to its file.
        home: Folder in which hashes of files are remembered.
    """
    options = RewardsOptions.of(recipe)
    return ModelSource(resolved(recipe, options.source), options.revision, Path(home), FIELD)


def require_reward_model(source: ModelSource) -> None:
    """Whether a model gives a pair of texts one number; its weights are not read.

    Raises:
        ModelError: There is no such model, or it does not.
    """
    from transformers import AutoConfig, AutoTokenizer

    source.require_file(
        "config.json", "a sequence classifier of transformers", f"Name one with one output, {SUGGESTION}."
    )
    with source.reading():
        config = AutoConfig.from_pretrained(**source.pretrained(), trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(**source.pretrained(), trust_remote_code=False)
    if config.num_labels != 1:
        raise ModelError(
            f"{FIELD}: {source.source!r} has {config.num_labels} outputs, and a reward model has one. "
            f"Name a sequence classifier with one output, {SUGGESTION}."
        )
    if tokenizer.num_special_tokens_to_add(pair=True) <= tokenizer.num_special_tokens_to_add(pair=False):
        raise ModelError(
            f"{FIELD}: the tokenizer of {source.source!r}, {type(tokenizer).__name__}, puts nothing between a "
            f"question and its answer. Name a model that reads a pair of texts, {SUGGESTION}."
        )


def load(source: ModelSource, max_tokens: int, device: "torch.device") -> RewardModel:
    """A reward model in memory; the same process loads it once.

    Args:
        source: Source of its files.
        max_tokens: Most tokens of a pair, if the model reads as many.
        device: Device that it runs on.

    Raises:
        ModelError: As `require_reward_model`, or weights are missing or broken.
    """
    require_reward_model(source)
    with source.reading():
        named = source.pretrained()
        name, commit = named["pretrained_model_name_or_path"], named.get("revision")
        encoder = _load(source.identity(), name, commit, device)
    tokenizer, network = encoder.tokenizer, encoder.model
    reads = getattr(network.config, "max_position_embeddings", None) or max_tokens
    limit = min(max_tokens, reads, tokenizer.model_max_length)
    padding = tokenizer.pad_token_id
    n_known = network.get_input_embeddings().num_embeddings
    return RewardModel(encoder, limit, n_known, padding is not None and padding == network.config.pad_token_id)


@functools.lru_cache(maxsize=1)
def _load(_identity: str, name: str, commit: str | None, device: "torch.device") -> Any:
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # On `meta` no weight is read, and what the files lack is told: the libraries make it up at random, with a warning.
    network, report = AutoModelForSequenceClassification.from_pretrained(
        name, revision=commit, device_map="meta", output_loading_info=True, trust_remote_code=False
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{FIELD}: the files of {name} lack {len(missing)} weights of {type(network).__name__}, such as "
            f"{missing[0]}. Name a model that was trained to rate, {SUGGESTION}, or download it again."
        )
    encoder = CrossEncoder(
        name,
        revision=commit,
        device=str(device),
        trust_remote_code=False,
        model_kwargs={"dtype": torch.float32},
        activation_fn=torch.nn.Identity(),
    )
    encoder.tokenizer.padding_side = "right"
    return encoder.eval()


def pair_of(messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """The question and the answer of a conversation.

    Raises:
        ValueError: It has no response; the message is the reason.
    """
    *before, last = messages
    if last["role"] != "assistant" or not last["content"].strip():
        raise ValueError("it has no response")
    if len(before) == 1:
        return before[0]["content"], last["content"]
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in before]
    return "\n\n".join(turns), last["content"]


def encoded(model: RewardModel, messages: Sequence[Mapping[str, str]]) -> EncodedPair:
    """A conversation as a reward model reads it.

    Raises:
        ValueError: It cannot be read; the message is the reason.
    """
    tokenizer, (question, answer) = model.encoder.tokenizer, pair_of(messages)
    n_answer, n_question = (
        len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in (answer, question)
    )
    if not n_answer:
        raise ValueError("its response has no tokens by the reward model's tokenizer")
    token_ids = tokenizer(question, answer, truncation="longest_first", max_length=model.limit)["input_ids"]
    if max(token_ids) >= model.n_known:  # on a GPU the look-up would end the process' use of it
        raise ValueError(f"token {max(token_ids)} is not among the reward model's {model.n_known}")
    n_whole = n_question + n_answer + tokenizer.num_special_tokens_to_add(pair=True)
    return EncodedPair((question, answer), len(token_ids), n_answer, n_whole > model.limit)


def rated(model: RewardModel, samples: Sequence[tuple[str, Sequence[Mapping[str, str]]]], batch_tokens: int) -> Chunk:
    """Rewards of samples, pairs of `sample_id` and messages; those that have none are rejected.

    Args:
        model: Model in memory.
        samples: Samples of similar length: the longest sets the size of all batches.
        batch_tokens: Most tokens of a batch, padding included.
    """
    pairs: dict[str, EncodedPair] = {}
    rejected: list[tuple[str, str]] = []
    for sample_id, messages in samples:
        try:
            pairs[sample_id] = encoded(model, messages)
        except ValueError as error:
            rejected.append((sample_id, str(error)))
    found = dict(zip(pairs, rewards(model, list(pairs.values()), batch_tokens).tolist(), strict=True))
    good = [sample_id for sample_id in pairs if np.isfinite(found[sample_id])]
    rejected += [
        (sample_id, f"the reward model says {reward}") for sample_id, reward in found.items() if not np.isfinite(reward)
    ]
    rows = pl.DataFrame(
        {
            "sample_id": good,
            "reward": [found[sample_id] for sample_id in good],
            "n_response_tokens": [pairs[sample_id].n_response_tokens for sample_id in good],
            "truncated": [pairs[sample_id].truncated for sample_id in good],
        },
        schema={"sample_id": pl.String(), **COLUMNS},
    )
    return Chunk(rows, rejected, Cost(n_forward=len(pairs), n_tokens=sum(pair.n_tokens for pair in pairs.values())))


def rewards(model: RewardModel, pairs: Sequence[EncodedPair], batch_tokens: int) -> np.ndarray:
    """`(n_pairs,)` rewards, float32; NaN or infinite where the model says so."""
    if not pairs:
        return np.zeros(0, np.float32)
    size = max(1, batch_tokens // max(pair.n_tokens for pair in pairs)) if model.pads else 1
    limits = {"text": {"truncation": "longest_first", "max_length": model.limit}}
    return model.encoder.predict(
        [pair.texts for pair in pairs], batch_size=size, show_progress_bar=False, processing_kwargs=limits
    )


def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Each sample's reward."""
    source, max_tokens = source_of(context.recipe, context.model.home), RewardsOptions.of(context.recipe).max_tokens
    model = load(source, max_tokens, context.model.resolved_device())
    named = messages_of(samples)
    named.sort(key=lambda one: (sum(len(message["content"]) for message in one[1]), one[0]))
    for begin in range(0, len(named), CHUNK_SAMPLES):
        yield rated(model, named[begin : begin + CHUNK_SAMPLES], context.options.batch_tokens or BATCH_TOKENS)


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that rewards depend on."""
    return [RewardsOptions.given(recipe)]


def external_versions(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """Versions of the reward model and of the libraries that run it; nothing where the recipe no longer names one."""
    options = RewardsOptions.given(recipe)
    if options is None:
        return {}
    identity = source_of(recipe, model.home).identity()
    return {f"reward_model:{options.source}": identity, **library_versions(SENTENCES)}


def preflight(recipe: Recipe, model: LanguageModel) -> None:
    """Raise ModelError where there is no such reward model."""
    require_reward_model(source_of(recipe, model.home))


MEASUREMENT = Measurement(
    "rewards",
    "A reward model's score of the answer. One row is one sample: the reward, the answer's tokens by the reward "
    "model's tokenizer, and whether the pair of texts was cut.",
    COLUMNS,
    read,
    settings,
    external_versions=external_versions,
    preflight=preflight,
)
