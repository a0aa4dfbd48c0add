"""A corpus from its sources: rows read, rejected with a reason, sampled by content, duplicates dropped and counted.

Rows are read one after the other; the examples that are kept wait on disk. In memory are their ids, as numbers.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nait_assets.corpora.detection import SAMPLE_ROWS, AnyFormat, detect, recipe_lines
from nait_assets.corpora.formats import RowReader, RowRejected
from nait_assets.corpora.sampling import KnownRows, Rows, Sample
from nait_assets.errors import DataError, SourceError
from nait_assets.recipe import POOL, PUBLISHED, Recipe, Source, seeded_order
from nait_assets.resources.dataset_source import SourceRow, fingerprint_of, read_rows
from nait_assets.resources.files import HashCache
from nait_assets.resources.source_row import excerpt_of
from nait_assets.resources.spooled_rows import SpooledRows
from nait_assets.tables import EXAMPLE, REJECTED

REASON_CHARACTERS = 500
"""Of why a row is rejected: what a row holds may be in it."""
MOST_VALUES = 20
"""Values of a column that a message lists."""


@dataclass(frozen=True)
class Corpus:
    """Examples and what became of the rest.

    Attributes:
        kept: One row per sample, columns of `tables.EXAMPLE`.
        rejected: One row per row that could not be used, columns of `tables.REJECTED`.
        n_rows: Rows of all sources.
        n_duplicates: Rows dropped because an equal conversation stands earlier.
        n_unsampled: Usable rows left out by `limit` and `skip`.
        n_excluded: Rows left out by `where`.
        n_cut: Rows whose turns behind the last response were cut off.
        formats: Pairs of source and the format that was found, where the recipe leaves the format open.
    """

    kept: SpooledRows
    rejected: pl.DataFrame
    n_rows: int
    n_duplicates: int
    n_unsampled: int
    n_excluded: int = 0
    n_cut: int = 0
    formats: Mapping[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> pl.DataFrame:
        """The examples in memory."""
        return self.kept.frame()

    @property
    def counts(self) -> pl.DataFrame:
        """What became of the rows, one row, columns of `tables.CORPUS_COUNTS` but the corpus."""
        names = ("n_rows", "n_duplicates", "n_unsampled", "n_excluded", "n_cut")
        return pl.DataFrame({name: [getattr(self, name)] for name in names})


def source_inputs(recipe: Recipe, corpus: str, hashes: HashCache) -> dict[str, str]:
    """The state that each source of a corpus is in now.

    Raises:
        SourceError: A source does not exist or cannot be reached.
    """
    return {
        f"source:{number}:{source.name}": fingerprint_of(source, recipe, hashes)
        for number, source in enumerate(recipe.corpus_sources(corpus))
    }


def read_corpus(
    recipe: Recipe, corpus: str, log_line: Callable[[str], None] | None = None, folder: Path | None = None
) -> Corpus:
    """Read the candidate pool (`candidates`), a capability's in-domain set, or a corpus whose name has a prefix.

    Args:
        recipe: Recipe that names its sources.
        corpus: Name of the corpus.
        log_line: Function that takes lines of progress, beside the logger.
        folder: As for `SpooledRows`.

    Raises:
        SourceError: A source cannot be read or lacks a column of its format.
        DataError: Too few rows are left.
    """
    read: list[SourceReading] = []
    examples, known, n_found = SpooledRows(EXAMPLE, folder), pl.Series([], dtype=pl.UInt64), 0
    for source in recipe.corpus_sources(corpus):
        reading = SourceReading(source, recipe, log_line, folder)
        of_source = reading.examples()
        read.append(reading)
        n_found += len(of_source)
        examples = _joined(examples, of_source, known)
        known = _numbers(examples.frame("sample_id"))
    rejected = pl.concat([reading.rejected.stored().frame() for reading in read])
    n_rows = sum(reading.n_rows for reading in read)
    found = _smaller(recipe, corpus, examples)
    _require_enough(recipe, corpus, len(found), n_rows, rejected, read)
    return Corpus(
        found,
        rejected.with_columns(pl.lit(corpus).alias("corpus")).select(list(REJECTED)),
        n_rows,
        n_found - len(examples) + sum(reading.n_duplicates for reading in read),
        sum(reading.n_unsampled for reading in read) + len(examples) - len(found),
        sum(reading.n_excluded for reading in read),
        sum(reading.n_cut for reading in read),
        {reading.source.name: recipe_lines(reading.row_format) for reading in read if reading.source.format == "auto"},
    )


def _joined(examples: SpooledRows, of_source: SpooledRows, known: pl.Series) -> SpooledRows:
    """The examples of the sources so far and those of another that are not among the known ids, in this order."""
    if not len(examples):
        return of_source
    for part in of_source.parts():
        examples.append(part.filter(~_numbers(part).is_in(known.implode())))
    return examples


def _numbers(rows: pl.DataFrame) -> pl.Series:
    """The ids of rows as numbers, which take an eighth of their room."""
    return rows["sample_id"].str.to_integer(base=16, dtype=pl.UInt64)


def _smaller(recipe: Recipe, corpus: str, examples: SpooledRows) -> SpooledRows:
    """Of a smaller in-domain set the first examples in the seeded order, so that it holds those that are smaller yet.

    The order is that of `limit`, by the first source's seed over the rows of all. Other corpora are taken whole.

    Raises:
        DataError: There are no more examples than the set shall have.
    """
    if corpus not in recipe.smaller_sets:
        return examples
    capability, size = recipe.smaller_sets[corpus]
    if len(examples) <= size:
        raise DataError(
            f"{recipe.path}: capabilities.{capability}.sizes: {size} is not smaller than the {len(examples)} usable "
            f"examples of {capability!r}; name fewer, or give it more."
        )
    wanted = np.zeros(len(examples), bool)
    ids = examples.frame("sample_id")["sample_id"].to_list()
    wanted[seeded_order(ids, str(recipe.corpus_sources(corpus)[0].seed))[:size]] = True
    return examples.select(wanted)


@dataclass(frozen=True)
class _Outcome:
    """What became of a row.

    Attributes:
        reason: Why it is rejected; "" where it is not.
        is_excluded: Whether `where` leaves it out.
        is_cut: Whether its turns behind the last response were cut off.
    """

    reason: str = ""
    is_excluded: bool = False
    is_cut: bool = False


class SourceReading:
    """One source, read once.

    Attributes:
        source: Source as the recipe names it.
        row_format: Its format, found where the recipe says `auto`.
        rejected: Rows that cannot be used.
        first: Fields of its first rows.
        n_rows: Rows that were read.
        n_duplicates: Rows that repeat an earlier one.
        n_excluded: Rows left out by `where`.
        n_unsampled: Usable rows left out by `limit` and `skip`.
        n_cut: Rows whose turns behind the last response were cut off.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        log_line: Callable[[str], None] | None = None,
        folder: Path | None = None,
    ):
        self.source, self._recipe, self._folder = source, recipe, folder
        self.row_format: AnyFormat = source.format
        self.rejected = Rows(pl.Schema({name: kind for name, kind in REJECTED.items() if name != "corpus"}), folder)
        self.n_rows = self.n_duplicates = self.n_excluded = self.n_unsampled = self.n_cut = self._n_readable = 0
        self._wanted = {column: str(value) for column, value in source.where.items()}
        self._present: dict[str, None] = {}
        self._values: dict[str, set[str]] = {column: set() for column in self._wanted}
        rows = read_rows(source, recipe, log_line)
        head = list(itertools.islice(rows, SAMPLE_ROWS))
        self.first = [row.fields for row in head if row.problem is None]
        self._rows: Iterator[SourceRow] = itertools.chain(head, rows)

    def examples(self) -> SpooledRows:
        """The distinct examples that the source gives, columns of `tables.EXAMPLE`.

        Raises:
            SourceError: It cannot be read, lacks a column, or has no row that `where` asks for.
        """
        if self.row_format == "auto":
            self.row_format = self._detected()
        reader = RowReader.of(self.source, self.row_format)
        sample, seen, known = Sample(self.source, self._folder), set[int](), KnownRows[_Outcome]()
        for row in self._rows:
            self.n_rows += 1
            repeated = known.get(row.fields) if row.problem is None else None
            outcome, example = (repeated, None) if repeated is not None else self._outcome(row, reader)
            self._n_readable += row.problem is None
            if outcome.reason:
                self._reject(row, outcome.reason)
            elif outcome.is_excluded:
                self.n_excluded += 1
            else:
                self.n_cut += outcome.is_cut
                if example is None or (number := int(example["sample_id"], 16)) in seen:
                    self.n_duplicates += 1
                else:
                    seen.add(number)
                    sample.add(example)
            if repeated is None and row.problem is None:
                known.put(outcome)
        self._require_columns(reader.columns)
        taken, self.n_unsampled = sample.taken()
        return taken

    def hint(self) -> str:
        """What to write as the format, where the rows look like another one than the recipe says; else ""."""
        row_format = detect(self.first)
        if row_format is None or row_format == self.row_format:
            return ""
        return f" They look like `format: {recipe_lines(row_format)}`."

    def _detected(self) -> AnyFormat:
        row_format = detect(self.first)
        if row_format is None and self.first:
            columns = ", ".join(dict.fromkeys(name for fields in self.first for name in fields))
            raise SourceError(
                f"{self._recipe.path}: source {self.source.name!r}: `format: auto` finds no conversation in its "
                f"columns ({columns}). Write `format: {{turns: COLUMN}}` or templates, {{user: ..., assistant: ...}}."
            )
        return row_format or "messages"

    def _outcome(self, row: SourceRow, reader: RowReader) -> tuple["_Outcome", dict[str, Any] | None]:
        """What becomes of a row, and the example that it gives; none where `where` leaves it out, or it is rejected."""
        source = self.source
        if row.problem is not None:  # nobody can tell whether `where` asks for it
            return _Outcome(reason=_said(row.problem)), None
        self._present |= dict.fromkeys(row.fields)
        if self._is_excluded(row.fields):
            return _Outcome(is_excluded=True), None
        try:
            read = reader(row.fields)
        except RowRejected as reason:
            return _Outcome(reason=_said(str(reason))), None
        topic = row.fields.get(source.topic_field) if source.topic_field else source.topic
        example = {
            "sample_id": read.conversation.sample_id,
            "messages": read.conversation.plain(),
            "conversation": read.conversation.source_text(),
            "source": source.name,
            "source_row": row.number,
            "topic": None if topic is None else _encodable(str(topic)),
        }
        return _Outcome(is_cut=read.is_cut), example

    def _reject(self, row: SourceRow, reason: str) -> None:
        excerpt = _encodable(row.excerpt or excerpt_of(dict(row.fields)))
        origin = {"source": self.source.name, "source_row": row.number, "sample_id": None}
        self.rejected.add({**origin, "reason": reason, "excerpt": excerpt})

    def _is_excluded(self, fields: Mapping[str, Any]) -> bool:
        """Whether `where` leaves a row out. Values are equal as written: CSV holds the text `1`, Parquet a number."""
        written = {column: str(fields.get(column)) for column in self._wanted}
        for column, value in written.items():
            if len(self._values[column]) <= MOST_VALUES:
                self._values[column].add(value)
        return written != self._wanted

    def _require_columns(self, needed: set[str]) -> None:
        source, path = self.source, self._recipe.path
        named = needed | {*source.where} | ({source.topic_field} if source.topic_field else set())
        if self._present and (absent := sorted(named - set(self._present))):
            raise SourceError(
                f"{path}: source {source.name!r} has no column {', '.join(map(repr, absent))}, which its format, "
                f"`topic_field` or `where` names. Its columns: {', '.join(sorted(self._present))}.{self.hint()}"
            )
        if self.n_excluded and self.n_excluded == self._n_readable:
            there = "; ".join(
                f"{column} is {', '.join(map(repr, sorted(values)[:MOST_VALUES]))}"
                f"{' or another' if len(values) > MOST_VALUES else ''}"
                for column, values in self._values.items()
            )
            raise SourceError(
                f"{path}: no row of source {source.name!r} has {self._wanted}, which its `where` asks for. "
                f"In its {self.n_rows} rows {there}."
            )


