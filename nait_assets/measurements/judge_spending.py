"""What a judge behind an API has taken, over all runs on a home, and how much it may."""

import threading
from dataclasses import dataclass, field

import polars as pl
from pydantic import Field, model_validator

from nait_assets.recipe import Section
from nait_assets.resources.chat_endpoint import Answer
from nait_assets.resources.warehouse import Store
from nait_assets.tables import Table

SPENDING = Table(
    "measurements.judge_spending",
    pl.Schema(
        {"judge": pl.String(), "n_calls": pl.Int64(), "n_prompt_tokens": pl.Int64(), "n_answer_tokens": pl.Int64()}
    ),
    ("judge",),
    ("judge",),
)


class Budget(Section):
    """Where asking stops, counted over all runs on a home; none of it changes an answer."""

    max_calls: int | None = Field(
        None, ge=1, exclude=True, description="Number of calls, over all runs, after which judging stops."
    )
    max_tokens_total: int | None = Field(
        None,
        ge=1,
        exclude=True,
        description="Tokens of questions and answers, over all runs, after which judging stops.",
    )
    max_cost: float | None = Field(
        None, gt=0, exclude=True, description="Cost, over all runs and by the two prices, after which judging stops."
    )
    price_per_million_input_tokens: float | None = Field(
        None, ge=0, exclude=True, description="Price of a million tokens of questions, in your currency."
    )
    price_per_million_output_tokens: float | None = Field(
        None, ge=0, exclude=True, description="Price of a million tokens of answers, in your currency."
    )

    @model_validator(mode="after")
    def _cost_has_prices(self) -> "Budget":
        prices = self.price_per_million_input_tokens, self.price_per_million_output_tokens
        if self.max_cost is not None and None in prices:
            raise ValueError(
                f"max_cost {self.max_cost:g} needs `price_per_million_input_tokens` and "
                "`price_per_million_output_tokens`"
            )
        return self


@dataclass
class Spending:
    """What a judge has taken, over all runs on a home: calls, failed ones too, and the tokens that were reported."""

    n_calls: int = 0
    n_prompt_tokens: int = 0
    n_answer_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def permit(self, options: Budget) -> bool:
        """Whether one more call may be made; if so, it is counted."""
        with self._lock:
            if self.reached(options) is not None:
                return False
            self.n_calls += 1
            return True

    def add(self, answer: Answer) -> None:
        """Count an answer's tokens."""
        with self._lock:
            self.n_prompt_tokens += answer.n_prompt_tokens or 0
            self.n_answer_tokens += answer.n_answer_tokens or 0

    @property
    def n_tokens(self) -> int:
        """Tokens of questions and answers."""
        return self.n_prompt_tokens + self.n_answer_tokens

    def cost(self, options: Budget) -> float | None:
        """Cost by the prices of the recipe; None where it has none."""
        prices = options.price_per_million_input_tokens, options.price_per_million_output_tokens
        if prices[0] is None or prices[1] is None:
            return None
        return (self.n_prompt_tokens * prices[0] + self.n_answer_tokens * prices[1]) / 1e6

    def reached(self, options: Budget) -> str | None:
        """The budget that is spent, as `max_calls: 100`, or None."""
        budgets = {
            "max_calls": (self.n_calls, options.max_calls),
            "max_tokens_total": (self.n_tokens, options.max_tokens_total),
            "max_cost": (self.cost(options) or 0.0, options.max_cost),
        }
        return next(
            (f"{name}: {most:g}" for name, (spent, most) in budgets.items() if most is not None and spent >= most), None
        )

    def says(self, options: Budget) -> str:
        """What was taken, in words."""
        cost = self.cost(options)
        priced = "" if cost is None else f", at a cost of {cost:.4f}"
        return f"{self.n_calls:,} call(s) and {self.n_tokens:,} tokens{priced}"


def spent(store: Store, judge: str, table: str) -> tuple[Spending, int]:
    """What a judge has taken in earlier runs, and how many samples are judged."""
    with store.snapshot() as snapshot:
        names = [name for name in (table, f"{table}_staged") if snapshot.has_table(name)]
        counts = [snapshot.connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in names]
        rows = snapshot.rows(SPENDING, judge=judge) if snapshot.has_table(SPENDING.name) else None
    if rows is None or rows.is_empty():
        return Spending(), sum(counts)
    return Spending(*rows.drop("judge").row(0)), sum(counts)


def write_spending(store: Store, judge: str, spending: Spending) -> None:
    """Store what a judge has taken so far."""
    row = {name: getattr(spending, name) for name in SPENDING.written_columns}
    with store.transaction() as transaction:
        transaction.replace(SPENDING, pl.DataFrame([row]), judge=judge)
