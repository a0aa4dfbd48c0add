"""Checks of the evaluation: every example has a finite number, and no model was measured by what it was trained on."""

from collections.abc import Mapping

import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult, such_as
from nait_assets.evaluation.catalogue import ResultsOutput, all_results, examples_of, rows_of
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import TASK_SET
from nait_assets.training.models import read_manifest
from nait_assets.training.runs import model_folder

RESULT_CHECKS = [
    Check("numbers_are_finite", "No result is NaN or infinite, and every one is the mean of its examples."),
    Check("every_model_has_every_task", "Every model has a result of every task, of the same examples."),
]
NOT_TRAINED_ON = Check("not_trained_on", "No model was trained on an example that it is measured by.", blocking=False)


def build_checks(recipe: Recipe, _partitions: Partitions) -> list[AssetChecks]:
    """Checks of all results."""
    return [_checks_of_results(recipe, output) for output in all_results(recipe)]


def _checks_of_results(recipe: Recipe, output: ResultsOutput) -> AssetChecks:
    def execute(warehouse: Warehouse, partition: str) -> Mapping[str, CheckResult]:
        return check_results(warehouse, recipe, output, partition)

    return AssetChecks(output.key, [*RESULT_CHECKS, *([NOT_TRAINED_ON] if output.models else [])], execute)


def check_results(
    warehouse: Warehouse, recipe: Recipe, output: ResultsOutput, partition: str
) -> dict[str, CheckResult]:
    """Check the results of a partition."""
    with warehouse.tables.snapshot() as tables:
        rows = rows_of(tables, output.key, partition)
        examples = examples_of(tables, rows)
        held_out = set(tables.rows(TASK_SET)["sample_id"]) if tables.has_table(TASK_SET.name) else set()
    product = pl.col("value") * pl.col("weight")
    means = examples.group_by("evaluation_key", "metric").agg(mean=product.sum() / pl.col("weight").sum())
    off = (pl.col("value") - pl.col("mean")).abs() > 1e-9 * (1 + pl.col("mean").abs())
    joined = rows.join(means, on=["evaluation_key", "metric"], how="left")
    wrong = joined.filter(~pl.col("value").is_finite() | pl.col("mean").is_null() | off)["task"].unique().to_list()
    per_task = rows.group_by("task", "metric").agg(n_models=pl.len(), n_kinds=pl.col("n_examples").n_unique())
    n_models = rows["number"].n_unique()
    uneven = per_task.filter((pl.col("n_models") != n_models) | (pl.col("n_kinds") != 1))["task"].to_list()
    absent = sorted(set(recipe.evaluation.tasks) - set(rows["task"]))
    trained = (
        {
            name
            for key in rows["model"].unique()
            for name in read_manifest(model_folder(warehouse.folder, key))["sample_ids"]
        }
        if output.models
        else set()
    )
    leaked = held_out & trained
    return {
        "numbers_are_finite": CheckResult(not wrong, f"{len(wrong)} tasks have a number that is wrong{such_as(wrong)}"),
        "every_model_has_every_task": CheckResult(
            not uneven and not absent, f"{len(uneven) + len(absent)} tasks lack results{such_as([*uneven, *absent])}"
        ),
        "not_trained_on": CheckResult(
            not leaked, f"{len(leaked)} examples of tasks are among the rows that were trained on{such_as(leaked)}"
        ),
    }
