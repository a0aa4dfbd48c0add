"""Assets of the corpora."""

from collections import Counter
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage
from nait_assets.automation import when_inputs_change
from nait_assets.corpora.corpus import Corpus, read_corpus, source_inputs
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.tables import CANDIDATE_POOL, IN_DOMAIN_SET, REJECTED_ROWS, Table, content_version

ROOM = "corpora"
ALGORITHM = "1"


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
        return _write(context, warehouse, recipe, POOL, CANDIDATE_POOL)

    in_domain = {name: recipe.capabilities[name].examples for name in recipe.capabilities_with_examples}

    @dg.asset(partitions_def=partitions.with_examples, code_version=f"{ALGORITHM}:{fingerprint(in_domain)}", **common)
    def in_domain_set(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Examples of a capability that the model should gain. One row is one distinct conversation."""
        return _write(
            context, warehouse, recipe, context.partition_key, IN_DOMAIN_SET, capability=context.partition_key
        )

    return [candidate_pool, in_domain_set] if recipe.capabilities_with_examples else [candidate_pool]


def _write(
    context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, name: str, table: Table, **where: str
) -> dg.MaterializeResult:
    inputs = source_inputs(recipe, name, warehouse.hashes)
    corpus = read_corpus(recipe, name)
    record = lineage.record_of(context, content_version(corpus.examples, table.key), inputs)
    with warehouse.tables.writing() as transaction:
        transaction.replace(table, corpus.examples, **where)
        transaction.replace(REJECTED_ROWS, corpus.rejected, corpus=name)
        transaction.put_record(record)
    return lineage.result(record, {"dagster/table_name": table.name, **_metadata(corpus)})


def _metadata(corpus: Corpus) -> dict[str, object]:
    reasons = Counter(corpus.rejected["reason"].to_list()).most_common(10)
    examples = corpus.examples
    characters = examples.select(
        pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
    )
    return {
        "dagster/row_count": len(examples),
        "n_rows_read": corpus.n_rows,
        "n_rejected": len(corpus.rejected),
        "n_duplicates": corpus.n_duplicates,
        "n_unsampled": corpus.n_unsampled,
        "median_characters": float(characters.to_series().median() or 0),  # type: ignore[arg-type]
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
