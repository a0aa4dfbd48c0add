"""Outputs of the toy room."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.errors import SourceError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
from nait_assets.tables import Table

WORD_FILE = "word.txt"
WORD_COUNTS = Table(
    "toys.word_counts", pl.Schema({"sample_id": pl.String(), "n_times": pl.Int64()}), (), ("sample_id",)
)


@dataclass(frozen=True, eq=False)
class CountsOutput(Output):
    """Counts of the word that a file beside the recipe names."""

    def file(self, recipe: Recipe) -> Path:
        """The file."""
        return recipe.resolve(WORD_FILE)

    def external_versions(
        self, recipe: Recipe, warehouse: Warehouse, model: LanguageModel, partition: str
    ) -> dict[str, str]:
        """The hash of the file."""
        if not self.file(recipe).exists():
            raise SourceError(f"{self.file(recipe)} does not exist: it names the word that is counted.")
        return {f"source:0:{WORD_FILE}": sha256(self.file(recipe))[:16]}


COUNTS = CountsOutput(WORD_COUNTS.asset, None, WORD_COUNTS)


def outputs(_: Recipe) -> list[Output]:
    """Outputs of the toy room of a recipe."""
    return [COUNTS]
