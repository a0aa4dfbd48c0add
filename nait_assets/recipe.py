"""The recipe: everything that a user may set and that can change a result.

Belongs here: the fields, their checks, and the fingerprints of parts of them. Does not belong here: anything that
touches data or a model, and the knobs that cannot change a result (batch size, device), which are run configuration.
"""

import difflib
import hashlib
import json
import os
import re
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from nait_assets.options import MethodOptions, ModelSpec, Section, Selection, Strategy

COMPREHENSIVE_TARGET = "all"
POOL = "candidates"
EVALUATION, PUBLISHED = "evaluation/", "published/"
"""In front of the name of a held-out set, and of a published list, where corpora are named."""
PROJECT_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_RECIPE = PROJECT_ROOT / "recipes" / "demo.yaml"

FormatName = Literal["messages", "alpaca", "sharegpt"]
FeatureName = Literal["nait_directions", "standardized_centroids"]

CANDIDATES, EXAMPLES = "corpora/candidate_pool", "corpora/in_domain_set"
ACTIVATIONS, STATISTICS = "extraction/candidate_activations", "features/neuron_statistics"
READS: dict[str, tuple[str, ...]] = {
    "nait": (ACTIVATIONS, "features/nait_directions"),
    "nait_standardized": (ACTIVATIONS, STATISTICS, "features/standardized_centroids"),
    "nait_neighbours": (ACTIVATIONS, STATISTICS, "extraction/in_domain_activations"),
    "neuron_diversity": (ACTIVATIONS, STATISTICS),
    "mona": ("measurements/candidate_codes", "measurements/in_domain_codes"),
    "gate_overlap": ("measurements/candidate_gates", "measurements/in_domain_gates"),
    "rds_plus": ("measurements/candidate_outputs", "measurements/in_domain_outputs"),
    "sentence_embedding": ("measurements/candidate_embeddings", "measurements/in_domain_embeddings"),
    "perplexity_low": ("measurements/candidate_outputs",),
    "perplexity_high": ("measurements/candidate_outputs",),
    "ifd": ("measurements/candidate_outputs", "measurements/candidate_answers"),
    "ifd_pre_experienced": ("measurements/candidate_experienced_outputs", "measurements/candidate_experienced_answers"),
    "selectit": ("measurements/candidate_ratings",),
    "instruction_mining": ("measurements/candidate_embeddings", "measurements/candidate_rewards"),
    "alpagasus": ("measurements/candidate_judgements",),
    "less": ("measurements/candidate_gradients", "measurements/in_domain_gradients"),
    "bm25": (CANDIDATES, EXAMPLES),
    "dsir": (CANDIDATES, EXAMPLES),
    "length_long": (CANDIDATES,),
    "length_short": (CANDIDATES,),
    "random": (CANDIDATES,),
    "balanced_random": (CANDIDATES,),
}
"""What each method's scores rest on, by asset key; what no method of a recipe reads is not made."""
BY_CAPABILITY = ("features/nait_directions", "features/standardized_centroids", EXAMPLES)
"""Outputs that have one partition a capability, beside all those called `in_domain_`."""
TRAINED = ("measurements/pre_experienced_model", "measurements/less_checkpoints", "measurements/sparse_autoencoder")
"""Outputs that are folders of files rather than tables."""
NEED_NEURONS = {"nait", "neuron_diversity"}
"""Methods that cannot work on a projection."""
SEEDED = {"random", "balanced_random"}
"""Methods that draw by the recipe's seed."""


def is_by_capability(asset: str) -> bool:
    """Whether an output has one partition for each capability."""
    return asset in BY_CAPABILITY or "/in_domain_" in asset


class RecipeError(ValueError):
    """The recipe, or something that it names, cannot be used; the message says what, where, and what would work."""


