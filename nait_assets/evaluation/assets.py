"""Assets of the evaluation: results of models, and what is concluded from them."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.corpora.catalogue import EXAMPLES_OUTPUT, POOL_OUTPUT, TASK_OUTPUT
from nait_assets.evaluation import charts
from nait_assets.evaluation.catalogue import (
    BASE_RESULTS,
    COMPARISON_OUTPUT,
    FORESIGHT_OUTPUT,
    PROBE_RESULTS,
    PROPORTION_OUTPUT,
    SIZES_OUTPUT,
    TRANSFERABILITY_OUTPUT,
    ResultsOutput,
    all_results,
    conclusions,
    drop_unused,
    rows_of,
    version_of,
)
from nait_assets.evaluation.comparison import compared, means_of, proportions, transferred, with_own
from nait_assets.evaluation.evaluating import Evaluated, evaluate, released
from nait_assets.evaluation.foreseen import read_foresight, tasks_by_target
from nait_assets.evaluation.given import ALGORITHM, read_given, settings_of
from nait_assets.evaluation.measured import compared_results, own_targets, read_measured
from nait_assets.evaluation.shown import comparison_markdown, foresight_markdown
from nait_assets.evaluation.sizes import by_in_domain_size, read_sets
from nait_assets.evaluation.tables import EXAMPLES, RESULTS
from nait_assets.lineage import Record, asset_key
from nait_assets.models.config import ExtractionConfig
from nait_assets.models.cost import Cost, add_cost
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.scoring.catalogue import scores_output
from nait_assets.shown import as_list
from nait_assets.training.catalogue import PROBE_MODELS, PROBE_SUBSETS_OUTPUT

FORESIGHT_ALGORITHM, COMPARISON_ALGORITHM = "4", "2"


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """What the tasks of a recipe ask for; nothing without them."""
    return [
        *(_results_asset(output, recipe, partitions) for output in all_results(recipe)),
        *(_CONCLUSIONS[output.key](recipe, partitions) for output in conclusions(recipe)),
    ]


def _results_asset(output: ResultsOutput, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    of = f"the models of `{output.models.key}`" if output.models else "the base without training"

    @dg.asset(
        **asset_arguments(output, partitions),
        description=f"What {of} can do. One row is one model, task and metric, beside one an example in "
        f"`{EXAMPLES.name}`.",
        deps=_deps(output, recipe),
        code_version=f"{ALGORITHM}:{fingerprint(settings_of(recipe))}",
        kinds={"pytorch", "duckdb"},
        pool="language_model",
    )
    def results(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        partition, say = lineage.partition_name(context), context.log.info
        given = read_given(output, recipe, warehouse, language_model, partition)
        found = evaluate(given, warehouse, config.options(), say)
        record = lineage.record_of(context, version_of(found.rows, found.examples), given.inputs)
        cost = _store(warehouse, output, record, found)
        n_released = released(given, recipe)
        return lineage.result(record, _metadata(found, cost, n_released))

    return results


def _deps(output: ResultsOutput, recipe: Recipe) -> list[dg.AssetDep]:
    models = [dg.AssetDep(asset_key(output.models.key))] if output.models else []
    tasks = dg.AssetDep(asset_key(TASK_OUTPUT.key), partition_mapping=dg.AllPartitionMapping())
    return [*models, *([tasks] if recipe.evaluation.names_with_examples else [])]


def _store(warehouse: Warehouse, output: ResultsOutput, record: Record, found: Evaluated) -> Cost:
    """Write rows and the record; the cost so far. Their examples are stored already."""
    with warehouse.tables.transaction() as tables:
        before = rows_of(tables, output.key, record.partition)
        tables.replace(RESULTS, found.rows, asset=output.key, partition=record.partition)
        drop_unused(tables, before)
        tables.put_record(record)
        return add_cost(tables, record.asset, record.partition, found.cost)


def _metadata(found: Evaluated, cost: Cost, n_released: int) -> dict[str, object]:
    means = found.rows.group_by("task", "metric").agg(pl.col("value").mean(), pl.col("n_examples").first())
    return {
        "dagster/table_name": RESULTS.name,
        "dagster/row_count": len(found.rows),
        "dagster/column_schema": lineage.column_schema(found.rows),
        "n_evaluated": found.n_evaluated,
        "means": lineage.table_metadata(means.sort("task", "metric")),
        "cost_so_far": dg.MetadataValue.json({name: round(value, 2) for name, value in vars(cost).items()}),
        "notes": dg.MetadataValue.md(as_list(found.notes)),
        **({"n_weights_removed": n_released} if n_released else {}),
    }


def _foresight_asset(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    scores = [scores_output(method).key for method in recipe.methods]
    read = [POOL_OUTPUT, PROBE_SUBSETS_OUTPUT, PROBE_MODELS, BASE_RESULTS, PROBE_RESULTS]
    orders = {method: [one.name for one in recipe.strategies_of(method)] for method in recipe.methods}

    @dg.asset(
        **asset_arguments(FORESIGHT_OUTPUT, partitions),
        deps=_all_partitions([*scores, *(output.key for output in read)]),
        code_version=f"{FORESIGHT_ALGORITHM}:{fingerprint(orders, tasks_by_target(recipe))}",
        kinds={"scipy", "duckdb"},
    )
    def foresight(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Whether scores foretell what training does. One row is one method, or length, for one target and task."""
        frame, inputs = read_foresight(recipe, warehouse)
        shown = frame.sort("target", "task", "correlation", descending=[False, False, True], nulls_last=True)
        metadata = {
            "table": dg.MetadataValue.md(foresight_markdown(frame)),
            "foresight": lineage.table_metadata(shown),
        }
        return write_table(context, warehouse, FORESIGHT_OUTPUT, frame, inputs, metadata)

    return foresight


