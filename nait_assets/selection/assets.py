"""Assets of the selection: one subset for each method, in every cell of target x ratio."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage
from nait_assets.catalogue import losses_of
from nait_assets.corpora.catalogue import POOL_OUTPUT, findings
from nait_assets.lineage import Record, asset_key
from nait_assets.losses import Losses
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import ACTIVATIONS, Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.rooms import asset_arguments
from nait_assets.scoring.catalogue import scores_output
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.view import create_view, view_is_current
from nait_assets.selection import history
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import read_beside_pool, sentence
from nait_assets.selection.chosen import Chosen, beside, choose, chosen_by
from nait_assets.selection.comparison import changes, overlaps, stored_subsets
from nait_assets.selection.exports import Exports, training_rows
from nait_assets.selection.strategies.similarity import Vectors
from nait_assets.selection.subset import dataset_card, write_folder
from nait_assets.shown import QUESTION
from nait_assets.tables import SUBSETS, content_version

ALGORITHM = "5"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """`<method>_subset` of every method in the recipe."""
    latest: Latest[Vectors] = Latest()
    return [_subset_asset(name, recipe, partitions, latest) for name in recipe.methods]


def _subset_asset(method: str, recipe: Recipe, partitions: Partitions, latest: Latest[Vectors]) -> dg.AssetsDefinition:
    output, strategies = subset_output(method), recipe.strategies_of(method)
    found = [output.key for output in findings(recipe)]
    counted = [ACTIVATIONS] if recipe.selection.tokens else []
    drops = recipe.decontamination.action == "drop"
    further: list[str] = [recipe.selection.of] if beside(recipe) else []  # subsets of the whole pool keep their version
    further += [recipe.filters.action] if recipe.filters else []
    further += [] if recipe.selection.tokens is None else [str(recipe.selection.tokens)]

    @dg.asset(
        **asset_arguments(output, partitions),
        description=(
            f"The candidates that the recipe's strategy takes from the ranking of `{method}`: "
            f"`{'`, and for `all` `'.join(strategy.name for strategy in strategies)}`. "
            "One row is one chosen candidate, with its score and rank."
        ),
        deps=[
            *(
                dg.AssetDep(asset_key(scores_output(name).key), partition_mapping=partitions.scores_to_subsets())
                for name in dict.fromkeys((method, *beside(recipe)))
            ),
            *map(asset_key, dict.fromkeys([POOL_OUTPUT.key, *found, *counted, *read_beside_pool(strategies)])),
        ],
        code_version=f"{ALGORITHM}:{fingerprint(drops, *(one.settings for one in strategies), *further)}",
        kinds={"parquet", "json", "duckdb"},
    )
    def subset(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        target, ratio = cell_of(context.partition_key)
        chosen = choose(recipe, warehouse, method, target, ratio, latest)
        rows, folder = chosen.with_messages(), output.folder(warehouse, target, ratio)
        written = training_rows(rows)
        record = lineage.record_of(context, content_version(written, ("rank",)), chosen.inputs)
        records = warehouse.records()
        manifest = chosen.manifest(record, recipe, lineage.upstream(records, record.inputs))
        exports = Exports.of(rows, f"{method}_{target}_{ratio}", [source.name for source in recipe.candidates])
        upstream = (record for name, record in records.items() if name in manifest["lineage"] and not record.partition)
        losses = losses_of(recipe.outputs, warehouse, upstream)
        write_folder(folder, rows, manifest, _card(recipe, chosen, record, manifest["model"], exports, losses), exports)
        stored = _store(recipe, warehouse, chosen, record, manifest["lineage"])
        return lineage.result(record, _metadata(chosen, written, folder, stored))

    return subset


def _card(
    recipe: Recipe,
    chosen: Chosen,
    record: Record,
    model: Mapping[str, str] | None,
    exports: Exports,
    losses: Mapping[str, Losses],
) -> str:
    """The subset's data-set card."""
    taken = sentence(chosen.strategy, chosen.ratio, chosen.choice, chosen.ground, chosen.turns)
    return dataset_card(
        chosen.method,
        method_of(recipe, chosen.method).description,
        chosen.target,
        ". ".join(filter(None, (taken, chosen.standing.sentence))),
        len(chosen.choice.rows),
        chosen.n_candidates,
        model["source"] if model else None,
        record.inputs,
        exports.card(),
        losses,
        chosen.duplicates,
    )


def _store(
    recipe: Recipe, warehouse: Warehouse, chosen: Chosen, record: Record, upstream: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Write the rows, their history and the record; the method's and ratio's subsets that were there, by target."""
    with warehouse.tables.transaction() as transaction:
        settings = chosen_by(recipe, chosen.strategy)
        stored = stored_subsets(transaction, chosen.method, chosen.ratio, recipe.targets)
        transaction.replace(SUBSETS, chosen.choice.rows, **chosen.cell)
        history.append(
            transaction, record, **chosen.cell, chosen=chosen.choice.rows, lineage=upstream, settings=settings
        )
        beside = subset_output(chosen.method).beside(warehouse, transaction, record.partition)
        transaction.put_record(replace(record, beside=beside))
        if not view_is_current(transaction, recipe):  # filters that came after the scores say who is ineligible
            create_view(transaction, recipe)
    return stored


def _metadata(chosen: Chosen, rows: pl.DataFrame, folder: Path, stored: dict[str, list[str]]) -> dict[str, object]:
    """What people look at; `stored` holds what was there before, by target."""
    text = QUESTION.str.slice(0, 160)
    now, before = rows["sample_id"].to_list(), stored.pop(chosen.target, None)
    shared = lineage.table_metadata(overlaps(now, stored).with_columns(pl.col("overlap").round(4)))
    return {
        "dagster/table_name": SUBSETS.name,
        "dagster/row_count": len(rows),
        "dagster/column_schema": lineage.column_schema(rows),
        "n_candidates": chosen.n_candidates,
        **({chosen.lowest: float(rows["score"][-1])} if len(rows) else {}),
        "folder": dg.MetadataValue.path(str(folder)),
        "topics": dg.MetadataValue.json(
            {str(topic): count for topic, count in Counter(rows["topic"].to_list()).most_common(20)}
        ),
        "top_rows": lineage.table_metadata(
            rows.head(10).select("rank", pl.col("score").round(4), "sample_id", "topic", text=text)
        ),
        **chosen.counts,
        **({"rows_by_turn": dg.MetadataValue.json(dict(chosen.turns))} if chosen.turns else {}),
        **chosen.standing.stated,
        **chosen.duplicates.counts,
        **changes(before, now),
        **({"overlap_with_other_targets": shared} if stored else {}),
        "selection": dg.MetadataValue.json(chosen.strategy.settings),
    }
