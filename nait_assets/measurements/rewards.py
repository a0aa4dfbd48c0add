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

from nait_assets.measurements.engine import Chunk, Measurement, MeasurementContext
from nait_assets.models.cost import Cost
from nait_assets.recipe import Recipe, RecipeError, fingerprint
from nait_assets.resources import LanguageModel
from nait_assets.resources.dataset_source import hub_commit, hub_error
from nait_assets.resources.files import HashCache
from nait_assets.resources.language_model import IDENTITY_SUFFIXES

if TYPE_CHECKING:
    import torch

FIELD = "options.instruction_mining.reward_model"
SUGGESTION = "such as OpenAssistant/reward-model-deberta-v3-large-v2"
BATCH_TOKENS = 4096
PART_SAMPLES = 256
COLUMNS = pl.Schema({"reward": pl.Float64(), "n_response_tokens": pl.Int64(), "truncated": pl.Boolean()})


@dataclass(frozen=True)
class LoadedRewardModel:
    """A reward model in memory.

    Attributes:
        network: In evaluation mode, float32.
        tokenizer: Fills up on the right.
        limit: Tokens that it reads at once, special ones included.
        n_known: Token ids from here on are not the model's.
        fills_up: Whether pairs of different lengths can be read together.
    """

    network: Any
    tokenizer: Any
    limit: int
    n_known: int
    fills_up: bool


@dataclass(frozen=True)
class EncodedPair:
    """A question and its answer as a reward model reads them.

    Attributes:
        inputs: As the tokenizer gives them.
        n_response_tokens: Of the whole answer, without special tokens.
        truncated: Whether the pair was cut.
    """

    inputs: Mapping[str, list[int]]
    n_response_tokens: int
    truncated: bool

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