def _comparison_asset(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(COMPARISON_OUTPUT, partitions),
        deps=_all_partitions([output.key for output in compared_results(recipe)]),
        code_version=f"{COMPARISON_ALGORITHM}:{fingerprint(own_targets(recipe))}",
        kinds={"numpy", "duckdb"},
    )
    def comparison(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Models side by side. One row is one model on one task, by itself or against a reference, with an interval."""
        measured, inputs = read_measured(recipe, warehouse)
        means = with_own(means_of(measured), own_targets(recipe))
        frame = compared(means, measured.n_models(), measured.n_examples())
        shown = {"table": dg.MetadataValue.md(comparison_markdown(frame))}
        return write_table(context, warehouse, COMPARISON_OUTPUT, frame, inputs, shown)

    return comparison


def _proportion_asset(_recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(PROPORTION_OUTPUT, partitions),
        deps=[asset_key(COMPARISON_OUTPUT.key)],
        code_version=COMPARISON_ALGORITHM,
        kinds={"polars", "duckdb"},
    )
    def proportion_curve(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Results against the share of the pool that was trained on. One row is one model, share and task."""
        with warehouse.tables.snapshot() as tables:
            found, inputs = COMPARISON_OUTPUT.read(warehouse, tables, "")
        frame = proportions(found)
        shown = {"curve": _picture(charts.curve_of_shares(frame))}
        return write_table(context, warehouse, PROPORTION_OUTPUT, frame, inputs, shown)

    return proportion_curve


def _sizes_asset(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    examples = dg.AssetDep(asset_key(EXAMPLES_OUTPUT.key), partition_mapping=partitions.whole_sets())

    @dg.asset(
        **asset_arguments(SIZES_OUTPUT, partitions),
        deps=[*_all_partitions([output.key for output in compared_results(recipe)]), examples],
        code_version=f"{COMPARISON_ALGORITHM}:{fingerprint(own_targets(recipe), recipe.smaller_sets)}",
        kinds={"numpy", "duckdb"},
    )
    def in_domain_size_curve(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Results against the number of in-domain examples that chose. One row is one model, number and task."""
        measured, inputs = read_measured(recipe, warehouse)
        with warehouse.tables.snapshot() as tables:
            sets = read_sets(recipe, warehouse, tables)
            inputs |= tables.inputs
        frame = by_in_domain_size(means_of(measured), own_targets(recipe), sets)
        shown = {"curve": _picture(charts.first_size_curve(frame))}
        return write_table(context, warehouse, SIZES_OUTPUT, frame, inputs, shown)

    return in_domain_size_curve


def _transferability_asset(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(TRANSFERABILITY_OUTPUT, partitions),
        deps=_all_partitions([output.key for output in compared_results(recipe)]),
        code_version=f"{COMPARISON_ALGORITHM}:{fingerprint(own_targets(recipe))}",
        kinds={"numpy", "duckdb"},
    )
    def transferability(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """What training for one target does for another's task. One row is one model on one task."""
        measured, inputs = read_measured(recipe, warehouse)
        frame = transferred(means_of(measured), own_targets(recipe), measured.n_examples())
        shown = {"heat_map": _picture(charts.first_transfer_maps(frame))}
        return write_table(context, warehouse, TRANSFERABILITY_OUTPUT, frame, inputs, shown)

    return transferability


_CONCLUSIONS: Mapping[str, Callable[[Recipe, Partitions], dg.AssetsDefinition]] = {
    FORESIGHT_OUTPUT.key: _foresight_asset,
    COMPARISON_OUTPUT.key: _comparison_asset,
    PROPORTION_OUTPUT.key: _proportion_asset,
    SIZES_OUTPUT.key: _sizes_asset,
    TRANSFERABILITY_OUTPUT.key: _transferability_asset,
}


def _picture(spec: plots.Spec | None) -> dg.MetadataValue:
    return plots.picture(spec) if spec else dg.MetadataValue.md("nothing to draw")


def _all_partitions(keys: Sequence[str]) -> list[dg.AssetDep]:
    return [dg.AssetDep(asset_key(key), partition_mapping=dg.AllPartitionMapping()) for key in keys]
