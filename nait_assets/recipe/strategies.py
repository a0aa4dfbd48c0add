"""Sections on how rows are chosen by their scores."""

from typing import Any, Literal

from pydantic import Field, model_validator

from nait_assets.recipe.section import Section

StrategyName = Literal[
    "top",
    "round_robin_examples",
    "round_robin_targets",
    "union",
    "diverse",
    "facility_location",
    "median",
    "length_matched",
]
_STRATEGY_FIELDS: dict[str, dict[str, Any]] = {
    "diverse": {"similarity_limit": 0.9, "by": "text"},
    "facility_location": {"pool_factor": 3, "by": "text"},
    "length_matched": {"n_bins": 10},
}
"""Fields of single strategies, and their defaults."""


class Strategy(Section):
    """Which rows of a method's ranking a subset takes."""

    strategy: StrategyName | None = Field(
        None, description="top: the highest scores, the default but for `all`; the others are in recipes/README.md."
    )
    all: Literal["turns", "top"] | None = Field(
        None,
        description="Of the target `all`: turns, round_robin_targets; top, the highest scores. By default `strategy`, "
        "or turns where none is set. Methods that do not look at the target choose for it as for any other.",
    )
    similarity_limit: float | None = Field(
        None, gt=0, lt=1, description="diverse: the largest cosine allowed between two chosen rows; 0.9 by default."
    )
    by: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$",
        description="diverse, facility_location: `text`, the default, or a reading with vectors, such as `embeddings`.",
    )
    pool_factor: int | None = Field(
        None, ge=2, description="facility_location: how many times the subset's size is considered; 3 by default."
    )
    n_bins: int | None = Field(None, ge=2, description="length_matched: bins of lengths; 10 by default.")
    min_score: float | None = Field(
        None, allow_inf_nan=False, description="Score below which a row is never chosen, on the method's own scale."
    )

    @model_validator(mode="after")
    def _fields_are_the_strategys(self) -> "Strategy":
        known = _STRATEGY_FIELDS.get(self.name, {})
        for name in sorted({name for fields in _STRATEGY_FIELDS.values() for name in fields} - set(known)):
            if getattr(self, name) is not None:
                owners = [strategy for strategy, fields in _STRATEGY_FIELDS.items() if name in fields]
                raise ValueError(
                    f"`{name}` is a field of the strategy {' or '.join(owners)}, not of {self.name}; "
                    f"take it out, or set `strategy: {owners[0]}`"
                )
        return self

    @property
    def name(self) -> StrategyName:
        """The strategy, by default the highest scores."""
        return self.strategy or "top"

    @property
    def of_all(self) -> "Strategy":
        """The strategy for the target of all capabilities, whose scores are by target."""
        if self.all is None and self.strategy is not None:
            return self
        name: StrategyName = "top" if self.all == "top" else "round_robin_targets"
        return Strategy(strategy=name, min_score=self.min_score)

    @property
    def settings(self) -> dict[str, Any]:
        """The strategy and its fields with their defaults: all that it is."""
        known = _STRATEGY_FIELDS.get(self.name, {})
        given = {name: getattr(self, name) for name in known}
        lowest = {} if self.min_score is None else {"min_score": self.min_score}
        return {"strategy": self.name, **{k: known[k] if v is None else v for k, v in given.items()}, **lowest}


class Selection(Strategy):
    """The strategy of all methods, those of single ones in its place, and which candidates may be chosen."""

    of: Literal["pool", "judged"] = Field(
        "pool",
        description="What a ratio is a share of: the whole pool, or the candidates that every method of the recipe "
        "has a score for, from which alone all methods then choose.",
    )
    tokens: int | None = Field(
        None, ge=1, description="Most tokens of a subset, as the model read them; rows are taken until one is too long."
    )
    by_method: dict[str, Strategy] = Field(
        {}, description="Strategies of single methods; each replaces the common one completely."
    )

    def require_fit(self, recipe: Any) -> None:
        """Whether it is of methods of the recipe, and can be counted.

        Raises:
            ValueError: A strategy is of another method, or nothing reads the tokens that a budget counts.
        """
        for method in self.by_method:
            if method not in recipe.methods:
                raise ValueError(
                    f"selection.by_method: {method!r} is not among the recipe's methods, {', '.join(recipe.methods)}"
                )
        if self.tokens is not None and not recipe.reads_activations:
            raise ValueError(
                "selection.tokens: tokens are counted as the model reads candidates for their activations, and no "
                "method of the recipe has it do so; add one, such as 'nait_standardized', or leave `tokens` out"
            )
