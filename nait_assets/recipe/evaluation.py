"""The section `evaluation`: texts that no subset may leak, and tasks on which models are measured."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import Source, one_or_many, require_name

Sources = Annotated[tuple[Source, ...], BeforeValidator(one_or_many), Field(min_length=1)]


class _TaskOfExamples(Section):
    """A task over examples that the recipe names."""

    examples: tuple[Source, ...] = Field(min_length=1, description="One source, or a list of them.")
    targets: tuple[str, ...] | None = Field(
        None, description="Targets that the task belongs to; the capability of its name by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _sources_stand_alone(cls, value: Any) -> Any:
        """`math: {source: ...}` names the examples themselves."""
        if isinstance(value, dict) and "source" in value:
            own = {name: given for name, given in value.items() if name in cls.model_fields}
            return {**own, "examples": [{name: given for name, given in value.items() if name not in own}]}
        if isinstance(value, dict) and "examples" in value:
            return {**value, "examples": one_or_many(value["examples"])}
        return value


class LossTask(_TaskOfExamples):
    """How likely a model finds the answers of examples that it was not trained on."""

    kind: Literal["loss"] = Field("loss", description="loss: mean negative log-likelihood of the answers' tokens.")


class ChoiceTask(_TaskOfExamples):
    """Which of some answers a model finds most likely; an example's answer is one of them."""

    kind: Literal["multiple_choice"] = Field(description="multiple_choice: the likeliest of `choices`.")
    choices: tuple[str, ...] = Field(min_length=2, description="The possible answers, such as [A, B, C, D].")
    shots: int = Field(0, ge=0, description="Examples with their answers in front of each question.")


class AnswerTask(_TaskOfExamples):
    """What a model answers, against the example's answer."""

    kind: Literal["exact_match", "f1", "translation"] = Field(
        description="exact_match: equal to the answer; f1: shared words; translation: BLEU and chrF of each sentence."
    )
    pattern: str | None = Field(
        None, description="exact_match: regular expression whose last match, or group of it, is the answer."
    )
    shots: int = Field(0, ge=0, description="Examples with their answers in front of each question.")
    max_new_tokens: int = Field(256, ge=1, description="Tokens after which an answer is cut.")
    stop: tuple[str, ...] = Field((), description="Texts that end an answer, beside the end of the turn.")
    comet: str | None = Field(
        None, description="translation: a model of unbabel-comet, by its name on the hub or its checkpoint's path."
    )

    @model_validator(mode="after")
    def _pattern_fits(self) -> "AnswerTask":
        if self.comet is not None and self.kind != "translation":
            raise ValueError(f"`comet` is of `kind: translation`, not of {self.kind}")
        if self.pattern is None:
            return self
        if self.kind != "exact_match":
            raise ValueError(f"`pattern` is of `kind: exact_match`, not of {self.kind}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        return self


class CodeTask(_TaskOfExamples):
    """Programs that a model writes, run with a problem's tests: pass@k of arXiv 2107.03374."""

    kind: Literal["pass@k"] = Field(description="pass@k: whether one of k programs passes the tests.")
    tests: str = Field(description="Template over a row's columns: code that raises where the program is wrong.")
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1, description="Programs that are drawn.")
    samples: int = Field(1, ge=1, description="Programs written for each problem, from which k are drawn.")
    temperature: float = Field(0.0, ge=0, description="Of the sampling; 0 takes the likeliest token.")
    top_p: float = Field(0.95, gt=0, le=1, description="Probability of the likeliest tokens that are sampled from.")
    seed: int = Field(0, ge=0, description="Seed of the sampling.")
    continues: bool = Field(
        False, description="Whether a program is the question's text and what is written behind it, as in HumanEval."
    )
    max_new_tokens: int = Field(512, ge=1, description="Tokens after which a program is cut.")
    stop: tuple[str, ...] = Field((), description="Texts that end a program, beside the end of the turn.")
    timeout: float = Field(10.0, gt=0, le=600, description="Seconds that a program with its tests may take.")

    @model_validator(mode="before")
    @classmethod
    def _tests_are_the_answers(cls, value: Any) -> Any:
        """An example's question is the problem, and the code that tests a program stands in the answer's place."""
        if not isinstance(value, dict) or not isinstance(value.get("tests"), str):
            return value
        if "source" in value:
            own = {name: given for name, given in value.items() if name in cls.model_fields}
            value = {**own, "examples": [{name: given for name, given in value.items() if name not in own}]}
        sources = one_or_many(value.get("examples"))
        if not isinstance(sources, list):
            return value
        return {**value, "examples": [_tested(source, value["tests"]) for source in sources]}

    @model_validator(mode="after")
    def _samples_suffice(self) -> "CodeTask":
        if max(self.k) > self.samples:
            raise ValueError(f"k: {max(self.k)} programs cannot be drawn of `samples: {self.samples}`")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"temperature: 0 writes the same program {self.samples} times; try 0.8, or `samples: 1`")
        return self


