"""Assets of the selection: one subset for each method, in every cell of target x ratio."""

from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import __version__, lineage
from nait_assets.automation import when_inputs_change
from nait_assets.errors import WarehouseError
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.scoring.methods import method_named
from nait_assets.selection import history
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import Choice, chosen_rows, gather, read_beside_pool, sentence
from nait_assets.selection.comparison import changes, overlaps, stored_subsets
from nait_assets.selection.exports import Exports
from nait_assets.selection.subset import dataset_card, write_folder
from nait_assets.tables import CANDIDATE_POOL, CONTAMINATED_CANDIDATES, SUBSETS, content_version, scores_table

ROOM = "selection"
ALGORITHM = "3"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """`<method>_subset` of every method in the recipe."""
    return [_subset_asset(name, recipe, partitions) for name in recipe.methods]


def _subset_asset(method: str, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    scores_key = dg.AssetKey(scores_table(method).name.split("."))
    contamination = [CONTAMINATED_CANDIDATES] if recipe.has_examples else []
    drops, strategy = recipe.decontamination.action == "drop", recipe.strategy_of(method)
    beside = read_beside_pool(strategy)

    @dg.asset(
        name=f"{method}_subset",
        description=(
            f"The candidates that the strategy `{strategy.strategy}` takes from the ranking of `{method}`. "
            "One row is one chosen candidate, with its score and rank."
        ),
        deps=[
            dg.AssetDep(scores_key, partition_mapping=partitions.scores_to_subsets()),
            *(
                dg.AssetKey(name.split("/"))
                for name in [*(table.asset for table in [CANDIDATE_POOL, *contamination]), *beside]
            ),
        ],
        partitions_def=partitions.cell,
        code_version=f"{ALGORITHM}:{fingerprint(drops, strategy.settings)}",
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"parquet", "json", "duckdb"},
        automation_condition=when_inputs_change(),
    )
    def subset(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        target, ratio = cell_of(context.partition_key)
        with warehouse.tables.snapshot() as snapshot:
            scores, pool = snapshot.read(scores_table(method), target=target), snapshot.read(CANDIDATE_POOL)
            flagged = [name for table in contamination for name in snapshot.read(table)["sample_id"].to_list()]
        material = gather(strategy, warehouse, pool, snapshot.inputs[CANDIDATE_POOL.asset])
        choice = chosen_rows(scores, ratio, flagged if drops else (), strategy, material)
        chosen = choice.rows
        rows = chosen.join(pool, on="sample_id", how="inner", maintain_order="left", validate="1:1")
        if len(rows) < len(chosen):
            gone = chosen.join(pool, on="sample_id", how="anti")["sample_id"].to_list()
            raise WarehouseError(
                f"{len(gone)} chosen candidate(s) are no longer in the pool, such as {gone[0]}: the scores "
                f"{scores_table(method).name} for {target} are older than the pool. Materialize them first; "
                "`nait run` does so in order."
            )
        inputs = {**snapshot.inputs, **(material.inputs or {})}
        record = lineage.record_of(context, content_version(rows, ("rank",)), inputs)
        folder = subset_output(method).folder(warehouse, target, ratio)
        manifest = _manifest(record, method, target, ratio, recipe, warehouse)
        exports = Exports.of(rows, f"{method}_{target}_{ratio}", [source.source for source in recipe.candidates])
        card = dataset_card(
            method,
            method_named(method).description,
            target,
            sentence(strategy, ratio, choice),
            len(rows),
            len(scores),
            manifest["model"] and recipe.model.source,
            record.inputs,
            exports.card(),
        )
        manifest |= {"selection": strategy.settings, **_counts(choice)}
        manifest["n_contaminated"] = len(set(flagged) & set(chosen["sample_id"].to_list()))
        write_folder(folder, rows, manifest, card, exports)
        with warehouse.tables.transaction() as transaction:
            stored = stored_subsets(transaction, method, ratio)
            transaction.replace(SUBSETS, chosen, method=method, target=target, ratio=ratio)
            history.append(transaction, record, method, target, ratio, chosen, manifest["lineage"])
            transaction.put_record(record)
        shown = {**_metadata(rows, len(scores), folder), **_counts(choice), **_comparison(chosen, target, stored)}
        return lineage.result(record, {**shown, "selection": dg.MetadataValue.json(strategy.settings)})

    return subset


def _counts(choice: Choice) -> dict[str, int]:
    return {"n_wanted": choice.n_wanted, "n_filled_up": choice.n_filled_up}


def _comparison(chosen: pl.DataFrame, target: str, stored: dict[str, list[str]]) -> dict[str, object]:
    """The subset beside what was stored before it: its previous version, and the other targets' subsets."""
    now, before = chosen["sample_id"].to_list(), stored.pop(target, None)
    shared = lineage.table_metadata(overlaps(now, stored).with_columns(pl.col("overlap").round(4)))
    return {**changes(before, now), **({"overlap_with_other_targets": shared} if stored else {})}


def _manifest(
    record: lineage.Record,
    method: str,
    target: str,
    ratio: str,
    recipe: Recipe,
    warehouse: Warehouse,
) -> dict[str, Any]:
    """What a subset rests on: nothing in it changes unless one of these does."""
    upstream = lineage.upstream(warehouse.records(), record.inputs)
    key = f"model:{recipe.model.source}"
    read: dict[str, str] = next((entry["inputs"] for entry in upstream.values() if key in entry["inputs"]), {})
    return {
        "asset": record.asset,
        "partition": record.partition,
        "data_version": record.data_version,
        "code_version": record.code_version,
        "nait_assets": __version__,
        "method": method,
        "target": target,
        "ratio": ratio,
        "model": {"source": recipe.model.source, "identity": read[key], "dtype": read["dtype"]} if read else None,
        "recipe": recipe.model_dump(mode="json"),
        "inputs": dict(record.inputs),
        "lineage": upstream,
    }


def _metadata(rows: pl.DataFrame, n_candidates: int, folder: Path) -> dict[str, object]:
    text = pl.col("messages").list.first().struct.field("content").str.slice(0, 160)
    return {
        "dagster/table_name": SUBSETS.name,
        "dagster/row_count": len(rows),
        "dagster/column_schema": lineage.column_schema(rows),
        "n_candidates": n_candidates,
        **({"threshold": float(rows["score"][-1])} if len(rows) else {}),
        "folder": dg.MetadataValue.path(str(folder)),
        "topics": dg.MetadataValue.json(
            {str(topic): count for topic, count in Counter(rows["topic"].to_list()).most_common(20)}
        ),
        "top_rows": lineage.table_metadata(
            rows.head(10).select("rank", pl.col("score").round(4), "sample_id", "topic", text=text)
        ),
    }
