"""A published list: which candidates others chose from the same pool, in the order of their file.

A row of the list is a candidate if it is the same conversation, word for word: it has the same `sample_id`. The file is
taken as ranked, best first. Not every published file is (AlpaGasus' are in the order of the pool): of such a one only
membership says something, and a ratio below its share of the pool cuts it where its order happens to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import DataError
from nait_assets.recipe import PUBLISHED, Recipe
from nait_assets.tables import REJECTED, published_table

NOT_IN_POOL = "not in the candidate pool"


@dataclass(frozen=True)
class PublishedList:
    """The candidates on a list, and what became of its other rows.

    Attributes:
        rows: Columns of `tables.published_table`. Places count all distinct rows of the list, so that those that are no
            candidates leave gaps.
        rejected: Rows that cannot be used, or are no candidates; columns of `tables.REJECTED`.
        counts: One row, columns of `tables.CORPUS_COUNTS` but the corpus.
        n_not_in_pool: Rows that are no candidates.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    counts: pl.DataFrame
    n_not_in_pool: int


def published_list(
    recipe: Recipe, name: str, pool: pl.DataFrame, log_line: Callable[[str], None] | None = None
) -> PublishedList:
    """Read a list and find its rows in the pool.

    Args:
        recipe: Recipe that names the list's sources.
        name: Name of the list.
        pool: Candidates, column `sample_id`.
        log_line: Function that takes lines of progress, beside the logger.

    Raises:
        SourceError: A source cannot be read.
        DataError: Not one row of the list is a candidate.
    """
    corpus = f"{PUBLISHED}{name}"
    read = read_corpus(recipe, corpus, log_line)
    numbered = read.examples.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("position"))
    rows = numbered.join(pool.select("sample_id"), on="sample_id", how="semi", maintain_order="left")
    missing = numbered.join(pool.select("sample_id"), on="sample_id", how="anti", maintain_order="left")
    if rows.is_empty():
        sources = ", ".join(source.name for source in recipe.corpus_sources(corpus))
        raise DataError(
            f"{recipe.path}: not one of the {len(missing)} rows of the published list {name!r} (from {sources}) is "
            f"among the {len(pool)} candidates. A row is found by its whole text: choose from the data set that the "
            "list was chosen from, give the list the `format` that renders the same text, or take "
            f"{name!r} out of `methods`."
        )
    excerpt = pl.col("messages").list.first().struct.field("content").str.slice(0, 80)
    strangers = missing.select(
        pl.lit(corpus).alias("corpus"),
        "source",
        "source_row",
        "sample_id",
        pl.lit(NOT_IN_POOL).alias("reason"),
        excerpt.alias("excerpt"),
    )
    return PublishedList(
        rows.select(list(published_table(name).columns)),
        pl.concat([read.rejected, strangers.select(list(REJECTED))]),
        read.counts,
        len(missing),
    )
