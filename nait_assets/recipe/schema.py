"""The fields of a recipe, and what must hold between them.

Belongs here: the fields, their checks, and what follows from them without looking at data or a model. Does not belong
here: knobs that cannot change a result (batch size, device), which are run configuration.
"""

import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nait_assets.recipe.evaluation import Evaluation, Sources
from nait_assets.recipe.filters import Filters
from nait_assets.recipe.measurements import OptionsOfMeasurements, measurements_model, missing_section
from nait_assets.recipe.methods import (
    MethodDeclaration,
    OptionsOfMethods,
    declared_methods,
    method_named,
    options_are_required,
    options_model,
)
from nait_assets.recipe.outputs import outputs_of
from nait_assets.recipe.paths import resolve
from nait_assets.recipe.pooling import POOLINGS, Pooling, pooled_key
from nait_assets.recipe.ratios import ratio_key
from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import (
    Capability,
    Decontamination,
    Extraction,
    FeatureOptions,
    ModelSpec,
    Prices,
    Source,
    require_name,
)
from nait_assets.recipe.strategies import Selection, Strategy
from nait_assets.recipe.training import Training

COMPREHENSIVE_TARGET = "all"
SIZE_MARK = "@"
"""Between a capability and the number of examples of a smaller in-domain set of it, `math@16`."""
POOL = "candidates"
EVALUATION, TASKS, PUBLISHED = "evaluation/", "tasks/", "published/"
"""In front of the name of a held-out set, a task's examples, and a published list, where corpora are named."""

FeatureName = Literal["nait_directions", "standardized_centroids"]

CANDIDATES, EXAMPLES = "corpora/candidate_pool", "corpora/in_domain_set"
ACTIVATIONS, STATISTICS = "extraction/candidate_activations", "features/neuron_statistics"


