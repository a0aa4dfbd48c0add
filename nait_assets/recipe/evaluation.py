"""The section `evaluation`: texts that no subset may leak, and tasks on which models are measured."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from nait_assets.recipe.section import Section
from nait_assets.recipe.sections import Source, one_or_many, require_name

Sources = Annotated[tuple[Source, ...], BeforeValidator(one_or_many), Field(min_length=1)]


class LossTask(Section):
    """How likely a model finds the answers of examples that it was not trained on."""

    kind: Literal["loss"] = Field("loss", description="loss: mean negative log-likelihood of the answers' tokens.")
    examples: tuple[Source, ...] = Field(min_length=1, description="One source, or a list of them.")
    targets: tuple[str, ...] | None = Field(
        None, description="Targets that the task belongs to; the capability of its name by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _sources_stand_alone(cls, value: Any) -> Any:
        """`math: {source: ...}` and `math: [{source: ...}, ...]` are the examples themselves."""
        if isinstance(value, list):
            return {"examples": value}
        if not isinstance(value, dict):
            return value
        if "source" in value:
            own = {name: given for name, given in value.items() if name in cls.model_fields}
            return {**own, "examples": [{name: given for name, given in value.items() if name not in own}]}
        return {**value, "examples": one_or_many(value["examples"])} if "examples" in value else value


Task = LossTask


class Evaluation(Section):
    """What subsets must not leak, and what models are measured by."""

    held_out: dict[str, Sources] = Field({}, description="Held-out sets, whose examples no subset should leak.")
    tasks: dict[str, Task] = Field({}, description="What models are measured by; their examples are held out too.")
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
