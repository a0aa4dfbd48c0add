"""The assets of the report: the comparison of the methods, and one page a recipe."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl

from nait_assets import lineage
from nait_assets.corpora.catalogue import corpora, filtered_output
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.lineage import reference
from nait_assets.models.cost import all_costs
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.report.catalogue import COMPARISON_OUTPUT, COST_OUTPUT, PAGE_OUTPUT
from nait_assets.report.comparison import Comparison, costs, lengths, overlaps, priced, reproductions, retrievals
from nait_assets.report.contents import Page, build_page
from nait_assets.report.page_data import (
    centroids_shown,
    measurements_read,
    read,
    results_shown,
    spooled_scores,
    subsets,
)
from nait_assets.report.trainings import model_outputs
from nait_assets.resources import Warehouse
from nait_assets.resources.files import replacing, sha256
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.scoring.catalogue import scores_output
from nait_assets.scoring.explanation import explained_by
from nait_assets.scoring.methods import method_of
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import in_order
from nait_assets.tables import CANDIDATE_POOL, METHOD_COSTS, N_CHARACTERS

ALGORITHM, PAGE_ALGORITHM = "2", "4"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The comparison and the page of a recipe."""
    orders = {method: [one.name for one in recipe.strategies_of(method)] for method in sorted(recipe.methods)}
    version = fingerprint(
        recipe.name,
        recipe.model,
        recipe.extraction,
        recipe.capability_names,
        orders,
        recipe.ratios,
        *([recipe.filters.action] if recipe.filters else []),
    )

    @dg.asset(
        **asset_arguments(COMPARISON_OUTPUT, partitions),
        deps=_dependencies(recipe, [CANDIDATE_POOL.asset]),
        code_version=f"{ALGORITHM}:{fingerprint(recipe.capability_names, orders, recipe.ratios)}",
        kinds={"polars", "duckdb"},
    )
    def method_comparison(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """What each method costs, and how much it overlaps with other methods, length, and published lists.

        One row is one method, in `report.method_costs`; the other tables have one for each pair, target or list.
        """
        comparison, inputs = _compared(recipe, warehouse)
        record = lineage.record_of(context, comparison.data_version, inputs)
        with warehouse.tables.transaction() as transaction:
            for table, frame in comparison.tables():
                transaction.replace(table, frame)
            beside = COMPARISON_OUTPUT.beside(warehouse, transaction, "")
            transaction.put_record(replace(record, beside=beside))
        shown = {
            table.name.removeprefix("report.method_"): lineage.table_metadata(frame.head(100))
            for table, frame in comparison.tables()
            if not frame.is_empty()
        }
        return lineage.result(record, {"dagster/row_count": len(comparison.costs), **shown})

    @dg.asset(
        **asset_arguments(PAGE_OUTPUT, partitions),
        deps=[*_dependencies(recipe, _read_by_the_page(recipe)), method_comparison],
        code_version=f"{PAGE_ALGORITHM}:{version}",
        kinds={"html", "altair", "scikitlearn"},
    )
    def selection_report(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """What was chosen and why, as one page that opens without a server.

        One row is one candidate that the recommended method chose for one target, in the page's table.
        """
        page_data = read(recipe, warehouse)
        page, path = build_page(page_data), PAGE_OUTPUT.file(warehouse)
        with replacing(path) as temporary:
            temporary.write_text(page.html, encoding="utf-8", newline="\n")
        record = lineage.record_of(context, sha256(path)[:16], page_data.inputs)
        with warehouse.tables.transaction() as transaction:
            transaction.put_record(record)
        return lineage.result(record, _page_metadata(page, path))

    return [method_comparison, *_cost_assets(recipe, partitions), selection_report]


def _cost_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    prices = recipe.prices
    if prices is None:
        return []

    @dg.asset(
        **asset_arguments(COST_OUTPUT, partitions),
        deps=[lineage.asset_key(name) for name in (COMPARISON_OUTPUT.key, CANDIDATE_POOL.asset)],
        code_version=f"{ALGORITHM}:{fingerprint(prices)}",
        kinds={"polars", "duckdb"},
    )
    def cost(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """What each method takes in time and money, as measured and scaled to a pool's size. One row is one method."""
        with warehouse.tables.snapshot() as tables:
            tables.note(COMPARISON_OUTPUT.key)
            tables.note(CANDIDATE_POOL.asset)
            n_candidates = tables.n_rows(CANDIDATE_POOL)
            frame = priced(tables.rows(METHOD_COSTS), prices, n_candidates)
            inputs = tables.inputs
        return write_table(context, warehouse, COST_OUTPUT, frame, inputs, {"cost": lineage.table_metadata(frame)})

    return [cost]


def _page_metadata(page: Page, path: Path) -> dict[str, object]:
    return {
        "path": dg.MetadataValue.path(str(path)),
        "page": dg.MetadataValue.url(path.absolute().as_uri()),
        "size_bytes": path.stat().st_size,
        "n_charts": page.n_charts,
        "n_chosen_candidates": page.n_chosen,
        "n_candidates_in_table": page.n_rows_shown,
        "n_candidates_on_map": page.n_on_map,
    }


def _compared(recipe: Recipe, warehouse: Warehouse) -> tuple[Comparison, dict[str, str]]:
    """The comparison of a recipe's methods, and the versions of what it was made from."""
    records = warehouse.records()
    read = CANDIDATE_POOL.only("sample_id", "messages", "topic")
    shown = {"sample_id": pl.col("sample_id"), "length": N_CHARACTERS, "topic": pl.col("topic")}
    with warehouse.tables.snapshot() as tables:
        pool = tables.reduced(read, shown)
        scores = spooled_scores(tables, recipe)
        chosen = subsets(tables, recipe)
        spent = all_costs(tables)
    made = {
        method: [reference(scores_output(method).key, target) for target in recipe.targets] for method in recipe.methods
    }
    published, target = set(recipe.published) & set(recipe.methods), recipe.broadest_target

    def as_chosen(method: str, frame: pl.DataFrame) -> pl.DataFrame:
        return in_order(frame, recipe.strategy_of(method, target))

    comparison = Comparison(
        costs(spent, records, made),
        overlaps(chosen, len(pool)),
        lengths(scores, chosen, pool.select("sample_id", "length")),
        retrievals(scores, pool.select("sample_id", "topic"), recipe.capability_names),
        reproductions(scores, published, target, as_chosen),
    )
    return comparison, tables.inputs


def _read_by_the_page(recipe: Recipe) -> list[str]:
    """What `read` reads beside scores and subsets."""
    keys = [*(output.key for output in corpora(recipe)), *(output.key for output in measurements_read(recipe))]
    if recipe.reads_activations:
        keys.append(CANDIDATE_ACTIVATIONS)
        keys += [IN_DOMAIN_ACTIVATIONS] if recipe.reads_activations_of_examples else []
    if centroids_shown(recipe).asset in recipe.outputs_read:
        keys.append(centroids_shown(recipe).asset)
    keys += [table.asset for table in results_shown(recipe)]
    keys += [output.key for output in model_outputs(recipe)]
    keys += [COST_OUTPUT.key] if recipe.prices else []
    of_filters = filtered_output(recipe)
    keys += [of_filters.key] if of_filters else []
    leading = method_of(recipe, recipe.leading_method)
    return list(dict.fromkeys([*keys, *explained_by(recipe, leading)]))


def _dependencies(recipe: Recipe, outputs: list[str]) -> list[dg.AssetDep]:
    """Every partition of these, and of all scores and subsets."""
    scores = [scores_output(method).key for method in recipe.methods]
    subsets_of = [subset_output(method).key for method in recipe.methods]
    keys = [lineage.asset_key(name) for name in (*outputs, *scores, *subsets_of)]
    return [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in keys]
