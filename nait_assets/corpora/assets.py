"""Assets of the corpora."""

from collections import Counter
from collections.abc import Callable

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.corpora.catalogue import (
    CONTAMINATION_OUTPUT,
    EVALUATION_OUTPUT,
    EXAMPLES_OUTPUT,
    POOL_OUTPUT,
    TASK_OUTPUT,
    CorpusOutput,
    beside,
    conversations,
    filtered_output,
    published_output,
)
from nait_assets.corpora.contamination import contaminated
from nait_assets.corpora.corpus import Corpus, read_corpus, source_inputs
from nait_assets.corpora.filtered import NEAR_DUPLICATES, READ, filtered
from nait_assets.corpora.leaks import require_apart
from nait_assets.corpora.published import PublishedList, published_list
from nait_assets.lineage import Record, asset_key
from nait_assets.losses import as_list, kinds_of_reasons
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Transaction
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.shown import QUESTION
from nait_assets.tables import CANDIDATE_POOL, CORPUS_COUNTS, EXAMPLE, N_CHARACTERS, REJECTED_ROWS

ALGORITHM = "4"
FILTERS_ALGORITHM = "1"
KINDS = {"polars", "duckdb"}


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The pool, the in-domain and held-out sets, what contaminates them, what filters find, and published lists."""
    settings = {
        POOL_OUTPUT: recipe.candidates,
        EXAMPLES_OUTPUT: {name: recipe.capabilities[name].examples for name in recipe.capabilities_with_examples},
        EVALUATION_OUTPUT: recipe.evaluation.held_out,
        TASK_OUTPUT: {name: recipe.evaluation.tasks[name].examples for name in recipe.evaluation.names_with_examples},
    }
    return [
        *(_conversations_asset(output, settings[output], recipe, partitions) for output in conversations(recipe)),
        *([_contamination_asset(recipe, partitions)] if recipe.has_examples else []),
        *_filtered_assets(recipe, partitions),
        *(_published_asset(name, recipe, partitions) for name in recipe.published_lists),
    ]


def _conversations_asset(
    output: CorpusOutput, settings: object, recipe: Recipe, partitions: Partitions
) -> dg.AssetsDefinition:
    """The asset of the pool, the in-domain sets or the held-out sets.

    Args:
        output: what it makes.
        settings: fields of the recipe that it reads.
        recipe: recipe of its sources.
        partitions: partitions of the recipe.
    """

    @dg.asset(
        **asset_arguments(output, partitions),
        description=f"{output.description} One row is one distinct conversation, by the hash of its messages.",
        code_version=f"{ALGORITHM}:{fingerprint(settings)}",
        kinds=KINDS,
    )
    def corpus(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        name = output.corpus(lineage.partition_name(context))
        inputs = source_inputs(recipe, name, warehouse.hashes)  # before the rows, or it could be newer than they are
        read = read_corpus(recipe, name, context.log.info, warehouse.folder)
        rejected = _writes_rejected(name, read.rejected, read.counts)
        covered = beside(read.rejected, read.counts)
        return write_table(context, warehouse, output, read.kept, inputs, _metadata(read), rejected, covered)

    return corpus


def _contamination_asset(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    corpora = {output.corpus(name): (output, name) for output, name in _example_sets(recipe, partitions)}
    refuses = [recipe.decontamination.action] if recipe.training is not None else []

    @dg.asset(
        **asset_arguments(CONTAMINATION_OUTPUT, partitions),
        deps=[_whole(output, partitions) for output in conversations(recipe)],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.decontamination.ngram, sorted(corpora), *refuses)}",
        kinds=KINDS,
    )
    def contaminated_candidates(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Candidates that leak an in-domain or held-out example. One row is one candidate and one such corpus."""
        with warehouse.tables.snapshot() as snapshot:
            examples = {
                corpus: output.read(warehouse, snapshot, partition)[0]
                for corpus, (output, partition) in corpora.items()
            }
            pool = snapshot.spooled(CANDIDATE_POOL.only("sample_id", "messages"))
        frame = contaminated(pool.parts(), examples, recipe.decontamination.ngram)
        left = pool.frame("sample_id")
        if recipe.decontamination.action == "drop":
            left = left.join(frame, on="sample_id", how="anti")
        require_apart(recipe, left, examples)
        metadata = _contamination_metadata(frame, len(pool))
        return write_table(context, warehouse, CONTAMINATION_OUTPUT, frame, snapshot.inputs, metadata)

    return contaminated_candidates


