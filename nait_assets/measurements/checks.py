"""Checks of the measurements: every sample has a row or a reason, the numbers are finite, folders are as written."""

from collections.abc import Mapping

import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult, check_losses, checks_of_losses, such_as
from nait_assets.measurements.catalogue import MEASUREMENTS, TRAINED, outputs_of
from nait_assets.measurements.engine import Measurement, corpus_of, rejected_of, rows_of
from nait_assets.measurements.trained import TrainedOutput
from nait_assets.models import cuts
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import Warehouse

MEASUREMENT_CHECKS = [
    Check("samples_are_accounted_for", "Every example of the corpus has a row or a reason, and nothing else has."),
    Check("numbers_are_finite", "No number is NaN or infinite."),
]
ANSWERS_CHECK = Check(
    "answers_are_read_whole", "Every answer is read to its end, within `extraction.max_tokens`.", blocking=False
)
TRAINED_CHECKS = [Check("files_are_as_written", "The folder holds exactly the files that training wrote.")]


def build_checks(recipe: Recipe, _partitions: Partitions) -> list[AssetChecks]:
    """Checks of every measurement, and of what is trained for them."""
    return [*map(trained_check, TRAINED), *(one for found in MEASUREMENTS for one in measurement_checks(recipe, found))]


def trained_check(output: TrainedOutput) -> AssetChecks:
    """The check of an output that is a folder of files."""

    def execute(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        return check_trained(warehouse, output)

    return AssetChecks(output.key, TRAINED_CHECKS, execute)


def check_trained(warehouse: Warehouse, output: TrainedOutput) -> dict[str, CheckResult]:
    """Check a folder of files."""
    with warehouse.tables.snapshot() as snapshot:
        record = snapshot.note(output.key)
    faults = output.faults(warehouse, record)
    said = "; ".join(faults) or f"{output.folder(warehouse)} holds {record.data_version}, as written"
    return {"files_are_as_written": CheckResult(not faults, said)}


def measurement_checks(recipe: Recipe, measurement: Measurement) -> list[AssetChecks]:
    """Checks of a measurement of the candidates and of the in-domain examples."""

    def execute(warehouse: Warehouse, capability: str) -> Mapping[str, CheckResult]:
        output = outputs_of(measurement)[1 if capability else 0]
        lost = check_losses(recipe, output.losses(warehouse, capability))
        return {**check_measurement(warehouse, measurement, capability or POOL), **lost}

    read_whole = [ANSWERS_CHECK] if "cut" in measurement.columns else []
    checks = [*MEASUREMENT_CHECKS, *read_whole, *checks_of_losses(recipe)]
    return [AssetChecks(asset, checks, execute) for asset in measurement.assets]


def check_measurement(warehouse: Warehouse, measurement: Measurement, corpus: str) -> dict[str, CheckResult]:
    """Check a measurement of a corpus."""
    wanted = set(corpus_of(warehouse, corpus)[0]["sample_id"].to_list())
    rows, _ = rows_of(warehouse, measurement, corpus)
    refused = set(rejected_of(warehouse, measurement, corpus))
    read = set(rows["sample_id"].to_list())
    lost, strange = wanted - read - refused, read - wanted
    floats = [name for name, kind in rows.schema.items() if kind.is_float()]
    lists = [name for name, kind in rows.schema.items() if isinstance(kind, pl.List) and kind.inner.is_float()]
    finite = pl.all_horizontal(
        pl.lit(True),
        *(pl.col(name).is_finite() for name in floats),
        *(pl.col(name).list.eval(pl.element().is_finite()).list.all() for name in lists),
    )
    broken = rows.filter(~finite)["sample_id"].to_list()
    found = cuts.counts_of_rows(rows) if "cut" in rows.columns else {"n_answers_cut": 0}
    n_cut = found["n_answers_cut"]
    remedy = f"of {n_cut:,} of {len(rows):,} samples the end is cut; a larger `extraction.max_tokens` reads more"
    return {
        ANSWERS_CHECK.name: CheckResult(n_cut == 0, remedy if n_cut else "none is cut", found),
        "samples_are_accounted_for": CheckResult(
            not lost and not strange,
            f"{len(lost)} examples have neither a row nor a reason{such_as(lost)}; "
            f"{len(strange)} rows belong to no example of the corpus{such_as(strange)}",
            {"n_examples": len(wanted), "n_read": len(read), "n_refused": len(refused)},
        ),
        "numbers_are_finite": CheckResult(not broken, f"{len(broken)} rows have NaN or infinity{such_as(broken)}"),
    }
