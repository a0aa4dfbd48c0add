"""A corpus from its sources: rows read, rejected with a reason, sampled by content, duplicates dropped and counted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from nait_assets.corpora.conversation import RowRejected, columns_of, reader_of, sample_id
from nait_assets.recipe import POOL, PUBLISHED, Recipe, RecipeError, Source, seeded_order
from nait_assets.resources.dataset_source import SourceRow, fingerprint_of, read_rows
from nait_assets.resources.files import HashCache
from nait_assets.tables import EXAMPLE, REJECTED


@dataclass(frozen=True)
class Corpus:
    """Examples and what became of the rest.

    Attributes:
        examples: One row per sample, columns of `tables.EXAMPLE`.
        rejected: One row per row that could not be used, columns of `tables.REJECTED`.
        n_rows: Rows read from all sources.
        n_duplicates: Rows dropped because an equal conversation stands earlier.
        n_unsampled: Usable rows left out by `limit` and `skip`.
    """

    examples: pl.DataFrame
    rejected: pl.DataFrame
    n_rows: int
    n_duplicates: int
    n_unsampled: int

    @property
    def counts(self) -> pl.DataFrame:
        """What became of the rows, one row, columns of `tables.CORPUS_COUNTS` but the corpus."""
        return pl.DataFrame(
            {"n_rows": [self.n_rows], "n_duplicates": [self.n_duplicates], "n_unsampled": [self.n_unsampled]}
        )


def source_inputs(recipe: Recipe, corpus: str, hashes: HashCache) -> dict[str, str]:
    """The state that each source of a corpus is in now.

    Raises:
        RecipeError: A source does not exist or cannot be reached.
    """
    return {
        f"source:{number}:{source.source}": fingerprint_of(source, recipe, hashes)
        for number, source in enumerate(recipe.corpus_sources(corpus))
    }


def read_corpus(recipe: Recipe, corpus: str) -> Corpus:
    """Read the candidate pool (`candidates`), a capability's in-domain set, or a corpus whose name has a prefix.

    Raises:
        RecipeError: A source cannot be read or lacks a column of its format, or too few rows are left.
    """
    examples: dict[str, dict[str, Any]] = {}
    rejected: list[dict[str, Any]] = []
    n_rows = n_duplicates = n_unsampled = 0
    for source in recipe.corpus_sources(corpus):
        read = _read_source(source, recipe)
        chosen = _sample(read.examples, source)
        n_rows += read.n_rows
        n_unsampled += len(read.examples) - len(chosen)
        n_duplicates += read.n_duplicates + sum(example["sample_id"] in examples for example in chosen)
        for example in chosen:
            examples.setdefault(example["sample_id"], example)
        rejected += [{"corpus": corpus, **row} for row in read.rejected]
    _require_enough(recipe, corpus, len(examples), n_rows, rejected)
    return Corpus(
        pl.DataFrame(list(examples.values()), schema=EXAMPLE),
        pl.DataFrame(rejected, schema=REJECTED),
        n_rows,
        n_duplicates,
        n_unsampled,
    )


@dataclass(frozen=True)
class _SourceRead:
    examples: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    n_rows: int
    n_duplicates: int


def _read_source(source: Source, recipe: Recipe) -> _SourceRead:
    rows = list(read_rows(source, recipe))
    present = {column for row in rows for column in row.fields}
    needed = columns_of(source.format) | {*source.where} | ({source.topic_field} if source.topic_field else set())
    if present and (absent := sorted(needed - present)):
        raise RecipeError(
            f"{recipe.path}: source {source.source!r} has no column {', '.join(map(repr, absent))}, "
            f"which its format, `topic_field` or `where` names. Its columns: {', '.join(sorted(present))}."
        )
    rows = _where(rows, source, recipe)
    conversation = reader_of(source.format)
    examples: dict[str, dict[str, Any]] = {}
    rejected, n_duplicates = [], 0
    for row in rows:
        try:
            if row.problem is not None:
                raise RowRejected(row.problem)
            messages = conversation(row.fields)
        except RowRejected as reason:
            excerpt = _encodable(row.excerpt or str(dict(row.fields))[:80])
            rejected.append(
                {
                    "source": source.source,
                    "source_row": row.number,
                    "sample_id": None,
                    "reason": str(reason),
                    "excerpt": excerpt,
                }
            )
            continue
        identity = sample_id(messages)
        n_duplicates += identity in examples
        topic = row.fields.get(source.topic_field) if source.topic_field else source.topic
        examples.setdefault(
            identity,
            {
                "sample_id": identity,
                "messages": messages,
                "source": source.source,
                "source_row": row.number,
                "topic": None if topic is None else _encodable(str(topic)),
            },
        )
    return _SourceRead(list(examples.values()), rejected, len(rows), n_duplicates)


def _where(rows: list[SourceRow], source: Source, recipe: Recipe) -> list[SourceRow]:
    """The rows that `where` names, and those that cannot be read, of which nobody can tell.

    Values are equal as written: a CSV file holds the text `1` where Parquet holds a number.
    """
    wanted = {column: str(value) for column, value in source.where.items()}
    kept = [row for row in rows if row.problem is not None or wanted.items() <= _written(row, wanted).items()]
    readable = [row for row in rows if row.problem is None]
    if wanted and readable and all(row.problem is not None for row in kept):
        columns = {column: sorted({_written(row, [column])[column] for row in readable}) for column in wanted}
        there = "; ".join(
            f"{column} is {', '.join(map(repr, values[:20]))}{' or another' if len(values) > 20 else ''}"
            for column, values in columns.items()
        )
        raise RecipeError(
            f"{recipe.path}: no row of source {source.source!r} has {wanted}, which its `where` asks for. "
            f"In its {len(rows)} rows {there}."
        )
    return kept


def _written(row: SourceRow, columns: Iterable[str]) -> dict[str, str]:
    return {column: str(row.fields.get(column)) for column in columns}


def _encodable(text: str) -> str:
    """Text that a table can hold: JSON can spell half a surrogate pair, UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode()