class Recipe(Section, defer_build=True):
    """A selection: a model, a pool, the capabilities to select for, the methods and the ratios.

    It is built when it is first used (`defer_build`): the methods' sections are in modules that import this one.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$", max_length=100, description="Names the default home folder.")
    model: ModelSpec
    extraction: Extraction = Extraction()
    candidates: Sources
    capabilities: dict[str, Capability] = Field(min_length=1)
    features: FeatureOptions = FeatureOptions()
    published: dict[str, Sources] = Field(
        {}, description="Lists of rows that others chose from the pool, best first; each becomes a method of that name."
    )
    options: Annotated[Any, OptionsOfMethods()] = Field(
        default_factory=lambda: options_model()(),
        description="Sections of single methods, under their names; a section with `method` is a further name of that "
        "method, with options of its own.",
    )
    methods: tuple[str, ...] = Field(
        ("nait", "nait_standardized", "random"), min_length=1, description="Methods to run, each on its own."
    )
    measurements: Annotated[Any, OptionsOfMeasurements()] = Field(
        default_factory=lambda: measurements_model()(),
        description="Sections of single measurements, and of what is trained for them, under their names.",
    )
    ratios: tuple[str, ...] = Field(min_length=1, description="Shares of the pool to keep, in (0, 1].")
    selection: Selection = Selection()
    seed: int = Field(0, description="Seed of the random control.")
    evaluation: Evaluation = Evaluation()
    decontamination: Decontamination = Decontamination()
    filters: Filters | None = Field(None, description="What is looked for in the pool before rows are chosen.")
    prices: Prices | None = Field(None, description="What computing costs; without it no money is reckoned.")
    training: Training | None = Field(None, description="What is trained on the subsets; nothing by default.")
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="Share of a corpus' rows above which a check warns that so many are rejected."
    )
    refuse_above: float | None = Field(
        None, ge=0, le=1, description="Share of rejected rows above which nothing is made from what is left."
    )
    path: Path = Field(exclude=True, description="The file that the recipe was read from.")

    @field_validator("capabilities")
    @classmethod
    def _capability_names(cls, capabilities: dict[str, Capability]) -> dict[str, Capability]:
        for name in capabilities:
            require_name(name, f"capability name {name!r}")
            if name == COMPREHENSIVE_TARGET:
                raise ValueError(f"capability name {name!r} is taken: it is the target that combines all capabilities")
            if name == POOL:
                raise ValueError(f"capability name {name!r} is taken: it is the corpus that we choose from")
        return capabilities

    @field_validator("published")
    @classmethod
    def _published_names(cls, published: dict[str, Any]) -> dict[str, Any]:
        for name in published:
            require_name(name, f"name {name!r} of a published list")
            if name in declared_methods():
                raise ValueError(f"name {name!r} of a published list is taken: it is a method")
        return published

    @field_validator("options")
    @classmethod
    def _further_names(cls, options: Any, info: ValidationInfo) -> Any:
        for name in options.model_extra:
            require_name(name, f"name {name!r} of a method")
            if name in declared_methods() or name in info.data.get("published", {}) or hasattr(Section, name):
                raise ValueError(f"name {name!r} is taken: a method has a further name under one that is free")
        return options

    @field_validator("methods")
    @classmethod
    def _methods_are_known_and_distinct(cls, methods: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(methods)) != len(methods):
            raise ValueError(f"methods {list(methods)} must be distinct")
        further = info.data["options"].model_extra if "options" in info.data else methods  # its own error is said
        known = [*declared_methods(), *info.data.get("published", {}), *further]
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
            read = [self.outputs.get(name) for name in self.reads_of(method)]
            # where no capability has examples, the recipe has no output of them at all
            if any(output is None or output.partitions == "with_examples" for output in read):
                raise ValueError(
                    f"method {method!r} reads in-domain examples, and capability {files[0]!r} has a feature file in "
                    f"their place; give it examples, or take {method!r} out of `methods`"
                )
        return self

    @model_validator(mode="after")
    def _methods_have_their_options(self) -> "Recipe":
        for method in self.methods:
            if options_are_required(self._declaration(method)) and self.options_of(method) is None:
                raise ValueError(
                    f"method {method!r} needs the section `options.{method}`, which recipes/README.md describes; "
                    f"add it, or take {method!r} out of `methods`"
                )
        return self

    @model_validator(mode="after")
    def _measurements_have_their_sections(self) -> "Recipe":
        for method in self.methods:
            missing = missing_section(self, frozenset(self.reads_of(method)))
            if missing is not None:
                raise ValueError(
                    f"method {method!r} needs the section `{missing}`, which recipes/README.md describes; "
                    f"add it, or take {method!r} out of `methods`"
                )
        return self

    @model_validator(mode="after")
    def _options_of_methods_fit(self) -> "Recipe":
        for method in self.methods:
            section = self.options_of(method)
            if section is not None:
                section.require_fit(self)
        return self

    @model_validator(mode="after")
    def _methods_have_their_pooling(self) -> "Recipe":
        stored = self.extraction.pool
        for method in self.methods:
            pooling = self.pooling_of(method)
            if pooling not in stored:
                raise ValueError(
                    f"method {method!r} reads the pool {pooling!r}, and `extraction.pool` stores "
                    f"{', '.join(stored)}; write `extraction: {{pool: [{', '.join([*stored, pooling])}]}}`"
                )
        return self

    @model_validator(mode="after")
    def _methods_have_their_neurons(self) -> "Recipe":
        needy = [method for method in self.methods if self._declaration(method).needs_neurons]
        if self.extraction.projection and needy:
            raise ValueError(
                f"method {needy[0]!r} needs every neuron, which `extraction.projection` does not keep; "
                f"take {needy[0]!r} out of `methods`, or the projection out of `extraction`"
            )
        return self

    @model_validator(mode="after")
    def _selection_fits(self) -> "Recipe":
        self.selection.require_fit(self)
        return self

    @model_validator(mode="after")
    def _training_and_evaluation_fit(self) -> "Recipe":
        if self.training is not None:
            self.training.require_fit(self)
        self.evaluation.require_fit(self)
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
    def smaller_sets(self) -> dict[str, tuple[str, int]]:
        """By name, such as `math@16`, the capability and the number of examples of every smaller in-domain set."""
        return {
            f"{name}{SIZE_MARK}{size}": (name, size)
            for name in self.capability_names
            for size in self.capabilities[name].sizes
        }

    @cached_property
    def in_domain_names(self) -> list[str]:
        """Capabilities, and behind them the smaller sets, so that these find what was read of the whole ones."""
        return [*self.capability_names, *self.smaller_sets]

    @cached_property
    def in_domain_sets(self) -> list[str]:
        """Those of them whose examples the model reads."""
        return [*self.capabilities_with_examples, *self.smaller_sets]

    def capability_named(self, name: str) -> Capability:
        """The capability of a name, or of the name of a smaller set of it."""
        return self.capabilities[self.smaller_sets[name][0] if name in self.smaller_sets else name]

    @cached_property
    def evaluation_names(self) -> list[str]:
        """Held-out sets in alphabetical order."""
        return sorted(self.evaluation.held_out)

    @cached_property
    def published_lists(self) -> list[str]:
        """Published lists that are among the methods; the others are not read."""
        return [name for name in self.methods if name in self.published]

    @property
    def has_examples(self) -> bool:
        """Whether there are examples, in-domain or held out, that candidates could leak."""
        return bool(self.capabilities_with_examples or self.evaluation.held_out or self.evaluation.names_with_examples)

    @cached_property
    def targets(self) -> list[str]:
        """What candidates are scored for: capabilities, smaller sets, and several capabilities together."""
        return [*self.in_domain_names, *([COMPREHENSIVE_TARGET] if len(self.capabilities) > 1 else [])]

    @property
    def broadest_target(self) -> str:
        """The target that every capability has a part in: all of them together, or the only one."""
        return COMPREHENSIVE_TARGET if len(self.capabilities) > 1 else self.capability_names[0]

    def not_a_target(self, name: str) -> str:
        """A sentence about a name that is none of the targets: which there are."""
        if name == COMPREHENSIVE_TARGET:
            return f"{name!r} is of several capabilities together, and the recipe has one: say {self.broadest_target!r}"
        return f"{name!r} is not among the recipe's targets, {', '.join(self.targets)}"

    def capabilities_of(self, target: str) -> list[str]:
        """Capabilities that a target combines; of a smaller set, itself."""
        return self.capability_names if target == COMPREHENSIVE_TARGET else [target]

    def corpus_sources(self, corpus: str) -> tuple[Source, ...]:
        """Sources of the pool (`candidates`), a capability's in-domain set, or a corpus whose name has a prefix."""
        if corpus.startswith(EVALUATION):
            return self.evaluation.held_out[corpus.removeprefix(EVALUATION)]
        if corpus.startswith(TASKS):
            return self.evaluation.tasks[corpus.removeprefix(TASKS)].examples
        if corpus.startswith(PUBLISHED):
            return self.published[corpus.removeprefix(PUBLISHED)]
        return self.candidates if corpus == POOL else self.capability_named(corpus).examples

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs that the recipe can have, each a `catalogue.Output`, by key, in the order of the rooms."""
        return outputs_of(self)

    def base_of(self, method: str) -> str:
        """The method that a name among `methods` stands for: another where it is a further name."""
        section = self.options.model_extra.get(method)
        return method if section is None else str(section.method)

    def _declaration(self, method: str) -> MethodDeclaration:
        return method_named(self.base_of(method))

    def pooling_of(self, method: str) -> Pooling:
        """The pooling whose activations a method reads, if it reads any."""
        return getattr(self.options_of(method), "pool", None) or self.extraction.pool[0]

    def reads_of(self, method: str) -> tuple[str, ...]:
        """Keys of the assets that a method's scores rest on."""
        return tuple(self.declared_reads(method).values())

    def declared_reads(self, method: str) -> dict[str, str]:
        """By each key that a method declares to read, the key of what it reads: the same, or that of its pooling."""
        declared, all_there = self._declaration(method), self.capabilities_with_examples == self.capability_names
        keys = [*declared.reads, *(declared.reads_if_there if all_there else ())]
        return {key: pooled_key(key, self.pooling_of(method)) for key in keys}

    def is_targeted(self, method: str) -> bool:
        """Whether a method orders candidates in another way for each target."""
        return self._declaration(method).by_target

    def settings_of(self, method: str) -> list[Any]:
        """Fields of the recipe that a method's scores read by themselves."""
        section = self.options_of(method)
        # options that came after the method, and are at their defaults, leave what was scored as it is
        is_set = section is not None and bool(section.model_dump(mode="json"))
        return [*([self.seed] if self._declaration(method).seeded else []), *([section] if is_set else [])]

    def options_of(self, method: str) -> Any:
        """A method's section, or None for a method that has none."""
        if method in self.options.model_extra:
            return self.options.model_extra[method]
        return getattr(self.options, method) if self._declaration(method).options else None

    @property
    def leading_method(self) -> str:
        """The method whose rows are shown to people rather than others': the first recommended one, or the first."""
        return next((name for name in self.methods if self._declaration(name).recommended), self.methods[0])

    def strategy_of(self, method: str, target: str) -> Strategy:
        """How a method's subsets for a target are taken from its ranking."""
        given: Strategy = self.selection.by_method.get(method, self.selection)
        return given.of_all if target == COMPREHENSIVE_TARGET and self.is_targeted(method) else given

    def strategies_of(self, method: str) -> list[Strategy]:
        """The strategy of a method's subsets, and that of `all` if it is another, whether or not there is that target.

        A capability that comes or goes then leaves the subsets of others as they are.
        """
        both = [self.strategy_of(method, target) for target in ("", COMPREHENSIVE_TARGET)]
        return both[:1] if both[0].settings == both[1].settings else both

    @cached_property
    def outputs_read(self) -> frozenset[str]:
        """Keys of the assets that some method's scores rest on."""
        return frozenset(name for method in self.methods for name in self.reads_of(method))

    @cached_property
    def features_needed(self) -> list[FeatureName]:
        """Features of capabilities that the recipe's methods read."""
        read = {pooled_key(f"features/{name}", pooling): name for name in get_args(FeatureName) for pooling in POOLINGS}
        found = {name for key, name in read.items() if key in self.outputs_read}
        return [name for name in get_args(FeatureName) if name in found]

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

        Raises:
            RecipeError: A variable is not set.
        """
        return resolve(path, self.path)
