"""Measurements: what is found out about each sample by itself, one row a sample, such as the loss of its answer.

Belongs here: what a measurement is, and how its table is brought up to date. A finished chunk is staged in the table's
own file, and moved into the table at the end: a run that is cut off loses the chunk in flight.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from nait_assets.errors import DataError
from nait_assets.lineage import Record, reference
from nait_assets.models.cost import Cost, add_cost
from nait_assets.models.progress import Progress
from nait_assets.models.running import RunOptions, model_inputs
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot, Store, Transaction
from nait_assets.tables import (
    CANDIDATE_POOL,
    IN_DOMAIN_SET,
    REJECTED_SAMPLES,
    Table,
    content_version,
    rejection_rows,
    version_with_refused,
)

ROOM = "measurements"
ALGORITHM = "2"
"""Of what all measurements have in common; 2: what was refused is part of the version."""
IDENTITIES = Table(f"{ROOM}.identity", pl.Schema({"identity": pl.String()}), (), ("identity",))
"""In a measurement's file: the hash of how its rows, finished or staged, were read."""


@dataclass(frozen=True)
class Chunk:
    """What was found out about some samples.

    Attributes:
        rows: Columns `sample_id` and those of the measurement.
        rejected: Pairs of `sample_id` and reason, of those about which nothing could be found out.
        cost: Cost of this part; its seconds are measured by whoever asked.
    """

    rows: pl.DataFrame
    rejected: Sequence[tuple[str, str]] = ()
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class MeasurementContext:
    """What a measurement may use.

    Attributes:
        recipe: The recipe.
        warehouse: For what it rests on beside the samples.
        model: Model of the recipe.
        options: How a model is run; they do not change what is read.
        corpus: `candidates` or a capability.
        log_line: Function that takes lines for the run's log.
    """

    recipe: Recipe
    warehouse: Warehouse
    model: LanguageModel
    options: RunOptions
    corpus: str
    log_line: Callable[[str], None]


def of_the_model(recipe: Recipe, model: LanguageModel) -> dict[str, str]:
    """Versions of the recipe's model, for what reads nothing else from outside."""
    return model_inputs(model, recipe.model.source)


def _nothing_to_check(_recipe: Recipe, _model: LanguageModel) -> None:
    return None


@dataclass(frozen=True)
class Measurement:
    """Something that is found out about each sample by itself.

    Attributes:
        name: `outputs` makes the assets `candidate_outputs` and `in_domain_outputs`.
        description: What one row is, shown in Dagster.
        columns: Columns of a row, beside `sample_id`.
        read: Function from the context and the samples that the table lacks (columns `sample_id`, `messages`) to
            chunks; whatever order and size they have, each is staged as it comes.
        settings: Function from the recipe to what of it changes a row.
        version: Version of its algorithm.
        upstream: Keys of the unpartitioned assets that it reads beside the corpus.
        external_versions: Function from the recipe and its model to versions of what it reads from outside, by name;
            the model's by default. It raises UserError for what cannot be found.
        preflight: Function that raises UserError for what a user got wrong, before anything is made.
        kinds: Dagster's, shown as icons.
        pool: Dagster's, whose limit says how many run at once.
    """

    name: str
    description: str
    columns: pl.Schema
    read: Callable[[MeasurementContext, pl.DataFrame], Iterator[Chunk]]
    settings: Callable[[Recipe], Any]
    version: str = "1"
    upstream: tuple[str, ...] = ()
    external_versions: Callable[[Recipe, LanguageModel], dict[str, str]] = of_the_model
    preflight: Callable[[Recipe, LanguageModel], None] = _nothing_to_check
    kinds: frozenset[str] = frozenset({"pytorch", "duckdb"})
    pool: str = "language_model"

    @property
    def candidates(self) -> Table:
        """The table of the candidates' rows, in a file of its own."""
        return self._table(f"{ROOM}.candidate_{self.name}")

    @property
    def examples(self) -> Table:
        """The table of the in-domain examples' rows, in one file a capability."""
        return self._table(f"{ROOM}.in_domain_{self.name}")

    @property
    def assets(self) -> tuple[str, str]:
        """Keys of the assets of the candidates and of the in-domain examples."""
        return self.candidates.asset, self.examples.asset

    def table_of(self, corpus: str) -> Table:
        """The table of a corpus' rows."""
        return self.candidates if corpus == POOL else self.examples

    def code_version(self, recipe: Recipe) -> str:
        """Code version of its assets."""
        return f"{ALGORITHM}.{self.version}:{fingerprint(self.settings(recipe))}"

    def _table(self, name: str) -> Table:
        return Table(name, pl.Schema({"sample_id": pl.String(), **self.columns}), (), ("sample_id",))


