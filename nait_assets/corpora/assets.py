"""Assets of the corpora."""

from collections import Counter
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.corpora.contamination import contaminated
from nait_assets.corpora.corpus import Corpus, corpus_name, read_corpus, source_inputs
from nait_assets.corpora.published import PublishedList, published_list
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.tables import (
    CANDIDATE_POOL,
    CONTAMINATED_CANDIDATES,
    CORPUS_COUNTS,
    EVALUATION_SET,
    IN_DOMAIN_SET,
    N_CHARACTERS,
    REJECTED_ROWS,
    Table,
    content_version,
    published_table,
)

ROOM = "corpora"
ALGORITHM = "2"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The candidate pool and the in-domain sets of a recipe."""
    common: dict[str, Any] = {
        "key_prefix": ROOM,
        "group_name": ROOM,
        "kinds": {"polars", "duckdb"},
        "automation_condition": when_inputs_change(),
    }

    @dg.asset(code_version=f"{ALGORITHM}:{fingerprint(recipe.candidates)}", **common)
    def candidate_pool(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """The examples that we choose from. One row is one distinct conversation, by the hash of its messages."""
        return _write(context, warehouse, recipe, CANDIDATE_POOL)

    in_domain = {name: recipe.capabilities[name].examples for name in recipe.capabilities_with_examples}

    @dg.asset(partitions_def=partitions.with_examples, code_version=f"{ALGORITHM}:{fingerprint(in_domain)}", **common)
    def in_domain_set(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Examples of a capability that the model should gain. One row is one distinct conversation."""
        return _write(context, warehouse, recipe, IN_DOMAIN_SET)

    @dg.asset(
        partitions_def=partitions.evaluation, code_version=f"{ALGORITHM}:{fingerprint(recipe.evaluation)}", **common
    )
    def evaluation_set(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Held-out examples for a later evaluation. One row is one distinct conversation; no score reads it."""
        return _write(context, warehouse, recipe, EVALUATION_SET)

    example_sets = [
        *([in_domain_set] if recipe.capabilities_with_examples else []),
        *([evaluation_set] if recipe.evaluation else []),
    ]

    @dg.asset(
        deps=[candidate_pool, *example_sets],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.decontamination.ngram, sorted(_example_corpora(recipe)))}",
        **common,
    )
    def contaminated_candidates(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Candidates that leak an in-domain or held-out example. One row is one candidate and one such corpus."""
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL)
            examples = {
                corpus: snapshot.read_partition(table, partition)
                for corpus, (table, partition) in _example_corpora(recipe).items()
            }
        frame = contaminated(pool, examples, recipe.decontamination.ngram)
        record = lineage.record_of(context, content_version(frame, CONTAMINATED_CANDIDATES.key), snapshot.inputs)
        with warehouse.tables.transaction() as transaction:
            transaction.replace(CONTAMINATED_CANDIDATES, frame)
            transaction.put_record(record)
        return lineage.result(record, _contamination_metadata(frame, len(pool)))

    contamination = [contaminated_candidates] if recipe.has_examples else []
    lists = [_published_asset(name, recipe, common) for name in recipe.published_lists]
    return [candidate_pool, *example_sets, *contamination, *lists]


def _published_asset(name: str, recipe: Recipe, common: dict[str, Any]) -> dg.AssetsDefinition:
    table = published_table(name)

    @dg.asset(
        name=f"published_{name}",
        description="Candidates that others chose. One row is one candidate on the published list, by its place there.",
        deps=[dg.AssetKey(CANDIDATE_POOL.asset.split("/"))],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.published[name])}",
        **common,
    )
    def published(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        corpus = corpus_name(table.asset, None)
        inputs = source_inputs(recipe, corpus, warehouse.hashes)
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL)
        found = published_list(recipe, name, pool)
        record = lineage.record_of(context, content_version(found.rows, table.key), {**inputs, **snapshot.inputs})
        with warehouse.tables.transaction() as transaction:
            transaction.replace(table, found.rows)
            transaction.replace(REJECTED_ROWS, found.rejected, corpus=corpus)
            transaction.replace(CORPUS_COUNTS, found.counts, corpus=corpus)
            transaction.put_record(record)
        return lineage.result(record, {"dagster/table_name": table.name, **_published_metadata(found, len(pool))})

    return published


