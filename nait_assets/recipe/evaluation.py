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

    @model_validator(mode="after")
    def _pattern_fits(self) -> "AnswerTask":
        if self.pattern is None:
            return self
        if self.kind != "exact_match":
            raise ValueError(f"`pattern` is of `kind: exact_match`, not of {self.kind}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        return self


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


Task = LossTask | ChoiceTask | AnswerTask | NamedTask
AnyTask = Annotated[Annotated[Task, Field(discriminator="kind")], BeforeValidator(_of_kind)]


class Evaluation(Section):
    """What subsets must not leak, and what models are measured by."""

    held_out: dict[str, Sources] = Field({}, description="Held-out sets, whose examples no subset should leak.")
    tasks: dict[str, AnyTask] = Field({}, description="What models are measured by; their examples are held out too.")
    max_tokens: int = Field(
        2048, ge=8, description="Tokens of an example that are read, at most the model's context; longer ones are cut."
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
            for target in task.targets or ():
                if target not in recipe.targets:
                    raise ValueError(
                        f"evaluation.tasks.{name}.targets: {target!r} is not among the recipe's "
                        f"{', '.join(recipe.targets)}"
                    )

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
