"""The section `filters`: which candidates no subset may take, whatever their scores."""

from collections.abc import Iterator
from typing import Literal

import regex  # type: ignore[import-untyped]
from pydantic import Field, field_validator, model_validator

from nait_assets.recipe.section import Section


class NearDuplicates(Section):
    """Candidates that nearly repeat an earlier one; names as in data-juicer and NeMo Curator."""

    jaccard_threshold: float = Field(
        0.8, ge=0.3, le=1, description="Share of n-grams in common from which two texts are near duplicates."
    )
    window_size: int = Field(3, ge=1, description="Words of an n-gram.")
    num_permutations: int = Field(
        128, ge=32, le=1024, description="Hash functions of a MinHash signature, which finds the pairs to compare."
    )


class Quality(Section):
    """Bounds that a candidate's question and answers have to keep; each is off unless it is named."""

    min_question_words: int | None = Field(None, ge=1, description="Fewest words of what is asked.")
    max_question_words: int | None = Field(None, ge=1, description="Most words of what is asked.")
    min_answer_words: int | None = Field(None, ge=1, description="Fewest words of the answers.")
    max_answer_words: int | None = Field(None, ge=1, description="Most words of the answers.")
    min_alphanumeric_ratio: float | None = Field(
        None, gt=0, le=1, description="Least share of letters and digits among the answers' characters but white space."
    )
    max_repetition_ratio: float | None = Field(
        None, ge=0, lt=1, description="Largest share of the answers' characters that stand in n-grams said before."
    )
    repetition_window: int = Field(5, ge=1, description="Words of such an n-gram.")
    answer_pattern: str | None = Field(
        None, min_length=1, description="Regular expression: candidates of which an answer matches are left out."
    )

    @field_validator("answer_pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            regex.compile(pattern or "")
        except regex.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "Quality":
        for part, least, most in (
            ("question", self.min_question_words, self.max_question_words),
            ("answer", self.min_answer_words, self.max_answer_words),
        ):
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"min_{part}_words {least} is above max_{part}_words {most}: no candidate would be left"
                )
        if not any(True for _ in self.named()):
            raise ValueError(f"name at least one filter of {', '.join(BOUNDS)}, or leave `quality` out")
        return self

    def named(self) -> Iterator[str]:
        """The filters that are on, in the order in which they are applied."""
        return (name for name in BOUNDS if getattr(self, name) is not None)


BOUNDS = tuple(name for name in Quality.model_fields if name != "repetition_window")


class Filters(Section):
    """What is looked for in the pool before anything is chosen from it."""

    near_duplicates: NearDuplicates | None = Field(None, description="`{}` looks for them with the defaults.")
    quality: Quality | None = Field(None, description="Bounds on length, characters and repetition.")
    action: Literal["report", "drop"] = Field(
        "drop", description="drop: no subset contains what is found; report: it is listed and counted."
    )

    @model_validator(mode="after")
    def _something_is_looked_for(self) -> "Filters":
        if self.near_duplicates is None and self.quality is None:
            raise ValueError("name `near_duplicates: {}`, `quality: {...}` or both, or leave `filters` out")
        return self
