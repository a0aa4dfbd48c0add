"""Outputs of the extraction: where activations lie, what they read from outside, and how they are verified."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.lineage import Record
from nait_assets.losses import Losses, kinds_of_reasons
from nait_assets.models.answers import require_offsets
from nait_assets.models.frozen import why_stale
from nait_assets.models.running import model_inputs
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import ALL, POOL, POOLINGS, Pooling, Recipe, pooled
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot, Store
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL, REJECTED_SAMPLES


@dataclass(frozen=True, eq=False)
class ExtractedOutput(Output):
    """An output that the recipe's model is run for."""

    on_demand: bool = True
    takes_run_options: bool = True

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        return model_inputs(model, recipe.model.source)

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:  # noqa: ARG002
        """Raise a UserError where the model lacks the site or a layer, or does not tell where the answers stand."""
        resolve_site(model.skeleton(), recipe.extraction.site, recipe.extraction.layers)
        if recipe.extraction.pool != (ALL,):
            require_offsets(model.tokenizer())


@dataclass(frozen=True, eq=False)
class ActivationsOutput(ExtractedOutput):
    """The activations of a corpus, in a file of their own: of the pool, or of each capability's examples.

    Attributes:
        pooling: pooling that `read` reads; the file holds all poolings of the recipe.
    """

    pooling: Pooling = ALL

    def of_pooling(self, pooling: Pooling) -> "ActivationsOutput":  # noqa: D102
        return replace(self, pooling=pooling)

    def store(self, warehouse: Warehouse, partition: str) -> Store:  # noqa: D102
        return activation_table.activations_of(warehouse, partition or POOL)

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:
        """Whether every row has its digest, every sample its layers, and the file what its record states."""
        with self.store(warehouse, record.partition).snapshot() as snapshot:
            faults = [fault for found in stored_faults(snapshot).values() for fault in found]
            content = activation_table.content_of(snapshot)
        if content != record.data_version:
            what = "holds other samples, numbers or refused samples than its record states"
            faults.append(f"{snapshot.path} {what}: their hash is {content}, not {record.data_version}")
        return faults

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """Of the numbers the digests of their rows: whether they hold, `faults` says."""
        return activation_table.digests_of(stored)

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        return activation_table.identity_of(stored)

    def read(self, warehouse: Warehouse, tables: Snapshot, partition: str) -> tuple[pl.DataFrame, dict[str, str]]:  # noqa: ARG002
        """All rows in memory, `sample_id`, `layer`, `activation`: for the few samples of a capability."""
        with self.store(warehouse, partition).snapshot() as snapshot:
            snapshot.note(self.key, partition)
            return activation_table.rows(snapshot, pooled("activation", self.pooling)), snapshot.inputs

    def refused(self, warehouse: Warehouse, partition: str) -> dict[str, str]:  # noqa: D102
        with self.store(warehouse, partition).snapshot() as snapshot:
            rows = snapshot.rows(REJECTED_SAMPLES, corpus=partition or POOL)
        return dict(zip(rows["sample_id"].to_list(), rows["reason"].to_list(), strict=True))

    def losses(self, warehouse: Warehouse, partition: str) -> Losses:  # noqa: D102
        with self.store(warehouse, partition).snapshot() as snapshot:
            n_used = activation_table.n_samples(snapshot)
            kinds = kinds_of_reasons(snapshot.counted(REJECTED_SAMPLES, "reason", corpus=partition or POOL))
        return Losses(n_used + sum(count for _, count in kinds), n_used, kinds)


@dataclass(frozen=True, eq=False)
class CalibrationOutput(ExtractedOutput):
    """The calibration of a pooling, which a pool that changes keeps."""

    def why_outlived(self, warehouse: Warehouse, partition: str) -> str:  # noqa: ARG002
        """Whether too little of the sample that calibrated is left in the pool."""
        assert self.table is not None
        with warehouse.tables.snapshot() as tables:
            if not (tables.has_table(CANDIDATE_POOL.name) and tables.has_table(self.table.name)):
                return ""
            sample = tables.rows(self.table.only("sample_ids"))
            pool = tables.rows(CANDIDATE_POOL.only("sample_id"))["sample_id"].to_list()
        return why_stale(sample["sample_ids"][0].to_list(), pool) if sample["sample_ids"].count() else ""


CANDIDATES_OUTPUT = ActivationsOutput(CANDIDATE_ACTIVATIONS, reset_name="activations")
EXAMPLES_OUTPUT = ActivationsOutput(IN_DOMAIN_ACTIVATIONS, "with_examples", reset_name="activations")


def calibration_output(pooling: Pooling) -> CalibrationOutput:
    """The calibration of a pooling's projection."""
    table = CALIBRATION_STATISTICS.of_pooling(pooling)
    return CalibrationOutput(table.asset, None, table, reset_name="calibration")


def stored_faults(snapshot: Snapshot) -> dict[str, list[str]]:
    """What is wrong with an activation table by itself, by the check that says so; the whole table is read once."""
    altered, broken = activation_table.altered_rows(snapshot)
    incomplete = activation_table.incomplete_samples(snapshot)
    return {
        "activations_are_as_written": _of_rows(altered, snapshot.path, "have changed since they were written"),
        "activations_are_finite": _of_rows(broken, snapshot.path, "hold NaN or infinity"),
        "every_layer_is_there": (
            [f"{len(incomplete)} samples of {snapshot.path} lack a row of a layer, such as {incomplete[0]}"]
            if incomplete
            else []
        ),
    }


def _of_rows(rows: Sequence[tuple[str, int]], path: Path, what: str) -> list[str]:
    """A sentence about rows of a table, each a sample and a layer; none where there are none."""
    return [f"{len(rows)} rows of {path} {what}, such as sample {rows[0][0]}, layer {rows[0][1]}"] if rows else []


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the extraction of a recipe."""
    return [
        *(map(calibration_output, recipe.extraction.pool) if recipe.extraction.projection else []),
        CANDIDATES_OUTPUT,
        *([EXAMPLES_OUTPUT] if recipe.capabilities_with_examples else []),
    ]


def output_named(key: str) -> Output | None:
    """The output of a key that only some recipes have."""
    return {output.key: output for output in (*map(calibration_output, POOLINGS), EXAMPLES_OUTPUT)}.get(key)
