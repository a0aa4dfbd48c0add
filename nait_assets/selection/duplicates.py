"""Duplicates inside a subset: rows that ask, or answer, what another of its rows does, and near duplicates.

Equal conversations are one candidate, so none of a subset's rows are equal as a whole. What is the same here is equal
but for case and white space.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import polars as pl

from nait_assets.corpora.filtered import FILTERED_CANDIDATES, NEAR_DUPLICATES
from nait_assets.recipe import Recipe
from nait_assets.resources.warehouse import Snapshot


@dataclass(frozen=True)
class Duplicates:
    """How many of a subset's rows would go if of equal ones one were kept.

    Attributes:
        n_repeated_questions: Rows that ask what another row asks.
        n_repeated_answers: Rows that answer what another row answers.
        n_near_duplicates: Rows that nearly repeat another row; None where the recipe does not look for them.
    """

    n_repeated_questions: int
    n_repeated_answers: int
    n_near_duplicates: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The numbers that there are, by their names."""
        return {name: count for name, count in asdict(self).items() if count is not None}

    @property
    def sentence(self) -> str:
        """The numbers in words, without a full stop."""
        asked = f"{self.n_repeated_questions:,} ask what another of the rows asks"
        said = f"{asked}, {self.n_repeated_answers:,} answer what another answers"
        return said if self.n_near_duplicates is None else f"{said}, {self.n_near_duplicates:,} nearly repeat another"


def texts_of(pool: pl.DataFrame) -> pl.DataFrame:
    """What candidates ask and answer, as it is compared: columns `sample_id`, and hashes `question` and `answer`.

    Args:
        pool: Columns `sample_id`, `messages`.
    """
    return pool.select("sample_id", question=_said("user", "tool"), answer=_said("assistant"))


def _said(*roles: str) -> pl.Expr:
    element = pl.element()
    texts = element.filter(element.struct.field("role").is_in(roles)).struct.field("content")
    joined = pl.col("messages").list.eval(texts).list.join("\n").str.to_lowercase()
    return joined.str.replace_all(r"\s+", " ").str.strip_chars().hash()


def near_duplicates_read(recipe: Recipe, snapshot: Snapshot) -> dict[str, str] | None:
    """Near duplicates and the candidate that each repeats, noted as read; None where the recipe looks for none.

    Raises:
        WarehouseError: They have not been looked for yet.
    """
    if recipe.filters is None:
        return None
    found = snapshot.read(FILTERED_CANDIDATES).filter(pl.col("filter") == NEAR_DUPLICATES)
    return dict(found.select("sample_id", "duplicate_of").rows()) if recipe.filters.near_duplicates else None


def duplicates_in(rows: pl.DataFrame, near: Mapping[str, str] | None) -> Duplicates:
    """The duplicates among rows.

    Args:
        rows: Columns of `texts_of`.
        near: As `near_duplicates_read`.
    """
    n_rows = len(rows)
    n_groups = None if near is None else len({near.get(name, name) for name in rows["sample_id"].to_list()})
    return Duplicates(
        n_rows - rows["question"].n_unique(),
        n_rows - rows["answer"].n_unique(),
        None if n_groups is None else n_rows - n_groups,
    )