def fingerprint(*values: Any) -> str:
    """Twelve hex digits of the SHA-256 of the values' canonical JSON."""
    canonical = json.dumps(
        values, sort_keys=True, ensure_ascii=False, default=lambda value: value.model_dump(mode="json")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class FieldTemplates(Section):
    """How the fields of one source row become a conversation: Jinja templates over the row's columns."""

    user: str = Field(description="Template of the user's message, for example '{{ question }}'.")
    assistant: str = Field(description="Template of the response, for example '{{ answer }}'.")
    system: str | None = Field(None, description="Template of a system message in front of both; none by default.")

    @field_validator("user", "assistant", "system")
    @classmethod
    def _is_a_template(cls, template: str | None) -> str | None:
        from jinja2 import Environment, TemplateSyntaxError

        try:
            Environment(autoescape=False).compile(template or "")  # parsing alone lets unknown filters pass
        except TemplateSyntaxError as error:
            raise ValueError(f"not a Jinja template: {error}") from error
        return template


def _known_format(value: Any) -> Any:
    if isinstance(value, str) and value not in get_args(FormatName):
        known = ", ".join(get_args(FormatName))
        raise ValueError(f"unknown format {value!r}; use {known}, or a mapping with `user` and `assistant` templates")
    return FieldTemplates.model_validate(value) if isinstance(value, dict) else value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Source(Section):
    """Where examples come from, how a row becomes a conversation, and which rows are taken."""

    source: str = Field(
        description="A .jsonl, .json, .csv or .parquet file, or 'hub:<org>/<name>'. `${VAR}` is expanded."
    )
    format: Annotated[FormatName | FieldTemplates, BeforeValidator(_known_format)] = Field(
        "messages", description="messages, alpaca, sharegpt, or templates over the source's columns."
    )
    config: str | tuple[str, ...] | None = Field(None, description="Hub only: configuration(s), read in this order.")
    split: str = Field("train", description="Hub only: split, as `datasets` writes it.")
    revision: str | None = Field(None, description="Hub only: commit, tag or branch; the commit read is recorded.")
    limit: int | None = Field(None, ge=1, description="Take this many examples, chosen by `seed`; all by default.")
    skip: int = Field(0, ge=0, description="Leave out the first examples of the seeded order: disjoint samples.")
    seed: int = Field(0, description="Seed of the order from which `skip` and `limit` take.")
    where: dict[str, str | int | float | bool] = Field(
        {}, description="Take only rows whose columns have these values, equal as written."
    )
    topic: str | None = Field(
        None, description="A label for every row, shown to people; read by no method but `balanced_random`."
    )
    topic_field: str | None = Field(None, description="The column that holds the label, instead of `topic`.")

    @model_validator(mode="after")
    def _one_topic(self) -> "Source":
        if self.topic is not None and self.topic_field is not None:
            raise ValueError("give `topic` or `topic_field`, not both")
        return self

    @property
    def hub_id(self) -> str | None:
        """`<org>/<name>` where the source is a data set of the hub, else None."""
        return self.source.removeprefix("hub:") if self.source.startswith("hub:") else None


class Projection(Section):
    """A random projection of all layers, kept instead of every neuron."""

    dimensions: int = Field(
        ge=16, le=100_000, description="Numbers that are kept of each example; DuckDB's arrays end at 100,000."
    )
    calibration_samples: int = Field(
        512, ge=2, description="Candidates whose neurons give the mean and standard deviation of each neuron."
    )
    seed: int = Field(0, description="Seed of the signs, and of which candidates calibrate.")


def _dimensions_or_projection(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"dimensions": value}
    if value is not None and not isinstance(value, dict | Projection):
        raise ValueError(f"{value!r} is no projection; use a number such as 1024, or a mapping with `dimensions`")
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
    template: Literal["chat", "plain"] = Field("chat", description="The model's chat template, or plain headings.")
    projection: Annotated[Projection | None, BeforeValidator(_dimensions_or_projection)] = Field(
        None, description="Numbers to keep of each example instead of every neuron, such as 1024."
    )

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

    @model_validator(mode="before")
    @classmethod
    def _sources_stand_alone(cls, value: Any) -> Any:
        """`math: {source: ...}` and `math: [{source: ...}, ...]` are the examples themselves."""
        if isinstance(value, dict) and "source" in value:
            return {"examples": [value]}
        return {"examples": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _either_or(self) -> "Capability":
        if bool(self.examples) == bool(self.features):
            raise ValueError(
                "give either a source of examples (or a list of them) or `features` (a feature file or folder)"
            )
        return self


class Decontamination(Section):
    """What becomes of candidates that in-domain or held-out examples give away."""

    ngram: int = Field(13, ge=2, description="Words in a row that a candidate and an example share.")
    action: Literal["report", "drop"] = Field(
        "report", description="report: a check names them where they are chosen; drop: no subset takes them."
    )


Sources = Annotated[tuple[Source, ...], BeforeValidator(_one_or_many), Field(min_length=1)]


class Recipe(Section):
    """A selection: a model, a pool, the capabilities to select for, the methods and the ratios."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="Names the default home folder.")
    model: ModelSpec
    extraction: Extraction = Extraction()
    candidates: Sources
    capabilities: dict[str, Capability] = Field(min_length=1)
    features: FeatureOptions = FeatureOptions()
    published: dict[str, Sources] = Field(
        {}, description="Lists of rows that others chose from the pool, best first; each is a method of its name."
    )
    methods: tuple[str, ...] = Field(
        ("nait", "nait_standardized", "random"), min_length=1, description="Ways to choose, each run by itself."
    )
    options: MethodOptions = MethodOptions()
    ratios: tuple[str, ...] = Field(min_length=1, description="Shares of the pool to keep, in (0, 1].")
    selection: Selection = Selection()
    seed: int = Field(0, description="Seed of the random control.")
    evaluation: dict[str, Sources] = Field({}, description="Held-out sets, whose examples no subset should give away.")
    decontamination: Decontamination = Decontamination()
    path: Path = Field(exclude=True, description="The file that the recipe was read from.")

    @field_validator("capabilities")
    @classmethod
    def _capability_names(cls, capabilities: dict[str, Capability]) -> dict[str, Capability]:
        for name in capabilities:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"capability name {name!r} must match [a-z0-9_]+")
            if name == COMPREHENSIVE_TARGET:
                raise ValueError(f"capability name {name!r} is taken: it is the target that combines all capabilities")
            if name == POOL:
                raise ValueError(f"capability name {name!r} is taken: it is the corpus that we choose from")
        return capabilities

    @field_validator("evaluation")
    @classmethod
    def _evaluation_names(cls, evaluation: dict[str, Any]) -> dict[str, Any]:
        for name in evaluation:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"name {name!r} of a held-out set must match [a-z0-9_]+")
        return evaluation

    @field_validator("published")
    @classmethod
    def _published_names(cls, published: dict[str, Any]) -> dict[str, Any]:
        for name in published:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise ValueError(f"name {name!r} of a published list must match [a-z0-9_]+")
            if name in READS or hasattr(MethodOptions, name):
                raise ValueError(f"name {name!r} of a published list is taken: it is a method, or a word of Python's")
        return published

    @field_validator("methods")
    @classmethod
    def _methods_are_known_and_distinct(cls, methods: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(methods)) != len(methods):
            raise ValueError(f"methods {list(methods)} must be distinct")
        known = [*READS, *info.data.get("published", {})]
        for method in methods:
            if method not in known:
                close = difflib.get_close_matches(method, known, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"unknown method {method!r}; {hint}There are {', '.join(known)}")
        return methods

    @model_validator(mode="after")
    def _methods_have_their_examples(self) -> "Recipe":
        files = [name for name, capability in self.capabilities.items() if capability.features]
        for method in self.methods if files else ():
            read = [name for name in self.reads_of(method) if is_by_capability(name)]
            if any(name not in BY_CAPABILITY[:2] for name in read):
                raise ValueError(
                    f"method {method!r} reads in-domain examples, and capability {files[0]!r} has a feature file in "
                    f"their place; give it examples, or take {method!r} out of `methods`"
                )
        return self

    @model_validator(mode="after")
    def _methods_have_their_options(self) -> "Recipe":
        for method in self.methods:
            if method in MethodOptions.model_fields and getattr(self.options, method) is None:
                raise ValueError(
                    f"method {method!r} needs the section `options.{method}`, which recipes/README.md describes; "
                    f"add it, or take {method!r} out of `methods`"
                )
        return self

    @model_validator(mode="after")
    def _methods_have_their_neurons(self) -> "Recipe":
        needy = [method for method in self.methods if method in NEED_NEURONS]
        if self.extraction.projection and needy:
            raise ValueError(
                f"method {needy[0]!r} needs every neuron, which `extraction.projection` does not keep; "
                f"take {needy[0]!r} out of `methods`, or the projection out of `extraction`"
            )
        return self

    @model_validator(mode="after")
    def _strategies_are_of_methods_of_the_recipe(self) -> "Recipe":
        for method in self.selection.by_method:
            if method not in self.methods:
                raise ValueError(
                    f"selection.by_method: {method!r} is not among the recipe's methods, {', '.join(self.methods)}"
                )
        return self

    @field_validator("ratios", mode="before")
    @classmethod
    def _ratios_are_keys(cls, ratios: Any) -> Any:
        if not isinstance(ratios, list | tuple):
            raise ValueError(f"ratios must be a list of numbers, not {ratios!r}")
        keys = [ratio_key(ratio) for ratio in ratios]
        if len(set(keys)) != len(keys):
            raise ValueError(f"ratios {list(ratios)} must differ once written as partition keys: {keys}")
        return sorted(keys)

    @cached_property
    def capability_names(self) -> list[str]:
        """Capabilities in alphabetical order."""
        return sorted(self.capabilities)

    @cached_property
    def capabilities_with_examples(self) -> list[str]:
        """Capabilities that the model reads examples of, in alphabetical order."""
        return [name for name in self.capability_names if self.capabilities[name].examples]

    @cached_property
    def evaluation_names(self) -> list[str]:
        """Held-out sets in alphabetical order."""
        return sorted(self.evaluation)

    @cached_property
    def published_lists(self) -> list[str]:
        """Published lists that are among the methods; the others are not read."""
        return [name for name in self.methods if name in self.published]

    @property
    def has_examples(self) -> bool:
        """Whether there are examples, in-domain or held out, that candidates could give away."""
        return bool(self.capabilities_with_examples or self.evaluation)

    @cached_property
    def targets(self) -> list[str]:
        """What candidates are scored for: every capability, and all of them together."""
        return [*self.capability_names, COMPREHENSIVE_TARGET]

    def capabilities_of(self, target: str) -> list[str]:
        """Capabilities that a target combines."""
        return self.capability_names if target == COMPREHENSIVE_TARGET else [target]

    def corpus_sources(self, corpus: str) -> tuple[Source, ...]:
        """Sources of the pool (`candidates`), a capability's in-domain set, or a corpus whose name has a prefix."""
        if corpus.startswith(EVALUATION):
            return self.evaluation[corpus.removeprefix(EVALUATION)]
        if corpus.startswith(PUBLISHED):
            return self.published[corpus.removeprefix(PUBLISHED)]
        return self.candidates if corpus == POOL else self.capabilities[corpus].examples

    def reads_of(self, method: str) -> tuple[str, ...]:
        """Keys of the assets that a method's scores rest on."""
        return READS.get(method, (CANDIDATES, f"corpora/published_{method}"))

    def is_targeted(self, method: str) -> bool:
        """Whether a method orders candidates in another way for each target."""
        return method in SEEDED or any(is_by_capability(asset) for asset in self.reads_of(method))

    def settings_of(self, method: str) -> list[Any]:
        """Fields of the recipe that a method's scores read by themselves."""
        section = getattr(self.options, method, None)
        return [*([self.seed] if method in SEEDED else []), *([section] if section is not None else [])]

    def strategy_of(self, method: str) -> Strategy:
        """How a method's subsets are taken from its ranking."""
        return self.selection.by_method.get(method, self.selection)

    @cached_property
    def outputs_read(self) -> frozenset[str]:
        """Keys of the assets that some method's scores rest on."""
        return frozenset(name for method in self.methods for name in self.reads_of(method))

    @cached_property
    def features_needed(self) -> list[FeatureName]:
        """Features of capabilities that the recipe's methods read."""
        return [name for name in get_args(FeatureName) if f"features/{name}" in self.outputs_read]

    @property
    def reads_activations(self) -> bool:
        """Whether a method reads the candidates' activations."""
        return ACTIVATIONS in self.outputs_read

    @property
    def reads_activations_of_examples(self) -> bool:
        """Whether something rests on the in-domain examples' activations."""
        read = bool(self.features_needed) or "extraction/in_domain_activations" in self.outputs_read
        return read and bool(self.capabilities_with_examples)

    def resolve(self, path: str) -> Path:
        """A path of the recipe: `${VAR}` expanded, and relative to the recipe's folder.

        A relative value of a variable is relative to the working folder, as it is for the shell that set it.

        Raises:
            RecipeError: A variable is not set.
        """

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in os.environ:
                raise RecipeError(
                    f"{self.path}: {path!r} needs the environment variable {name}, which is not set. "
                    f"Run with {name}=... in front."
                )
            return str(Path(os.environ[name]).expanduser().absolute()) if match.start() == 0 else os.environ[name]

        expanded = Path(re.sub(r"\$\{(\w+)\}", value, path)).expanduser()
        return (self.path.parent / expanded).resolve()


def ratio_key(ratio: Any) -> str:
    """The partition key of a ratio: at least two and at most four decimals, `0.1` -> `"0.10"`."""
    try:
        value = Decimal(str(ratio)).normalize()
    except ArithmeticError as error:
        raise ValueError(f"ratio {ratio!r} is not a number") from error
    if not value.is_finite() or not 0 < value <= 1:
        raise ValueError(f"ratio {ratio!r} must lie in (0, 1]")
    decimals = max(2, -int(value.as_tuple().exponent))
    if decimals > 4:
        raise ValueError(f"ratio {ratio!r} has more than four decimals")
    return f"{value:.{decimals}f}"


def subset_size(ratio: str, n_candidates: int) -> int:
    """ceil(ratio x n), exact: in floats 0.07 x 100 is a little more than 7."""
    share = Fraction(ratio) * n_candidates
    return -(-share.numerator // share.denominator)


def load_recipe(path: str | Path | None = None) -> Recipe:
    """The recipe at `path`, else at `$NAIT_RECIPE`, else the demo.

    Raises:
        RecipeError: There is no such file, it is not YAML, or a field is wrong; every wrong field has a line.
    """
    given = path or os.environ.get("NAIT_RECIPE") or DEFAULT_RECIPE
    file = Path(given).expanduser().absolute()
    if not file.is_file():
        raise RecipeError(
            f"no recipe at {file} (from {'--recipe' if path else 'NAIT_RECIPE'}). See the recipes/ folder for examples."
        )
    try:
        fields = yaml.load(file.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}") from error
    if not isinstance(fields, dict):
        raise RecipeError(
            f"{file} holds {type(fields).__name__}, not the fields of a recipe (name, model, candidates, ...)."
        )
    fields.pop("definitions", None)  # a place for YAML anchors
    if "path" in fields:
        raise RecipeError(f"{file}: path: unknown field; see recipes/README.md")
    try:
        return Recipe.model_validate({**fields, "path": file})
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise RecipeError("\n  ".join([f"{file}: {len(lines)} problem(s) in the recipe:", *lines])) from error


class _RecipeLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where the library would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = sorted({str(key) for key in written if written.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                problem=f"{', '.join(twice)} written twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = {name for part in Section.__subclasses__() for name in part.model_fields} - {"path"}
        written = str(problem["loc"][-1])
        close = difflib.get_close_matches(written, known - {written}, n=1)
        return f"{where}: unknown field; {f'did you mean {close[0]!r}? See' if close else 'see'} recipes/README.md"
    if problem["type"] == "missing":
        return f"{where}: this field is required"
    return f"{where}: {message}" + ("" if problem["type"] == "value_error" else f" (got {problem['input']!r})")
