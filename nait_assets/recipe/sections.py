"""The recipe's sections: of the model, of sources of examples, and of what is read from the model.

Belongs here: what all methods share. Does not belong here: what configures one method.
"""

import datetime
import re
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from nait_assets.recipe.pooling import ALL, Pooling, in_order, listed
from nait_assets.recipe.section import Section

FormatName = Literal["messages", "alpaca", "sharegpt", "auto"]
HUB_NAME = re.compile(r"(?=.{1,96}$)[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
Pinned = TypeVar("Pinned", bound=Section)


def require_name(name: str, what: str) -> None:
    """Whether a name can be one of files and partitions.

    Raises:
        ValueError: It cannot.
    """
    if not re.fullmatch(r"[a-z0-9_]{1,100}", name):
        raise ValueError(f"{what} must match [a-z0-9_]+, with at most 100 characters")


def require_hub_name(source: str) -> None:
    """Whether a source that names the hub names a repository of it.

    Raises:
        ValueError: It does not.
    """
    if source.startswith("hub:") and not HUB_NAME.fullmatch(source.removeprefix("hub:")):
        raise ValueError(f"{source[:120]!r} names no repository of the hub; write it as 'hub:<org>/<name>'")


def hub_is_pinned(section: Pinned) -> Pinned:
    """The validator of a section with `source` and `revision`: a model of the hub has a revision, and no other has."""
    source, revision = getattr(section, "source", None) or "", getattr(section, "revision", None)
    require_hub_name(source)
    if source.startswith("hub:") and not revision:
        raise ValueError(
            f"{source!r} needs a `revision` (a commit of the repository), so that the result can be repeated"
        )
    if revision and not source.startswith("hub:"):
        raise ValueError(
            f"revision {revision!r} is of a hub repository, and `source` names none; write it as 'hub:<org>/<name>', "
            "or leave `revision` out"
        )
    return section


class ModelSpec(Section):
    """Which frozen language model is read."""

    source: str = Field(description="'package:<module>' with a GGUF file in it, 'hub:<org>/<name>', or a local folder.")
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")
    gguf_file: str | None = Field(None, description="Name of the GGUF file, where the package or folder has several.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="dtype of the forward pass; auto is bfloat16 where the hardware multiplies it, else float32.",
    )

    _hub_is_pinned = model_validator(mode="after")(hub_is_pinned)


class FieldTemplates(Section):
    """How the fields of one source row become a conversation: Jinja templates over the row's columns."""

    user: str = Field(description="Template of the user's message, for example '{{ question }}'.")
    assistant: str = Field(description="Template of the response, for example '{{ answer }}'.")
    system: str | None = Field(
        None, description="Template of a system message in front of both; one that prints nothing makes none."
    )

    @field_validator("user", "assistant", "system")
    @classmethod
    def _is_a_template(cls, template: str | None) -> str | None:
        from nait_assets.sandbox import FAILURES, Sandbox, TooMuch

        try:
            Sandbox(str).bounded(template or "")
        except TooMuch as error:
            raise ValueError(str(error)) from error
        except FAILURES as error:
            said = str(error) or "it nests too deep"
            raise ValueError(
                f"not a Jinja template: {said}. A column whose name is no identifier is written "
                '{{ row["Best Answer"] }}'
            ) from error
        return template


class TurnsFormat(Section):
    """Where in a row the turns of a conversation stand."""

    turns: str | tuple[str, ...] = Field(
        description="The column that holds the turns; several, such as [prompt, completion], are joined."
    )
    role: str | None = Field(None, description="Key of a turn's role; `role` or `from`, whichever is there.")
    content: str | None = Field(None, description="Key of a turn's text; `content` or `value`, whichever is there.")
    system: str | None = Field(None, description="A column with a system prompt; `system` if it is there.")
    tools: str | None = Field(None, description="A column with the tools' descriptions; `tools` if it is there.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold turns."""
        return (self.turns,) if isinstance(self.turns, str) else self.turns


def _known_format(value: Any) -> Any:
    if isinstance(value, str) and value not in get_args(FormatName):
        known = ", ".join(get_args(FormatName))
        raise ValueError(
            f"unknown format {value!r}; use {known}, a mapping with `turns` (the column of the conversation), or one "
            "with `user` and `assistant` templates"
        )
    if isinstance(value, dict):
        return (TurnsFormat if "turns" in value else FieldTemplates).model_validate(value)
    return value


def one_or_many(value: Any) -> Any:
    """One source as a list of it, as validation expects."""
    return [value] if isinstance(value, dict) else value


class CsvOptions(Section):
    """How a file of comma-separated values is written, where it is not as RFC 4180 says."""

    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Between fields; a comma, in a .tsv a tab."
    )
    quotes: Literal["strict", "lenient", "none"] = Field(
        "strict",
        description="strict: a stray quotation mark refuses the file; lenient: it is taken as it stands; none: "
        "quotation marks are text.",
    )
    escape: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="In front of a quotation mark in a field, such as a backslash.",
    )


