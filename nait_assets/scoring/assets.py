"""Assets of the scores: one for each method of the recipe."""

import time
from dataclasses import replace

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.models.cost import Cost, add_cost
from nait_assets.partitions import Partitions
from nait_assets.recipe import COMPREHENSIVE_TARGET, Recipe, fingerprint, rounded_up
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Transaction
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.scoring.catalogue import put_thresholds, scores_output
from nait_assets.scoring.chance import Thresholds, thresholds
from nait_assets.scoring.inputs import MethodInputs, gathered
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.method import Method, Scores
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.ranking import ranked
from nait_assets.scoring.view import create_view
from nait_assets.shown import QUESTION
from nait_assets.tables import CANDIDATE_POOL

ALGORITHM = "5"
HELD_AGAINST = "+1"
"""Version of the thresholds, of methods that have some."""
N_SHOWN = 10
"""Best and worst rows that people look at."""
Scored = tuple[dict[str, pl.DataFrame], dict[str, Thresholds]]
"""Of every target that one pass over a method's inputs has scored, the ranking, and what it is held against."""


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """`<method>_scores` of every method in the recipe."""
    latest: Latest[Scored] = Latest()
    return [_scores_asset(method_of(recipe, name), recipe, partitions, latest) for name in recipe.methods]


def _scores_asset(
    method: Method, recipe: Recipe, partitions: Partitions, latest: Latest[Scored]
) -> dg.AssetsDefinition:
    settings, output = recipe.settings_of(method.name), scores_output(method.name)
    version = f"{ALGORITHM}.{method.version}{HELD_AGAINST if method.stand_ins else ''}"

    @dg.asset(
        **asset_arguments(output, partitions),
        description=f"{method.description}\n\nOne row is one candidate's score for the target; rank 1 is the best.",
        deps=_dependencies(method, recipe, partitions),
        code_version=f"{version}:{fingerprint(recipe.capability_names, settings)}",
        kinds={"numpy", "duckdb"},
    )
    def scores(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        target, started = context.partition_key, time.monotonic()
        frame, held_against, inputs = score(method, recipe, warehouse, target, latest)

        def beside(transaction: Transaction, record: lineage.Record) -> None:
            put_thresholds(transaction, method.name, target, covered)
            create_view(transaction, recipe)
            add_cost(transaction, record.asset, target, Cost(seconds=time.monotonic() - started))

        covered = [held_against.frame()] if held_against else []
        metadata = _shown(held_against) | _metadata(
            frame, recipe, warehouse, by_rank=recipe.strategy_of(method.name, target).name == "top"
        )
        return write_table(context, warehouse, output, frame, inputs, metadata, beside, covered)

    return scores


def _dependencies(method: Method, recipe: Recipe, partitions: Partitions) -> list[dg.AssetDep]:
    mapping = partitions.features_to_scores()
    return [
        dg.AssetDep(lineage.asset_key(name), partition_mapping=mapping if recipe.outputs[name].by_capability else None)
        for name in recipe.reads_of(method.name)
    ]


def score(
    method: Method, recipe: Recipe, warehouse: Warehouse, target: str, latest: Latest[Scored]
) -> tuple[pl.DataFrame, Thresholds | None, dict[str, str]]:
    """A target's scores, what they are held against where that is defined, and the versions of what both rest on.

    Args:
        method: method of the scores.
        recipe: recipe of the method.
        warehouse: warehouse of the home.
        target: target to score for.
        latest: what the methods' latest passes have made, from which a target is taken that was scored on the way.

    Raises:
        WarehouseError: Something that the method reads has not been made.
    """
    with gathered(recipe, warehouse, method.name, target) as found:
        made_from = (warehouse.home, recipe.targets, recipe.settings_of(method.name), found.everything)
        rankings, held_against = latest.of(method.name, made_from, lambda: _scored(method, recipe, found))
    return rankings[target], held_against.get(target), dict(found.versions)


def _scored(method: Method, recipe: Recipe, found: MethodInputs) -> Scored:
    found = replace(found, inputs=method.prepared(found.inputs))
    return _ranked(recipe, found, method.scores(found.inputs)), thresholds(method, found.inputs)


def _ranked(recipe: Recipe, found: MethodInputs, scores: Scores) -> dict[str, pl.DataFrame]:
    """The ranking of every target that was scored. The scores by example, which are large, are not kept."""
    values = dict(zip(found.inputs.targets, scores.values.T, strict=True))
    reasons = {**found.refused, **scores.reasons}
    frames = {}
    for target in values:
        by_capability = None
        if target == COMPREHENSIVE_TARGET:
            by_capability = {name: values[name] for name in recipe.capability_names}
        by_example = scores.by_example.get(target)
        frames[target] = ranked(found.inputs.sample_ids, values[target], reasons, by_example, by_capability)
    return frames


def _shown(held_against: Thresholds | None) -> dict[str, object]:
    """What people look at of the thresholds: scores that are not defined are absent."""
    found = vars(held_against) if held_against else {}
    return {f"score_{name}": found[name] for name in ("by_chance", "of_examples") if found.get(name) is not None}


def _metadata(frame: pl.DataFrame, recipe: Recipe, warehouse: Warehouse, by_rank: bool) -> dict[str, object]:
    """What people look at; `by_rank`: whether subsets take the best ranks, so that a score is their threshold."""
    scored = frame.filter(pl.col("score").is_not_null())
    thresholds = {
        ratio: float(scored["score"][place])
        for ratio in (recipe.ratios if by_rank else ())
        if (place := rounded_up(ratio, len(frame)) - 1) < len(scored)
    }
    shown = pl.concat([scored.head(N_SHOWN), scored.tail(N_SHOWN)])["sample_id"].unique()
    with warehouse.tables.snapshot() as snapshot:
        pool = snapshot.rows_of(CANDIDATE_POOL.only("sample_id", "topic", "messages"), shown.to_list())
    text = QUESTION.str.slice(0, 160)
    top, bottom = (
        lineage.table_metadata(
            rows.join(pool, on="sample_id", how="left", maintain_order="left").select(
                "rank", pl.col("score").round(4), "sample_id", "topic", text=text
            )
        )
        for rows in (scored.head(N_SHOWN), scored.tail(N_SHOWN))
    )
    quantiles = {f"score_p{int(100 * q):02}": float(scored["score"].quantile(q) or 0) for q in (0.01, 0.5, 0.99)}
    return {
        "n_without_score": len(frame) - len(scored),
        **quantiles,
        **{f"threshold_{ratio}": value for ratio, value in thresholds.items()},
        "score_distribution": plots.histogram(scored, "score", thresholds),
        "top_rows": top,
        "bottom_rows": bottom,
    }