@dataclass(frozen=True)
class RewardModel:
    """Where a reward model is.

    Attributes:
        source: 'hub:<org>/<name>', or an absolute folder.
        revision: Of the hub.
        max_tokens: Of a pair, at most.
        home: Where hashes of files are remembered.
    """

    source: str
    revision: str | None
    max_tokens: int
    home: Path

    @classmethod
    def of(cls, recipe: Recipe, home: str | Path) -> "RewardModel":
        """The reward model that a recipe names; a relative folder is relative to the recipe."""
        options = recipe.options.instruction_mining
        assert options is not None, "a recipe with the method has the section"
        spec = options.reward_model
        source = spec.source if spec.source.startswith("hub:") else str(recipe.resolve(spec.source))
        return cls(source, spec.revision, options.max_tokens, Path(home))

    @property
    def hub_id(self) -> str | None:
        """`<org>/<name>` of a model of the hub, else None."""
        return self.source.removeprefix("hub:") if self.source.startswith("hub:") else None

    def identity(self) -> str:
        """A commit of the hub, or the hash of the files.

        Raises:
            RecipeError: There is no such model.
        """
        if self.hub_id:
            return f"hub:{self.hub_id}@{hub_commit(self.hub_id, self.revision, 'model')}"
        hashes = HashCache(self.home / "hashes.json")
        files = sorted(file for file in self._folder().iterdir() if file.suffix in IDENTITY_SUFFIXES)
        return f"folder:{fingerprint([[file.name, hashes.sha256(file)] for file in files])}"

    def check(self) -> None:
        """Raise RecipeError where there is no such model, or none that gives a pair of texts one number.

        Weights are not read: that some are missing is found when they are.
        """
        from transformers import AutoConfig

        config = self._read(AutoConfig.from_pretrained)
        if config.num_labels != 1:
            raise RecipeError(
                f"{FIELD}: {self.source!r} has {config.num_labels} outputs, and a reward model has one. "
                f"Name a sequence classifier with one output, {SUGGESTION}."
            )
        self._tokenizer()

    def load(self, device: "torch.device") -> LoadedRewardModel:
        """The reward model in memory; the same process loads it once.

        Raises:
            RecipeError: As `check`, or weights are missing or broken.
        """
        self.check()
        identity = self.identity()
        network = self._read(lambda name, revision: _load(identity, name, revision, device))
        tokenizer = self._tokenizer()
        reads = getattr(network.config, "max_position_embeddings", None) or self.max_tokens
        padding = tokenizer.pad_token_id
        return LoadedRewardModel(
            network,
            tokenizer,
            min(self.max_tokens, reads, tokenizer.model_max_length),
            network.get_input_embeddings().num_embeddings,
            padding is not None and padding == network.config.pad_token_id,
        )

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = self._read(AutoTokenizer.from_pretrained)
        if tokenizer.num_special_tokens_to_add(pair=True) <= tokenizer.num_special_tokens_to_add(pair=False):
            raise RecipeError(
                f"{FIELD}: the tokenizer of {self.source!r}, {type(tokenizer).__name__}, puts nothing between a "
                f"question and its answer. Name a model that reads a pair of texts, {SUGGESTION}."
            )
        tokenizer.padding_side = "right"
        return tokenizer

    def _folder(self) -> Path:
        folder = Path(self.source)
        if not (folder / "config.json").is_file():
            problem = f"{folder} has no config.json" if folder.is_dir() else f"folder {folder} does not exist"
            raise RecipeError(
                f"{FIELD}: {problem}. Use a folder or 'hub:<org>/<name>' with a sequence classifier of transformers "
                f"that has one output, {SUGGESTION}."
            )
        return folder

    def _read(self, reader: Any) -> Any:
        """What a reader of transformers makes of the model, in this project's errors."""
        name = self.hub_id or str(self._folder())
        commit = hub_commit(self.hub_id, self.revision, "model") if self.hub_id else None
        try:
            return reader(name, revision=commit)
        except RecipeError:
            raise
        except Exception as error:  # the readers of each format raise classes of their own
            if self.hub_id and isinstance(error, OSError):
                raise hub_error(self.hub_id, self.revision, "model", error) from error
            raise RecipeError(f"{FIELD}: {self.source!r} cannot be read: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=1)
def _load(_identity: str, name: str, revision: str | None, device: "torch.device") -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    network, report = AutoModelForSequenceClassification.from_pretrained(
        name, revision=revision, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers makes them up at random
        raise RecipeError(
            f"{FIELD}: the files of {name} lack {len(missing)} weights of {type(network).__name__}, such as "
            f"{missing[0]}. Name a model that was trained to rate, {SUGGESTION}, or download it again."
        )
    return network.to(device).eval().requires_grad_(False)


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


def encoded(model: LoadedRewardModel, messages: Sequence[Mapping[str, str]]) -> EncodedPair:
    """A conversation as a reward model reads it.

    Raises:
        ValueError: It cannot be read; the message is the reason.
    """
    question, answer = pair_of(messages)
    n_answer, n_question = (
        len(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in (answer, question)
    )
    if not n_answer:
        raise ValueError("its response has no tokens by the reward model's tokenizer")
    n_whole = n_question + n_answer + model.tokenizer.num_special_tokens_to_add(pair=True)
    inputs = model.tokenizer(question, answer, truncation="longest_first", max_length=model.limit)
    largest = max(inputs["input_ids"])
    if largest >= model.n_known:  # on a GPU it would end the process' use of it
        raise ValueError(f"token {largest} is not among the reward model's {model.n_known}")
    return EncodedPair(dict(inputs), n_answer, n_whole > model.limit)


def rewards(model: LoadedRewardModel, pairs: Sequence[EncodedPair], batch_tokens: int) -> np.ndarray:
    """`(n_pairs,)` rewards, float64; NaN or infinite where the model says so.

    Args:
        model: In memory.
        pairs: In any order.
        batch_tokens: Most tokens of a batch, padding included.
    """
    import torch

    found = np.full(len(pairs), np.nan)
    for batch in _batches([len(pair) for pair in pairs], batch_tokens if model.fills_up else 1):
        padded = model.tokenizer.pad([pairs[place].inputs for place in batch], return_tensors="pt")
        with torch.inference_mode():
            logits = model.network(**{name: rows.to(model.network.device) for name, rows in padded.items()}).logits
        found[batch] = logits[:, 0].double().cpu().numpy()
    return found


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in np.argsort(lengths, kind="stable").tolist():  # the longest comes last, and sets the batch's width
        if batch and (len(batch) + 1) * lengths[place] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def rated(
    model: LoadedRewardModel, samples: Sequence[tuple[str, Sequence[Mapping[str, str]]]], batch_tokens: int
) -> Chunk:
    """Rewards of samples, pairs of `sample_id` and messages; those that have none are rejected."""
    pairs: dict[str, EncodedPair] = {}
    rejected: list[tuple[str, str]] = []
    for name, messages in samples:
        try:
            pairs[name] = encoded(model, messages)
        except ValueError as error:
            rejected.append((name, str(error)))
    found = dict(zip(pairs, rewards(model, list(pairs.values()), batch_tokens).tolist(), strict=True))
    good = [name for name in pairs if np.isfinite(found[name])]
    rejected += [(name, f"the reward model says {found[name]}") for name in pairs if name not in set(good)]
    rows = pl.DataFrame(
        {
            "sample_id": good,
            "reward": [found[name] for name in good],
            "n_response_tokens": [pairs[name].n_response_tokens for name in good],
            "truncated": [pairs[name].truncated for name in good],
        },
        schema={"sample_id": pl.String(), **COLUMNS},
    )
    return Chunk(rows, rejected, Cost(n_forward=len(pairs), n_tokens=sum(map(len, pairs.values()))))


def read(context: MeasurementContext, samples: pl.DataFrame) -> Iterator[Chunk]:
    """Each sample's reward."""
    model = RewardModel.of(context.recipe, context.model.home).load(context.model.resolved_device())
    named = list(zip(samples["sample_id"].to_list(), samples["messages"].to_list(), strict=True))
    named.sort(key=lambda one: (sum(len(message["content"]) for message in one[1]), one[0]))
    for begin in range(0, len(named), PART_SAMPLES):
        yield rated(model, named[begin : begin + PART_SAMPLES], context.options.batch_tokens or BATCH_TOKENS)


def settings(recipe: Recipe) -> list[Any]:
    """Fields of the recipe that rewards depend on."""
    return [recipe.options.instruction_mining]


def outside(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """The reward model's version; nothing where the recipe no longer names one."""
    options = recipe.options.instruction_mining
    if options is None:
        return {}
    return {f"reward_model:{options.reward_model.source}": RewardModel.of(recipe, model.home).identity()}


def check(recipe: Recipe, model: LanguageModel) -> None:
    """Raise RecipeError where there is no such reward model."""
    RewardModel.of(recipe, model.home).check()


MEASUREMENT = Measurement(
    "rewards",
    "A reward model's score of the answer. One row is one sample: the reward, the answer's tokens by the reward "
    "model's tokenizer, and whether the pair of texts was cut.",
    COLUMNS,
    read,
    settings,
    outside=outside,
    check=check,
)