class Source(Section):
    """Where examples come from, how a row becomes a conversation, and which rows are taken."""

    source: str | tuple[str, ...] = Field(
        description="A file, a folder, a pattern with `*`, a list of files, a URL such as s3://..., or "
        "'hub:<org>/<name>'. `${VAR}` is expanded."
    )
    format: Annotated[FormatName | TurnsFormat | FieldTemplates, BeforeValidator(_known_format)] = Field(
        "messages",
        description="messages, alpaca, sharegpt, auto, {turns: COLUMN}, or templates over the source's columns.",
    )
    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = Field(
        {}, description="What role names mean that are not among the known ones, such as {narrator: user}."
    )
    unanswered: Literal["cut", "refuse"] = Field(
        "cut", description="What becomes of turns behind the last response: they are cut off, or the row is refused."
    )
    encoding: str | None = Field(None, description="Of text files; UTF-8.")
    csv: CsvOptions = CsvOptions()
    config: str | tuple[str, ...] | None = Field(None, description="Hub only: configuration(s), read in this order.")
    split: str = Field("train", description="Of a hub data set, as `datasets` writes it, or of a folder with several.")
    revision: str | None = Field(None, description="Hub only: commit, tag or branch; the commit read is recorded.")
    limit: int | None = Field(None, ge=1, description="Take this many examples, chosen by `seed`; all by default.")
    skip: int = Field(0, ge=0, description="Leave out the first examples of the seeded order: disjoint samples.")
    seed: int = Field(0, description="Seed of the order from which `skip` and `limit` take.")
    where: dict[str, str | int | float | bool] = Field(
        {}, description="Take only rows whose columns have these values, equal as written."
    )
    topic: str | None = Field(
        None, description="Label of every row, shown to people; only the control `balanced_random` reads it."
    )
    topic_field: str | None = Field(None, description="Column that holds the label, instead of `topic`.")

    @field_validator("source")
    @classmethod
    def _files_of_a_list(cls, source: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(source, tuple) and (not source or any(name.startswith("hub:") for name in source)):
            raise ValueError("a list names files; give each data set of the hub as a source of its own")
        if not source or not all(source):
            raise ValueError("the source is empty; name a file, a folder or 'hub:<org>/<name>'")
        if isinstance(source, str):
            require_hub_name(source)
        return source

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        try:
            b"a".decode(encoding or "utf-8", errors="replace")
        except (LookupError, ValueError) as error:  # also of what is no encoding of text, such as zlib
            raise ValueError(f"unknown encoding {encoding!r}; names are Python's, such as cp1252 or utf-16") from error
        return encoding

    @model_validator(mode="after")
    def _one_topic(self) -> "Source":
        if self.topic is not None and self.topic_field is not None:
            raise ValueError("give `topic` or `topic_field`, not both")
        return self

    @property
    def name(self) -> str:
        """The source as messages and tables name it."""
        return self.source if isinstance(self.source, str) else ", ".join(self.source)

    @property
    def hub_id(self) -> str | None:
        """`<org>/<name>` where the source is a data set of the hub, else None."""
        return self.name.removeprefix("hub:") if self.name.startswith("hub:") else None


class Projection(Section):
    """A random projection of all layers, kept instead of every neuron."""

    dimensions: int = Field(
        ge=16, le=100_000, description="Numbers kept of each example; at most 100,000, DuckDB's limit for arrays."
    )
    calibration_samples: int = Field(
        512, ge=2, description="Candidates whose neurons give the mean and standard deviation of each neuron."
    )
    seed: int = Field(0, description="Seed of the random signs and of the calibration sample.")


def _dimensions_or_projection(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"dimensions": value}
    if value is not None and not isinstance(value, dict | Projection):
        raise ValueError(f"{value!r} is not a projection; use a number such as 1024, or a mapping with `dimensions`")
    return value


class Extraction(Section):
    """What is read from the model for each example."""

    site: Literal["mlp", "residual"] = Field(
        "mlp", description="mlp: the input of the down-projection, the neurons; residual: the decoder layer's output."
    )
    layers: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        "all", description="Layers, counted from 0."
    )
    max_tokens: int = Field(512, ge=8, description="Tokens of an example that are read; longer ones are cut.")
    truncate: Literal["prompt", "answer", "refuse"] = Field(
        "prompt",
        description="What of a longer example gives way: prompt, the middle of what is asked, so that answers are "
        "read; answer, the end; refuse, the example is not read.",
    )
    template: Literal["chat", "plain"] = Field("chat", description="The model's chat template, or plain headings.")
    template_date: datetime.date = Field(
        datetime.date(2024, 7, 26),  # what Llama 3's templates print where they are told no date
        description="Today's date for chat templates that print it, so that a text is the same every day.",
    )
    system: Literal["keep", "fold"] = Field(
        "keep",
        exclude_if=lambda rule: rule == "keep",  # activations are the same: what was read stays as it is
        description="fold: a system message is put in front of the next user turn, for chat templates that refuse it.",
    )
    unshown: Literal["use", "refuse"] = Field(
        "use",
        exclude_if=lambda rule: rule == "use",  # activations are the same: what was read stays as it is
        description="What becomes of a conversation with tools, calls or reasoning that the template does not show.",
    )
    projection: Annotated[Projection | None, BeforeValidator(_dimensions_or_projection)] = Field(
        None, description="Numbers to keep of each example instead of every neuron, such as 1024."
    )
    pool: Annotated[tuple[Pooling, ...], BeforeValidator(listed)] = Field(
        (ALL,),
        min_length=1,
        exclude_if=lambda pool: pool == (ALL,),  # what was read before there was a choice stays as it is
        description="Tokens over which activations are averaged, one of these or a list: all, every token but the "
        "first; answer, those of the answers; prompt, what stands before the last answer and is no answer.",
    )

    store: Literal["float32", "float16"] = Field(
        "float32",
        exclude_if=lambda store: store == "float32",  # what was read before there was a choice stays as it is
        description="How activations lie on the disk: float16, with a scale for each row, takes half the room.",
    )

    @field_validator("pool")
    @classmethod
    def _poolings_are_distinct(cls, pool: tuple[Pooling, ...]) -> tuple[Pooling, ...]:
        return in_order(pool)

    @property
    def rendering(self) -> Literal["chat", "plain", "folded"]:
        """How a conversation becomes one text; `folded` is `chat` with system messages folded into user turns."""
        return "folded" if self.system == "fold" else self.template

    @property
    def reading(self) -> tuple[int | str, ...]:
        """What the token ids of an example depend on beside the model."""
        unshown = () if self.unshown == "use" else (self.unshown,)
        return (self.max_tokens, self.truncate, self.rendering, self.template_date.isoformat(), *unshown)

    @model_validator(mode="after")
    def _folding_is_of_a_chat_template(self) -> "Extraction":
        if self.system == "fold" and self.template == "plain":
            raise ValueError("`system: fold` is for chat templates; plain headings show a system text as it is")
        return self

    @field_validator("layers")
    @classmethod
    def _layers_are_distinct(cls, layers: Any) -> Any:
        if layers == "all":
            return layers
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"layers {list(layers)} must be 'all' or distinct numbers")
        return tuple(sorted(layers))


