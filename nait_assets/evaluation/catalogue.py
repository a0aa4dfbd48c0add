"""Outputs of the evaluation: results of the base, of every trained model, and what is concluded from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.evaluation.preflight import require_fit
from nait_assets.evaluation.scorers import evaluated_base, scorer_versions
from nait_assets.evaluation.tables import (
    COMPARISON,
    EXAMPLES,
    FORESIGHT,
    IN_DOMAIN_SIZE_CURVE,
    PROPORTION_CURVE,
    RESULTS,
    TRANSFERABILITY,
)
from nait_assets.lineage import Record
from nait_assets.models.running import model_inputs
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import content_digest, content_version, version_with
from nait_assets.training import catalogue as training
from nait_assets.training.catalogue import ModelsOutput


@dataclass(frozen=True, eq=False)
class ResultsOutput(Output):
    """Results of the models of an output on all tasks: rows of `tables.RESULTS`, and their examples.

    Attributes:
        models: the models; None for the base without training.
    """

    models: ModelsOutput | None = None

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        base = evaluated_base(recipe, model)
        return {**model_inputs(base, base.source), **scorer_versions(recipe)}

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:  # noqa: ARG002, D102
        require_fit(recipe, evaluated_base(recipe, model))

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:
        """Whether the rows and their examples are the record's."""
        with warehouse.tables.snapshot() as tables:
            rows = rows_of(tables, self.key, record.partition)
            found = version_of(rows, examples_of(tables, rows))
        if found == record.data_version:
            return []
        return [f"the {len(rows)} rows of {record.reference} in {RESULTS.name}, or their examples, are not as recorded"]

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        rows = rows_of(stored, self.key, partition)
        frames = {RESULTS.name: rows, EXAMPLES.name: examples_of(stored, rows)}
        return {name: content_digest(frame, tuple(frame.columns)) for name, frame in frames.items()}

    def read(  # noqa: D102
        self,
        warehouse: Warehouse,  # noqa: ARG002
        tables: Snapshot,
        partition: str,
    ) -> tuple[pl.DataFrame, dict[str, str]]:
        record = tables.note(self.key, partition)
        return rows_of(tables, self.key, partition), {record.reference: record.data_version}

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:  # noqa: ARG002, D102
        rows = rows_of(tables, self.key, partition)
        if not rows.is_empty():
            tables.delete(RESULTS, asset=self.key, partition=partition)
        tables.forget(self.key, partition)
        drop_unused(tables, rows)


def rows_of(tables: Snapshot, asset: str, partition: str) -> pl.DataFrame:
    """Results of an output's partition, in order; none where it has not been made."""
    if not tables.has_table(RESULTS.name):
        return RESULTS.columns.to_frame()
    return tables.rows(RESULTS, asset=asset, partition=partition).sort("number", "task", "metric")


def examples_of(tables: Snapshot, results: pl.DataFrame) -> pl.DataFrame:
    """The examples of results, in order."""
    if results.is_empty():
        return EXAMPLES.columns.to_frame()
    keys = results["evaluation_key"].unique().sort().to_list()
    return pl.concat([tables.rows(EXAMPLES, evaluation_key=key) for key in keys]).sort(
        "evaluation_key", "sample_id", "metric"
    )


def version_of(results: pl.DataFrame, examples: pl.DataFrame) -> str:
    """Data version of results and their examples."""
    written = results.select(list(RESULTS.written_columns))
    return version_with(content_version(written, RESULTS.key), examples)


def drop_unused(tables: Transaction, results: pl.DataFrame) -> None:
    """Remove the examples of some former results that no result has any more."""
    used = set(tables.rows(RESULTS)["evaluation_key"]) if tables.has_table(RESULTS.name) else set()
    for key in sorted(set(results["evaluation_key"]) - used):
        tables.delete(EXAMPLES, evaluation_key=key)


BASE_RESULTS = ResultsOutput("evaluation/base_results", takes_run_options=True)
FORESIGHT_OUTPUT = Output(FORESIGHT.asset, None, FORESIGHT)
COMPARISON_OUTPUT = Output(COMPARISON.asset, None, COMPARISON)
TRANSFERABILITY_OUTPUT = Output(TRANSFERABILITY.asset, None, TRANSFERABILITY)
PROPORTION_OUTPUT = Output(PROPORTION_CURVE.asset, None, PROPORTION_CURVE)
SIZES_OUTPUT = Output(IN_DOMAIN_SIZE_CURVE.asset, None, IN_DOMAIN_SIZE_CURVE)
CONCLUSIONS = (FORESIGHT_OUTPUT, COMPARISON_OUTPUT, TRANSFERABILITY_OUTPUT, PROPORTION_OUTPUT, SIZES_OUTPUT)
FIXED_NAMES = {"full": "full_reference", "random": "random_reference", "probes": "probe"}
"""What stands before `_results` for models of no method."""


def results_output(models: ModelsOutput) -> ResultsOutput:
    """Results of the models of an output."""
    of_method = {"subset": models.method, "matched": f"{models.method}_random_matched"}
    name = {**FIXED_NAMES, **of_method}[models.rows]
    return ResultsOutput(f"evaluation/{name}_results", models.partitions, takes_run_options=True, models=models)


PROBE_RESULTS = results_output(training.PROBE_MODELS)


def all_results(recipe: Recipe) -> list[ResultsOutput]:
    """Results of everything that a recipe evaluates; none without tasks."""
    if not recipe.evaluation.tasks:
        return []
    models = [one for one in training.outputs(recipe) if isinstance(one, ModelsOutput)]
    return [BASE_RESULTS, *map(results_output, models)]


def has_foresight(recipe: Recipe) -> bool:
    """Whether scores can be compared with what probes did: there are probes, and losses on tasks of targets."""
    probes = recipe.training is not None and recipe.training.probes is not None
    losses = [name for name, task in recipe.evaluation.tasks.items() if task.kind == "loss"]
    return probes and any(recipe.evaluation.targets_of(name, recipe) for name in losses)


def trains_smaller_sets(recipe: Recipe) -> bool:
    """Whether models of smaller in-domain sets are trained."""
    return recipe.training is not None and bool(set(recipe.training.targets_of(recipe)) & set(recipe.smaller_sets))


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the evaluation of a recipe."""
    return [*all_results(recipe), *conclusions(recipe)]


def conclusions(recipe: Recipe) -> list[Output]:
    """What is concluded from the results of a recipe: nothing where the base alone is evaluated."""
    if recipe.training is None or not recipe.evaluation.tasks:
        return []
    return [
        *([FORESIGHT_OUTPUT] if has_foresight(recipe) else []),
        COMPARISON_OUTPUT,
        PROPORTION_OUTPUT,
        *([SIZES_OUTPUT] if trains_smaller_sets(recipe) else []),
        TRANSFERABILITY_OUTPUT,
    ]


def output_named(key: str) -> Output | None:
    """An output that a recipe may no longer have, by its key."""
    fixed = (BASE_RESULTS, PROBE_RESULTS, *CONCLUSIONS)
    references = (results_output(training.FULL_REFERENCE), results_output(training.RANDOM_REFERENCE))
    for output in (*fixed, *references):
        if output.key == key:
            return output
    name, found, rest = key.removeprefix("evaluation/").partition("_results")
    if not found or rest or not key.startswith("evaluation/"):
        return None
    method, matched, _ = name.partition("_random_matched")
    return results_output(training.matched_output(method) if matched else training.models_output(name))
