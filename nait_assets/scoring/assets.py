"""Assets of the scores: one for each method of the recipe."""

import dagster as dg
import numpy as np
import polars as pl

from nait_assets import lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS
from nait_assets.extraction.statistics import by_layer
from nait_assets.lineage import reference
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint, subset_size
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Transaction
from nait_assets.scoring import nait, nait_standardized, random
from nait_assets.scoring.method import Method, ScoringInputs, ranked
from nait_assets.tables import CANDIDATE_POOL, NEURON_STATISTICS, VECTOR, content_version, scores_table

ROOM = "scoring"
ALGORITHM = "1"
METHODS: dict[str, Method] = {method.name: method for method in (nait.METHOD, nait_standardized.METHOD, random.METHOD)}
_latest: dict[str, tuple[object, dict[str, np.ndarray]]] = {}
"""By method: what its latest pass read, and the scores of every target. One process reads the activations once."""


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """`<method>_scores` of every method in the recipe."""
    return [_scores_asset(METHODS[name], recipe, partitions) for name in recipe.methods]


def _scores_asset(method: Method, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    seed = recipe.seed if method.feature is None else None

    @dg.asset(
        name=f"{method.name}_scores",
        description=f"{method.description}\n\nOne row is one candidate's score for the target; rank 1 is the best.",
        deps=_dependencies(method, partitions),
        partitions_def=partitions.target,
        code_version=f"{ALGORITHM}:{fingerprint(recipe.capability_names, seed)}",
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"numpy", "duckdb"},
        automation_condition=when_inputs_change(),
    )
    def scores(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        target, table = context.partition_key, scores_table(method.name)
        frame, inputs = _score(method, recipe, warehouse, target)
        record = lineage.record_of(context, content_version(frame, table.key), inputs)
        with warehouse.tables.writing() as transaction:
            transaction.replace(table, frame, target=target)
            _create_view(transaction)
            transaction.put_record(record)
        return lineage.result(record, {"dagster/table_name": table.name, **_metadata(frame, recipe, warehouse)})

    return scores


def _dependencies(method: Method, partitions: Partitions) -> list[dg.AssetDep]:
    if method.feature is None:
        return [dg.AssetDep(dg.AssetKey(CANDIDATE_POOL.name.split(".")))]
    feature = dg.AssetKey(method.feature.name.split("."))
    statistics = [dg.AssetDep(dg.AssetKey(NEURON_STATISTICS.name.split(".")))] if method.standardizes else []
    return [
        dg.AssetDep(dg.AssetKey(CANDIDATE_ACTIVATIONS.split("/"))),
        dg.AssetDep(feature, partition_mapping=partitions.features_to_scores()),
        *statistics,
    ]


def _score(method: Method, recipe: Recipe, warehouse: Warehouse, target: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """A target's scores, and the versions of what they rest on."""
    if method.feature is None:
        with warehouse.tables.reading() as tables:
            sample_ids = sorted(tables.read(CANDIDATE_POOL)["sample_id"].to_list())
        scores = method.score(ScoringInputs(sample_ids, [], {target: {}}, {}, recipe.seed))
        return ranked(sample_ids, scores[:, 0]), tables.inputs
    with warehouse.tables.reading() as tables:
        needed = recipe.capabilities_of(target)
        features = {name: tables.read(method.feature, capability=name) for name in needed}
        statistics = by_layer(tables.read(NEURON_STATISTICS)) if method.standardizes else {}
        inputs = dict(tables.inputs)
        wanted, known = _shape(features[needed[0]]), tables.records()
        for name in recipe.capability_names:  # for the other targets, so that one pass over the activations will do
            if name not in features and reference(method.feature.asset, name) in known:
                neighbour = tables.read(method.feature, capability=name)
                if _shape(neighbour) == wanted:  # else it is of an earlier extraction, and will be made again
                    features[name] = neighbour
    with warehouse.activations(POOL).reading() as activations:
        activations.note(CANDIDATE_ACTIVATIONS)
        sample_ids = activation_table.samples(activations)["sample_id"].to_list()
        key = (warehouse.home, method.name, recipe.targets, tables.inputs, activations.inputs)
        if _latest.get(method.name, (None, {}))[0] != key:
            by_target = {
                name: {capability: features[capability] for capability in recipe.capabilities_of(name)}
                for name in recipe.targets
                if set(recipe.capabilities_of(name)) <= set(features)
            }
            blocks = activation_table.scan(activations)
            scores = method.score(ScoringInputs(sample_ids, blocks, by_target, statistics, recipe.seed))
            _latest[method.name] = key, dict(zip(by_target, scores.T, strict=True))
    return ranked(sample_ids, _latest[method.name][1][target]), {**inputs, **activations.inputs}


def _shape(feature: pl.DataFrame) -> list[tuple[int, ...]]:
    """Layers of a feature, and the widths of its vectors there."""
    return feature.sort("layer").select("layer", pl.col(VECTOR).list.len()).rows()


def _create_view(transaction: Transaction) -> None:
    """`scoring.scores(method, target, sample_id, score, rank)` over the tables of every method that has been run."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'store' AND schema_name = 'scoring'"
    methods = sorted(name.removesuffix("_scores") for (name,) in transaction.connection.execute(query).fetchall())
    parts = [
        f"SELECT '{method}' AS method, target, sample_id, score, rank FROM scoring.{method}_scores"
        for method in methods
    ]
    transaction.connection.execute(f"CREATE OR REPLACE VIEW scoring.scores AS {' UNION ALL '.join(parts)}")


def _metadata(frame: pl.DataFrame, recipe: Recipe, warehouse: Warehouse) -> dict[str, object]:
    thresholds = {ratio: float(frame["score"][subset_size(ratio, len(frame)) - 1]) for ratio in recipe.ratios}
    with warehouse.tables.reading() as snapshot:
        pool = snapshot.read(CANDIDATE_POOL)
    text = pl.col("messages").list.first().struct.field("content").str.slice(0, 160)
    top, bottom = (
        lineage.table_metadata(
            rows.join(pool, on="sample_id", how="left", maintain_order="left").select(
                "rank", pl.col("score").round(4), "sample_id", "topic", text=text
            )
        )
        for rows in (frame.head(10), frame.tail(10))
    )
    quantiles = {f"score_p{int(100 * q):02}": float(frame["score"].quantile(q) or 0) for q in (0.01, 0.5, 0.99)}
    return {
        "dagster/row_count": len(frame),
        "dagster/column_schema": lineage.column_schema(frame),
        **quantiles,
        **{f"threshold_{ratio}": value for ratio, value in thresholds.items()},
        "score_distribution": plots.histogram(frame, "score", thresholds),
        "top_rows": top,
        "bottom_rows": bottom,
    }