class FeatureOptions(Section):
    """How a capability is summarised."""

    change: Literal["last_minus_first", "mean_minus_first"] = Field(
        "last_minus_first",
        description="The activation change of the NAIT direction: eq. 2 of the final paper, or its first version's.",
    )


class Capability(Section):
    """One capability: examples of it, or a feature file made from examples elsewhere."""

    examples: tuple[Source, ...] = Field((), description="One source, or a list of them.")
    features: str | None = Field(
        None, description="A .safetensors feature file, or a folder of them, instead of examples."
    )
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Numbers of examples: the first so many in the seeded order become targets of their own."
    )

    @model_validator(mode="before")
    @classmethod
    def _sources_stand_alone(cls, value: Any) -> Any:
        """`math: {source: ...}` and `math: [{source: ...}, ...]` are the examples themselves."""
        if isinstance(value, dict) and "source" in value:
            own = {name: given for name, given in value.items() if name == "sizes"}
            return {**own, "examples": [{name: given for name, given in value.items() if name not in own}]}
        if isinstance(value, dict) and "examples" in value:
            return {**value, "examples": one_or_many(value["examples"])}
        return {"examples": value} if isinstance(value, list) else value

    @field_validator("sizes")
    @classmethod
    def _sizes_ascend(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(sizes)) != len(sizes):
            raise ValueError(f"sizes {list(sizes)} must be distinct")
        return tuple(sorted(sizes))

    @model_validator(mode="after")
    def _sizes_are_of_examples(self) -> "Capability":
        limits = [source.limit for source in self.examples]
        most = None if None in limits else sum(limit or 0 for limit in limits)
        if self.sizes and self.features:
            raise ValueError("`sizes` are of examples; a feature file has none here")
        if self.sizes and most is not None and self.sizes[-1] >= most:
            raise ValueError(
                f"sizes: {self.sizes[-1]} is not smaller than the {most} examples that `limit` takes: all of them are "
                "the capability itself"
            )
        return self

    @model_validator(mode="after")
    def _either_or(self) -> "Capability":
        if bool(self.examples) == bool(self.features):
            raise ValueError(
                "give either a source of examples (or a list of them) or `features` (a feature file or folder)"
            )
        return self


class Decontamination(Section):
    """What becomes of candidates that leak in-domain or held-out examples."""

    ngram: int = Field(13, ge=2, description="Number of consecutive shared words that makes a candidate contaminated.")
    action: Literal["report", "drop"] = Field(
        "report", description="report: a check warns where they are chosen; drop: no subset contains them."
    )


class Prices(Section):
    """What computing costs, for the money in `report/cost`."""

    gpu_hour: float = Field(0.0, ge=0, description="An hour of the machine on which models run, in your currency.")
    million_tokens: float = Field(0.0, ge=0, description="A million tokens of a judge behind an API.")
    pool_size: int | None = Field(
        None, ge=1, description="Candidates to which costs are scaled; the pool's by default."
    )
