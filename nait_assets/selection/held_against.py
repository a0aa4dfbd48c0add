"""Where a subset stands: how many of its rows score no more than chance, and how many as the examples do."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from nait_assets.recipe import Recipe
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.catalogue import thresholds_of
from nait_assets.scoring.chance import PERCENT_BY_CHANCE, PERCENT_OF_EXAMPLES
from nait_assets.selection.turns import takes_turns

MOST_BY_CHANCE = 0.5
"""Share of a subset's rows below what chance reaches from which on a check warns."""


@dataclass(frozen=True)
class Standing:
    """A subset's rows against the thresholds of its target; a threshold that is not defined is None.

    Attributes:
        n_rows: Rows of the subset.
        by_chance: Score that 5 % of candidates reach against random rows of the pool in the examples' place.
        n_below_chance: Rows that score less.
        of_examples: Score that 95 % of the examples reach, each against the others.
        n_as_examples: Rows that reach it.
    """

    n_rows: int
    by_chance: float | None
    n_below_chance: int
    of_examples: float | None
    n_as_examples: int

    @property
    def share_by_chance(self) -> float:
        """Share of the rows that score less than chance reaches; 0 where that is not known."""
        return self.n_below_chance / self.n_rows if self.n_rows else 0.0

    @property
    def sentence(self) -> str:
        """What a person is told, without a full stop; "" where neither is defined, or of no rows."""
        said: list[str] = []
        if not self.n_rows:
            return ""
        if self.by_chance is not None:
            said.append(
                f"{self.n_below_chance:,} of {self.n_rows:,} rows score below {self.by_chance:.4g}, which "
                f"{PERCENT_BY_CHANCE} of candidates reach by chance"
            )
        if self.of_examples is not None:
            said.append(
                f"{self.n_as_examples:,} of {self.n_rows:,} score as {PERCENT_OF_EXAMPLES} of the in-domain examples "
                f"do, {self.of_examples:.4g} or more"
            )
        return "; ".join(said)

    @property
    def of_one_row(self) -> str:
        """The same of a single row, without a full stop."""
        said = []
        if self.by_chance is not None:
            place = "below" if self.n_below_chance else "above"
            said.append(f"{place} {self.by_chance:.4g}, which {PERCENT_BY_CHANCE} of candidates reach by chance")
        if self.of_examples is not None:
            place = "above" if self.n_as_examples else "below"
            said.append(f"{place} {self.of_examples:.4g}, which {PERCENT_OF_EXAMPLES} of the in-domain examples reach")
        return "; ".join(said)

    @property
    def thresholds(self) -> tuple[str, str]:
        """The two scores as cells of a table."""
        by_chance, of_examples = (
            "–" if score is None else f"{score:.4g}" for score in (self.by_chance, self.of_examples)
        )
        return by_chance, of_examples

    @property
    def counts(self) -> str:
        """How many rows are below the one and reach the other, as a cell of a table."""
        below = "–" if self.by_chance is None else f"{self.n_below_chance:,}"
        as_examples = "–" if self.of_examples is None else f"{self.n_as_examples:,}"
        return f"{below} | {as_examples} of {self.n_rows:,}"

    @property
    def stated(self) -> dict[str, float]:
        """What the manifest and metadata state; what is not defined is absent."""
        found: dict[str, float] = {}
        if self.by_chance is not None:
            found |= {"score_by_chance": self.by_chance, "n_below_chance": self.n_below_chance}
        if self.of_examples is not None:
            found |= {"score_of_examples": self.of_examples, "n_as_examples": self.n_as_examples}
        return found


def held_against(recipe: Recipe, snapshot: Snapshot, method: str, target: str) -> pl.DataFrame:
    """Rows of `THRESHOLDS` for the subsets of a target: none of one that capabilities choose in turns.

    Each takes its rows by its own score: the best rows of one that is unlike the others are below what chance reaches
    of the one score for all.
    """
    found = thresholds_of(snapshot, method, target)
    return found.clear() if takes_turns(recipe, method, target) else found


def standing(thresholds: pl.DataFrame, scores: pl.Series) -> Standing:
    """Where rows stand.

    Args:
        thresholds: Rows of `THRESHOLDS` of their method and target: one, or none where none is defined.
        scores: Scores of the rows.
    """
    row: Mapping[str, float | None] = thresholds.row(0, named=True) if len(thresholds) else {}
    by_chance, of_examples = row.get("by_chance"), row.get("of_examples")
    n_below = int((scores < by_chance).sum()) if by_chance is not None else 0
    n_as = int((scores >= of_examples).sum()) if of_examples is not None else 0
    return Standing(len(scores), by_chance, n_below, of_examples, n_as)