def _sample(examples: list[dict[str, Any]], source: Source) -> list[dict[str, Any]]:
    """The examples after the first `skip`, at most `limit`, in an order seeded by content, returned in source order.

    Each example's place depends on its own content alone, so one row more changes at most one row of the sample, and
    samples with the same seed and adjoining `skip` and `limit` are disjoint.
    """
    if source.skip == 0 and source.limit is None:
        return examples

    end = None if source.limit is None else source.skip + source.limit
    order = seeded_order([example["sample_id"] for example in examples], str(source.seed))
    return [examples[index] for index in sorted(order[source.skip : end])]


def _require_enough(recipe: Recipe, corpus: str, n_examples: int, n_rows: int, rejected: list[dict[str, Any]]) -> None:
    needs_component = corpus in recipe.capabilities and "nait_directions" in recipe.features_needed
    needed = 2 if needs_component else 1  # a principal component is a direction of variance: one example has none
    if n_examples >= needed:
        return
    kinds = {POOL: "the candidate pool"} | {
        name: f"the in-domain set of capability {name!r}" for name in recipe.capabilities
    }
    kinds |= {f"{PUBLISHED}{name}": f"the published list {name!r}" for name in recipe.published}
    what = kinds.get(corpus, f"the held-out set {corpus!r}")
    sources = ", ".join(source.source for source in recipe.corpus_sources(corpus))
    reasons = Counter(row["reason"] for row in rejected).most_common(3)
    because = f" Rejected: {'; '.join(f'{count} x {reason}' for reason, count in reasons)}." if reasons else ""
    why = " for a principal component" if needs_component else ""
    raise RecipeError(
        f"{recipe.path}: {what} has {n_examples} usable example(s) of {n_rows} row(s) from {sources}; "
        f"{needed} are needed{why}.{because}"
    )