@dataclass(frozen=True)
class Update:
    """What bringing a measurement up to date did.

    Attributes:
        rows: All that the table holds now.
        n_read: Rows that are new in it.
        n_removed: Rows of samples that are no longer in the corpus.
        rejected: Pairs of `sample_id` and reason.
        data_version: Hash of the rows and of what was rejected.
        cost: Cost of this run.
    """

    rows: pl.DataFrame
    n_read: int
    n_removed: int
    rejected: tuple[tuple[str, str], ...]
    data_version: str
    cost: Cost = field(default_factory=Cost)


def store_of(warehouse: Warehouse, name: str, corpus: str) -> Store:
    """The file of a measurement of a corpus.

    Args:
        warehouse: warehouse of the home.
        name: name of the measurement.
        corpus: `candidates`, or a capability for its in-domain set.
    """
    return warehouse.of_corpus(f"{ROOM}/{name}", corpus)


def corpus_of(warehouse: Warehouse, corpus: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """The samples of a corpus, `candidates` or a capability's, and the version of what was read."""
    with warehouse.tables.snapshot() as tables:
        if corpus == POOL:
            return tables.read(CANDIDATE_POOL), tables.inputs
        return tables.read(IN_DOMAIN_SET, capability=corpus), tables.inputs


def rows_of(warehouse: Warehouse, measurement: Measurement, corpus: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """The rows of a measurement by `sample_id`, and the version of what was read.

    Raises:
        WarehouseError: It has not been made.
    """
    with store_of(warehouse, measurement.name, corpus).snapshot() as snapshot:
        snapshot.note(measurement.table_of(corpus).asset, "" if corpus == POOL else corpus)
        return snapshot.rows(measurement.table_of(corpus)).sort("sample_id"), snapshot.inputs


def rejected_of(warehouse: Warehouse, measurement: Measurement, corpus: str) -> dict[str, str]:
    """Samples about which a measurement could find out nothing, and why."""
    with store_of(warehouse, measurement.name, corpus).snapshot() as snapshot:
        rows = snapshot.rows(REJECTED_SAMPLES, corpus=corpus)
    return dict(zip(rows["sample_id"].to_list(), rows["reason"].to_list(), strict=True))


def stored_version(snapshot: Snapshot, measurement: Measurement, corpus: str) -> str:
    """Data version of what a measurement's file holds: its rows, and the samples that were refused and why."""
    table = measurement.table_of(corpus)
    return version_with_refused(
        content_version(snapshot.rows(table), table.key), snapshot.rows(REJECTED_SAMPLES, corpus=corpus)
    )


def identity_of(snapshot: Snapshot) -> dict[str, str]:
    """How a file's rows were read, as a record has it beside its data version: the next run goes by that."""
    return {IDENTITIES.name: snapshot.digest(IDENTITIES)}


def bring_up_to_date(
    measurement: Measurement,
    context: MeasurementContext,
    inputs: Mapping[str, str],
    record_of: Callable[[str], Record],
) -> Update:
    """Make a measurement's table hold a row of every sample of the corpus that can be read, and nothing else.

    What the table has is kept as long as the measurement, its settings and its inputs beside the corpus
    are the same.

    Args:
        measurement: What to find out.
        context: What the measurement may use.
        inputs: Versions of what it rests on beside the corpus: assets, models.
        record_of: The version record for a data version, written in the same transaction as the rows.

    Raises:
        DataError: Nothing can be found out about any sample.
    """
    corpus, _ = corpus_of(context.warehouse, context.corpus)
    store, table = store_of(context.warehouse, measurement.name, context.corpus), measurement.table_of(context.corpus)
    identity = fingerprint(measurement.code_version(context.recipe), dict(inputs))
    with store.transaction() as transaction:
        known = _prepare(transaction, table, identity)
        lent = _lent(measurement, context, identity, set(corpus["sample_id"]) - known)
        transaction.append(_staged(table), lent)
    known |= set(lent["sample_id"])
    missing = corpus.filter(~pl.col("sample_id").is_in(list(known))).select("sample_id", "messages", "conversation")
    rejected, cost = _stage(measurement, context, missing)
    wanted = corpus["sample_id"].to_list()
    with store.transaction() as transaction:
        held = transaction.rows(table)
        rows = pl.concat([held, transaction.rows(_staged(table))]).filter(pl.col("sample_id").is_in(wanted))
        lost = set(wanted) - set(rows["sample_id"].to_list()) - {sample_id for sample_id, _ in rejected}
        assert not lost, f"{measurement.name} says nothing of {len(lost)} samples, such as {min(lost)}"
        if rows.is_empty():
            reason = f"; the first: {rejected[0][1]}" if rejected else ": there is none"
            raise DataError(f"{measurement.name} of {context.corpus}: not one example can be read{reason}")
        transaction.replace(table, rows)
        transaction.connection.execute(f"DELETE FROM {_staged(table).name}")
        transaction.replace(REJECTED_SAMPLES, rejection_rows(rejected), corpus=context.corpus)
        version = version_with_refused(content_version(rows, table.key), rejection_rows(rejected))
        transaction.put_record(replace(record_of(version), beside=identity_of(transaction)))
    n_read = len(set(rows["sample_id"].to_list()) - set(held["sample_id"].to_list()))
    n_removed = len(held.filter(~pl.col("sample_id").is_in(wanted)))
    return Update(rows.sort("sample_id"), n_read, n_removed, tuple(rejected), version, cost)


def _stage(
    measurement: Measurement, context: MeasurementContext, missing: pl.DataFrame
) -> tuple[list[tuple[str, str]], Cost]:
    """Measure samples, and stage each chunk as it comes; pairs of `sample_id` and reason of the rejected, and the cost.

    A run that fails has spent what its finished chunks cost: it is recorded too.
    """
    store, table = store_of(context.warehouse, measurement.name, context.corpus), measurement.table_of(context.corpus)
    rejected: list[tuple[str, str]] = []
    cost, n_missing = Cost(), len(missing)
    progress = Progress(f"{measurement.name} of {context.corpus}", [(n_missing, n_missing)], context.log_line, "sample")
    try:
        progress.begin()
        started = time.monotonic()
        for chunk in measurement.read(context, missing) if n_missing else ():
            with store.transaction() as transaction:
                transaction.append(_staged(table), _in_order(chunk.rows, table))
            rejected += chunk.rejected
            progress.advance(len(chunk.rows) + len(chunk.rejected), len(chunk.rows) + len(chunk.rejected))
            now = time.monotonic()
            cost += replace(chunk.cost, seconds=now - started)
            started = now
    except BaseException:
        with context.warehouse.tables.transaction() as transaction:
            add_cost(transaction, table.asset, "" if context.corpus == POOL else context.corpus, cost)
        raise
    finally:
        progress.close()
    return rejected, cost


def _prepare(transaction: Transaction, table: Table, identity: str) -> set[str]:
    """Samples that the file has rows of, finished or staged; none where they were read in another way."""
    stored = transaction.rows(IDENTITIES)["identity"].to_list() if transaction.has_table(IDENTITIES.name) else []
    empty = pl.DataFrame(schema=table.columns)
    if stored != [identity]:
        for name in (table.name, _staged(table).name):
            transaction.connection.execute(f"DROP TABLE IF EXISTS {name}")
        transaction.replace(IDENTITIES, pl.DataFrame({"identity": [identity]}))
    for one in (table, _staged(table)):
        if not transaction.has_table(one.name):
            transaction.append(one, empty)
    return {name for one in (table, _staged(table)) for name in _ids(transaction, one)}


def _lent(measurement: Measurement, context: MeasurementContext, identity: str, sample_ids: set[str]) -> pl.DataFrame:
    """Of a smaller in-domain set, the rows that the whole one has of these samples, found out in the same way."""
    table, sets = measurement.table_of(context.corpus), context.recipe.smaller_sets
    store = store_of(context.warehouse, measurement.name, sets[context.corpus][0]) if context.corpus in sets else None
    if store is None or not store.path.exists():
        return table.columns.to_frame()
    with store.snapshot() as snapshot:
        known = snapshot.rows(IDENTITIES)["identity"].to_list() if snapshot.has_table(IDENTITIES.name) else []
        rows = snapshot.rows(table) if known == [identity] else table.columns.to_frame()
    return rows.filter(pl.col("sample_id").is_in(list(sample_ids)))


def _ids(snapshot: Snapshot, table: Table) -> list[str]:
    return [name for (name,) in snapshot.connection.execute(f"SELECT sample_id FROM {table.name}").fetchall()]


def _staged(table: Table) -> Table:
    return replace(table, name=f"{table.name}_staged")


def _in_order(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    return rows.select(list(table.columns)).cast(table.columns)


def upstream_versions(warehouse: Warehouse, measurement: Measurement) -> dict[str, str]:
    """Versions of the assets that a measurement rests on beside its corpus.

    Raises:
        WarehouseError: One has not been made.
    """
    if not measurement.upstream:
        return {}
    with warehouse.tables.snapshot() as tables:
        return {reference(asset): tables.note(asset).data_version for asset in measurement.upstream}