def _tested(source: Any, tests: str) -> Any:
    """A source whose format has the tests as its answer."""
    given = source.get("format") if isinstance(source, dict) else None
    if not isinstance(given, dict) or "user" not in given or "assistant" in given:
        raise ValueError(
            "the `format` of a task of `kind: pass@k` is {user: ...}: `tests` stands in the answer's place"
        )
    return {**source, "format": {**given, "assistant": tests}}


class NamedTask(Section):
    """A task of lm-eval, by its name."""

    kind: Literal["lm_eval"] = Field(description="lm_eval: a task of the Language Model Evaluation Harness.")
    task: str = Field(description="Its name there, such as gsm8k_cot, or that of a group.")
    shots: int | None = Field(
        None, ge=0, description="Examples in front of each question; as the task says by default."
    )
    limit: int | None = Field(None, ge=1, description="Take this many documents of each subtask; all by default.")
    seed: int = Field(1234, ge=0, description="Seed by which the examples in front of a question are drawn.")
    chat: bool = Field(False, description="Whether the model's chat template is used.")
    targets: tuple[str, ...] | None = Field(
        None, description="Targets that the task belongs to; the capability of its name by default."
    )

    @property
    def examples(self) -> tuple[Source, ...]:
        """None: lm-eval has them."""
        return ()


def _of_kind(value: Any) -> Any:
    """A task without a kind is one of `loss`; a list is its sources."""
    if isinstance(value, list):
        return {"kind": "loss", "examples": value}
    return {"kind": "loss", **value} if isinstance(value, dict) else value


Task = LossTask | ChoiceTask | AnswerTask | CodeTask | NamedTask
AnyTask = Annotated[Annotated[Task, Field(discriminator="kind")], BeforeValidator(_of_kind)]


class Evaluation(Section):
    """What subsets must not leak, and what models are measured by."""

    held_out: dict[str, Sources] = Field({}, description="Held-out sets, whose examples no subset should leak.")
    tasks: dict[str, AnyTask] = Field({}, description="What models are measured by; their examples are held out too.")
    max_tokens: int = Field(
        2048, ge=8, description="Tokens of an example that are read, at most the model's context; longer ones are cut."
    )

    backend: Literal["hf", "vllm"] = Field(
        "hf", description="What runs models on tasks that lm-eval scores: transformers, or vLLM; losses are read by us."
    )
    allow_code_execution: bool = Field(
        False, description="Whether what models write may be run, in isolation; tasks of `kind: pass@k` need it."
    )

    @field_validator("held_out", "tasks")
    @classmethod
    def _names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            require_name(name, f"name {name!r}")
        return given

    def require_fit(self, recipe: Any) -> None:
        """Whether the tasks are of targets of the recipe.

        Raises:
            ValueError: One names another.
        """
        for name, task in self.tasks.items():
            if isinstance(task, CodeTask) and not self.allow_code_execution:
                raise ValueError(
                    f"evaluation.tasks.{name}: `kind: pass@k` runs what a model writes; allow it by "
                    "`evaluation.allow_code_execution: true`, or take the task out"
                )
            for target in task.targets or ():
                if target not in recipe.targets:
                    raise ValueError(f"evaluation.tasks.{name}.targets: {recipe.not_a_target(target)}")

    def targets_of(self, name: str, recipe: Any) -> list[str]:
        """Targets that a task belongs to; none where it names none, and no capability has its name."""
        given = self.tasks[name].targets
        if given is not None:
            return list(given)
        return [name] if name in recipe.capabilities else []

    @property
    def names_with_examples(self) -> list[str]:
        """Tasks whose examples the recipe names, in alphabetical order."""
        return sorted(name for name, task in self.tasks.items() if task.examples)