def _said(reason: str) -> str:
    """A reason as it is stored."""
    said = _encodable(reason)
    return said if len(said) <= REASON_CHARACTERS else f"{said[:REASON_CHARACTERS]}..."


def _encodable(text: str) -> str:
    """Text that a table can hold: JSON can spell half a surrogate pair, UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode()


def _require_enough(
    recipe: Recipe, corpus: str, n_examples: int, n_rows: int, rejected: pl.DataFrame, read: list[SourceReading]
) -> None:
    needs_component = corpus in recipe.in_domain_names and "nait_directions" in recipe.features_needed
    needed = 2 if needs_component else 1  # a principal component is a direction of variance: one example has none
    if n_examples >= needed:
        return
    kinds = {POOL: "the candidate pool"} | {
        name: f"the in-domain set of capability {name!r}" for name in recipe.in_domain_names
    }
    kinds |= {f"{PUBLISHED}{name}": f"the published list {name!r}" for name in recipe.published}
    what = kinds.get(corpus, f"the held-out set {corpus!r}")
    sources = ", ".join(source.name for source in recipe.corpus_sources(corpus))
    reasons = Counter(rejected["reason"].to_list()).most_common(3)
    because = f" Rejected: {'; '.join(f'{count} x {reason}' for reason, count in reasons)}." if reasons else ""
    hints = "".join(dict.fromkeys(reading.hint() for reading in read)) if n_examples == 0 else ""
    why = " for a principal component" if needs_component else ""
    raise DataError(
        f"{recipe.path}: {what} has {n_examples} usable example(s) of {n_rows} row(s) from {sources}; "
        f"{needed} are needed{why}.{because}{hints}"
    )