def _published_metadata(found: PublishedList, n_candidates: int) -> dict[str, object]:
    return {
        "dagster/row_count": len(found.rows),
        "n_rows_read": int(found.counts["n_rows"][0]),
        "n_not_in_pool": found.n_not_in_pool,
        "n_rejected": len(found.rejected) - found.n_not_in_pool,
        "n_duplicates": int(found.counts["n_duplicates"][0]),
        "share_of_pool": len(found.rows) / n_candidates,
        "dagster/column_schema": lineage.column_schema(found.rows),
    }


def _example_corpora(recipe: Recipe) -> dict[str, tuple[Table, str]]:
    """Table and partition of every corpus that candidates could leak, by the corpus' name."""
    places = [(IN_DOMAIN_SET, name) for name in recipe.capabilities_with_examples]
    places += [(EVALUATION_SET, name) for name in recipe.evaluation_names]
    return {corpus_name(table.asset, name): (table, name) for table, name in places}


def _contamination_metadata(frame: pl.DataFrame, n_candidates: int) -> dict[str, object]:
    by_corpus = {corpus: count for corpus, count in Counter(frame["corpus"].to_list()).most_common()}
    return {
        "dagster/table_name": CONTAMINATED_CANDIDATES.name,
        "dagster/row_count": len(frame),
        "n_candidates": n_candidates,
        "n_contaminated": frame["sample_id"].n_unique(),
        "by_corpus": dg.MetadataValue.json(by_corpus),
        "dagster/column_schema": lineage.column_schema(frame),
        "matches": lineage.table_metadata(frame.head(20).with_columns(pl.col("shared_text").str.slice(0, 160))),
    }


def _write(
    context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, table: Table
) -> dg.MaterializeResult:
    partition = lineage.partition_name(context)
    name, where = corpus_name(table.asset, partition), table.slice_of(partition)
    inputs = source_inputs(recipe, name, warehouse.hashes)
    corpus = read_corpus(recipe, name)
    record = lineage.record_of(context, content_version(corpus.examples, table.key), inputs)
    with warehouse.tables.transaction() as transaction:
        transaction.replace(table, corpus.examples, **where)
        transaction.replace(REJECTED_ROWS, corpus.rejected, corpus=name)
        transaction.replace(CORPUS_COUNTS, corpus.counts, corpus=name)
        transaction.put_record(record)
    return lineage.result(record, {"dagster/table_name": table.name, **_metadata(corpus)})


def _metadata(corpus: Corpus) -> dict[str, object]:
    reasons = Counter(corpus.rejected["reason"].to_list()).most_common(10)
    examples = corpus.examples
    characters = examples.select(characters=N_CHARACTERS)
    return {
        "dagster/row_count": len(examples),
        "n_rows_read": corpus.n_rows,
        "n_rejected": len(corpus.rejected),
        "n_duplicates": corpus.n_duplicates,
        "n_unsampled": corpus.n_unsampled,
        "median_characters": float(characters.to_series().median() or 0),  # type: ignore[arg-type]
        "length_distribution": plots.histogram(characters, "characters"),
        "rejected": dg.MetadataValue.md("\n".join(f"- {count} × {reason}" for reason, count in reasons) or "none"),
        "topics": dg.MetadataValue.json(
            {str(topic): count for topic, count in Counter(examples["topic"].to_list()).most_common(30)}
        ),
        "dagster/column_schema": lineage.column_schema(examples),
        "examples": lineage.table_metadata(
            examples.head(5).select(
                "sample_id", "topic", text=pl.col("messages").list.first().struct.field("content").str.slice(0, 200)
            )
        ),
    }
