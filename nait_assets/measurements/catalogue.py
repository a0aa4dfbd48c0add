"""Outputs of the measurements: two tables of each measurement, and the folders of what is trained for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.lineage import Record
from nait_assets.losses import Losses, kinds_of_reasons
from nait_assets.measurements import autoencoder, declared_measurements, less_checkpoints
from nait_assets.measurements import outputs as losses
from nait_assets.measurements.engine import Measurement, identity_of, rejected_of, rows_of, store_of, stored_version
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot, Store
from nait_assets.tables import REJECTED_SAMPLES, Table, content_digest

MEASUREMENTS = declared_measurements()
"""What is found out about samples beside their activations."""


@dataclass(frozen=True, eq=False)
class MeasurementOutput(Output):
    """A measurement of the candidates or of each capability's examples, in a file of its own.

    Attributes:
        measurement: what is found out about each sample.
    """

    measurement: Measurement = MEASUREMENTS[0]
    on_demand: bool = True
    takes_run_options: bool = True

    def store(self, warehouse: Warehouse, partition: str) -> Store:  # noqa: D102
        return store_of(warehouse, self.measurement.name, partition or POOL)

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        return self.measurement.external_versions(recipe, model)

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:  # noqa: ARG002, D102
        self.measurement.preflight(recipe, model)

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:  # noqa: D102
        corpus = record.partition or POOL
        with self.store(warehouse, record.partition).snapshot() as snapshot:
            found = stored_version(snapshot, self.measurement, corpus)
            n_rows = snapshot.n_rows(self.measurement.table_of(corpus))
            n_refused = snapshot.n_rows(REJECTED_SAMPLES, corpus=corpus)
        if found == record.data_version:
            return []
        stored = f"the {n_rows} rows of {record.reference}, and the {n_refused} refused samples beside them,"
        return [f"{stored} have the hash {found}, not {record.data_version}"]

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        table = self.measurement.table_of(partition or POOL)
        return {
            table.name: content_digest(stored.rows(table), table.key),
            REJECTED_SAMPLES.name: stored.digest(REJECTED_SAMPLES, corpus=partition or POOL),
        }

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        return identity_of(stored)

    def stored_table(self, partition: str) -> Table:  # noqa: D102
        return self.measurement.table_of(partition or POOL)

    def read(  # noqa: D102
        self,
        warehouse: Warehouse,
        tables: Snapshot,  # noqa: ARG002
        partition: str,
    ) -> tuple[pl.DataFrame, dict[str, str]]:
        return rows_of(warehouse, self.measurement, partition or POOL)

    def refused(self, warehouse: Warehouse, partition: str) -> dict[str, str]:  # noqa: D102
        return rejected_of(warehouse, self.measurement, partition or POOL)

    def losses(self, warehouse: Warehouse, partition: str) -> Losses:  # noqa: D102
        corpus = partition or POOL
        with self.store(warehouse, partition).snapshot() as snapshot:
            n_used = snapshot.n_rows(self.measurement.table_of(corpus))
            kinds = kinds_of_reasons(snapshot.counted(REJECTED_SAMPLES, "reason", corpus=corpus))
        return Losses(n_used + sum(count for _, count in kinds), n_used, kinds)


TRAINED = (less_checkpoints.CHECKPOINTS, losses.PRE_EXPERIENCED_MODEL, autoencoder.AUTOENCODER)


def outputs_of(measurement: Measurement) -> tuple[MeasurementOutput, MeasurementOutput]:
    """Outputs of a measurement: of the candidates, and of the in-domain examples."""
    candidates, examples = measurement.assets
    return (
        MeasurementOutput(candidates, one_row_each=True, measurement=measurement),
        MeasurementOutput(examples, "with_examples", measurement=measurement),
    )


OUTPUTS = {output.key: output for measurement in MEASUREMENTS for output in outputs_of(measurement)}
"""Outputs of every measurement by key."""


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the measurements of a recipe."""
    made = [one for one in OUTPUTS.values() if recipe.capabilities_with_examples or one.partitions is None]
    return [*TRAINED, *made]