def _filtered_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    filters, output = recipe.filters, filtered_output(recipe)
    if filters is None or output is None:
        return []
    sources = [source.name for source in recipe.candidates]

    @dg.asset(
        **asset_arguments(output, partitions),
        deps=[asset_key(POOL_OUTPUT.key)],
        code_version=f"{FILTERS_ALGORITHM}:{fingerprint(filters.near_duplicates, filters.quality, sources)}",
        kinds=KINDS,
    )
    def filtered_candidates(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Candidates that the recipe's filters find. One row is one of them, with the reason and what it repeats."""
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.spooled(READ)
        frame = filtered(pool.parts(), filters, sources, warehouse.folder)
        metadata = _filtered_metadata(frame, len(pool))
        return write_table(context, warehouse, output, frame, snapshot.inputs, metadata)

    return [filtered_candidates]


def _filtered_metadata(frame: pl.DataFrame, n_candidates: int) -> dict[str, object]:
    near = frame.filter(pl.col("filter") == NEAR_DUPLICATES).sort("value", "sample_id")
    return {
        "n_candidates": n_candidates,
        "by_filter": dg.MetadataValue.json(dict(Counter(frame["filter"].to_list()).most_common())),
        "least_similar": lineage.table_metadata(near.head(20)),
        "others": lineage.table_metadata(frame.filter(pl.col("filter") != NEAR_DUPLICATES).head(20)),
    }


def _whole(output: CorpusOutput, partitions: Partitions) -> dg.AssetDep:
    """All partitions of a corpus but smaller in-domain sets, whose rows are in the whole ones."""
    mapping = partitions.whole_sets() if output is EXAMPLES_OUTPUT else None
    return dg.AssetDep(asset_key(output.key), partition_mapping=mapping)


def _example_sets(recipe: Recipe, partitions: Partitions) -> list[tuple[CorpusOutput, str]]:
    """Every set of examples that candidates could leak: its output and partition; no smaller in-domain set."""
    sets = []
    for output in conversations(recipe):
        definition = partitions.of_output(output.partitions)
        names = definition.get_partition_keys() if definition else []
        sets += [(output, name) for name in names if output is not EXAMPLES_OUTPUT or name not in recipe.smaller_sets]
    return sets


def _published_asset(name: str, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    output = published_output(name)

    @dg.asset(
        **asset_arguments(output, partitions),
        description="Candidates that others chose. One row is one candidate on the published list, by position.",
        deps=[asset_key(POOL_OUTPUT.key)],
        code_version=f"{ALGORITHM}:{fingerprint(recipe.published[name])}",
        kinds=KINDS,
    )
    def published(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        corpus = output.corpus("")
        inputs = source_inputs(recipe, corpus, warehouse.hashes)
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL.only("sample_id"))
        listed = published_list(recipe, name, pool, context.log.info)
        rejected = _writes_rejected(corpus, listed.rejected, listed.counts)
        metadata = _published_metadata(listed, len(pool))
        inputs |= snapshot.inputs
        covered = beside(listed.rejected, listed.counts)
        return write_table(context, warehouse, output, listed.rows, inputs, metadata, rejected, covered)

    return published


def _writes_rejected(
    corpus: str, rejected: pl.DataFrame, counts: pl.DataFrame
) -> Callable[[Transaction, Record], None]:
    """The writing of what became of the other rows of a corpus' sources, for `write_table`."""

    def write(transaction: Transaction, _: Record) -> None:
        transaction.replace(REJECTED_ROWS, rejected, corpus=corpus)
        transaction.replace(CORPUS_COUNTS, counts, corpus=corpus)

    return write


def _published_metadata(listed: PublishedList, n_candidates: int) -> dict[str, object]:
    return {
        "n_rows_read": int(listed.counts["n_rows"][0]),
        "n_not_in_pool": listed.n_not_in_pool,
        "n_rejected": len(listed.rejected) - listed.n_not_in_pool,
        "n_duplicates": int(listed.counts["n_duplicates"][0]),
        "share_of_pool": len(listed.rows) / n_candidates,
    }


def _contamination_metadata(frame: pl.DataFrame, n_candidates: int) -> dict[str, object]:
    by_corpus = {corpus: count for corpus, count in Counter(frame["corpus"].to_list()).most_common()}
    return {
        "n_candidates": n_candidates,
        "n_contaminated": frame["sample_id"].n_unique(),
        "by_corpus": dg.MetadataValue.json(by_corpus),
        "matches": lineage.table_metadata(frame.head(20).with_columns(pl.col("shared_text").str.slice(0, 160))),
    }


def _metadata(corpus: Corpus) -> dict[str, object]:
    reasons = kinds_of_reasons(Counter(corpus.rejected["reason"].to_list()))
    parts = (part.select("topic", characters=N_CHARACTERS) for part in corpus.kept.parts("messages", "topic"))
    examples = pl.concat([pl.DataFrame(schema={"topic": pl.String, "characters": pl.UInt32}), *parts])
    first = next(corpus.kept.parts("sample_id", "topic", "messages"), EXAMPLE.to_frame())
    return {
        "n_rows_read": corpus.n_rows,
        "n_rejected": len(corpus.rejected),
        "n_duplicates": corpus.n_duplicates,
        "n_unsampled": corpus.n_unsampled,
        "n_excluded": corpus.n_excluded,
        "n_cut": corpus.n_cut,
        **({"formats": dg.MetadataValue.json(dict(corpus.formats))} if corpus.formats else {}),
        "median_characters": float(examples["characters"].median() or 0),  # type: ignore[arg-type]
        "length_distribution": plots.histogram(examples, "characters"),
        "rejected": dg.MetadataValue.md(as_list(reasons)),
        "topics": dg.MetadataValue.json(
            {str(topic): count for topic, count in Counter(examples["topic"].to_list()).most_common(30)}
        ),
        "examples": lineage.table_metadata(first.head(5).select("sample_id", "topic", text=QUESTION.str.slice(0, 200))),
    }
