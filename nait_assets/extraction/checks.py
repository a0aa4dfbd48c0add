"""Checks of the activations: every example was read or refused, the numbers are finite, and those that were written."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from nait_assets.checks import AssetChecks, Claim, Verdict
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.assets import READINGS, ROOM
from nait_assets.extraction.readings.engine import Reading, corpus_of, rejected_of, rows_of
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, TRAINED, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL, IN_DOMAIN_SET, REJECTED_SAMPLES, Table

CLAIMS = [
    Claim("samples_are_accounted_for", "Every example of the corpus was read or refused, and nothing else was read."),
    Claim("every_layer_is_there", "Every sample has one row for each layer."),
    Claim("activations_are_finite", "No activation is NaN or infinite."),
    Claim(
        "activations_are_as_written", "Every row's numbers still have the digest that was taken when it was written."
    ),
]
READING_CLAIMS = [
    Claim("samples_are_accounted_for", "Every example of the corpus has a row or a reason, and nothing else has."),
    Claim("numbers_are_finite", "No number is NaN or infinite."),
]
TRAINED_CLAIMS = [Claim("files_are_as_written", "The folder holds the files that were trained, byte by byte.")]
CALIBRATION_CLAIMS = [Claim("statistics_are_finite", "Every mean, deviation and component is finite.")]


def build_checks(recipe: Recipe, partitions: Partitions) -> list[AssetChecks]:
    """Checks of the candidates' and the in-domain examples' activations."""

    def judge_candidates(warehouse: Warehouse, _: str) -> Mapping[str, Verdict]:
        return judge_activations(warehouse, POOL, CANDIDATE_POOL, "")

    def judge_examples(warehouse: Warehouse, capability: str) -> Mapping[str, Verdict]:
        return judge_activations(warehouse, capability, IN_DOMAIN_SET, capability)

    checks = [AssetChecks(CANDIDATE_ACTIVATIONS, None, CLAIMS, judge_candidates)]
    if recipe.capabilities_with_examples:
        checks.append(AssetChecks(IN_DOMAIN_ACTIVATIONS, partitions.with_examples, CLAIMS, judge_examples))
    if recipe.extraction.projection:
        checks.append(AssetChecks(CALIBRATION_STATISTICS.asset, None, CALIBRATION_CLAIMS, judge_calibration))
    checks += [trained_check(asset) for asset in TRAINED if asset.startswith(f"{ROOM}/")]
    return [*checks, *(one for reading in READINGS for one in reading_checks(reading, partitions))]


def trained_check(asset: str) -> AssetChecks:
    """The check of an output that is a folder of files."""

    def judge(warehouse: Warehouse, _: str) -> Mapping[str, Verdict]:
        return judge_trained(warehouse, asset)

    return AssetChecks(asset, None, TRAINED_CLAIMS, judge)


def judge_trained(warehouse: Warehouse, asset: str) -> dict[str, Verdict]:
    """The verdict on a folder of files."""
    folder = warehouse.trained(asset)
    with warehouse.tables.reading() as snapshot:
        written = snapshot.note(asset).data_version
    found = folder_version(folder) if folder.is_dir() else "nothing"
    return {"files_are_as_written": Verdict(found == written, f"{folder} holds {found}, and {written} was written")}


def reading_checks(reading: Reading, partitions: Partitions) -> list[AssetChecks]:
    """Checks of a reading of the candidates and of the in-domain examples."""

    def judge(warehouse: Warehouse, capability: str) -> Mapping[str, Verdict]:
        return judge_reading(warehouse, reading, capability or POOL)

    candidates, examples = reading.assets
    return [
        AssetChecks(candidates, None, READING_CLAIMS, judge),
        AssetChecks(examples, partitions.with_examples, READING_CLAIMS, judge),
    ]


def judge_reading(warehouse: Warehouse, reading: Reading, corpus: str) -> dict[str, Verdict]:
    """Verdicts on a reading of a corpus."""
    wanted = set(corpus_of(warehouse, corpus)[0]["sample_id"].to_list())
    rows, _ = rows_of(warehouse, reading, corpus)
    refused = set(rejected_of(warehouse, reading, corpus))
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
    return {
        "samples_are_accounted_for": Verdict(
            not lost and not strange,
            f"{len(lost)} examples have neither a row nor a reason{_such_as(lost)}; "
            f"{len(strange)} rows are of no example in the corpus{_such_as(strange)}",
            {"n_examples": len(wanted), "n_read": len(read), "n_refused": len(refused)},
        ),
        "numbers_are_finite": Verdict(not broken, f"{len(broken)} rows have NaN or infinity{_such_as(broken)}"),
    }


def judge_activations(warehouse: Warehouse, corpus: str, table: Table, partition: str) -> dict[str, Verdict]:
    """Verdicts on the activations of a corpus.

    Args:
        warehouse: That holds them.
        corpus: Whose file it is.
        table: Of the corpus.
        partition: Of that table.
    """
    with warehouse.tables.reading() as snapshot:
        wanted = set(snapshot.read_partition(table, partition)["sample_id"].to_list())
    with warehouse.activations(corpus).reading() as snapshot:
        read = set(activation_table.samples(snapshot)["sample_id"].to_list())
        refused = set(snapshot.rows(REJECTED_SAMPLES, corpus=corpus)["sample_id"].to_list())
        layers = activation_table.layers_of(snapshot)
        incomplete = activation_table.incomplete_samples(snapshot)
        altered, broken = activation_table.altered_rows(snapshot)
    lost, strange = wanted - read - refused, read - wanted
    numbers = {"n_examples": len(wanted), "n_read": len(read), "n_refused": len(refused)}
    return {
        "samples_are_accounted_for": Verdict(
            not lost and not strange,
            f"{len(lost)} examples were neither read nor refused{_such_as(lost)}; "
            f"{len(strange)} that were read are not in the corpus{_such_as(strange)}",
            numbers,
        ),
        "every_layer_is_there": Verdict(
            not incomplete, f"{len(incomplete)} samples lack one of {len(layers)} layers{_such_as(incomplete)}"
        ),
        "activations_are_finite": Verdict(not broken, f"{len(broken)} rows have NaN or infinity{_such_as(broken)}"),
        "activations_are_as_written": Verdict(
            not altered, f"{len(altered)} rows (sample and layer) are not as they were written{_such_as(altered)}"
        ),
    }


def judge_calibration(warehouse: Warehouse, _: str) -> dict[str, Verdict]:
    """Verdicts on the statistics that a projection standardises with."""
    with warehouse.tables.reading() as snapshot:
        frame = snapshot.read(CALIBRATION_STATISTICS)
    broken = [
        f"{column} of layer {row['layer']}"
        for row in frame.iter_rows(named=True)
        for column in ("mean", "standard_deviation", "components")
        if not np.isfinite(row[column]).all()
    ]
    return {"statistics_are_finite": Verdict(not broken, f"not finite: {', '.join(broken) or 'none'}")}


def _such_as(found: object) -> str:
    first = sorted(found)[:3]  # type: ignore[call-overload]
    return f", such as {', '.join(map(str, first))}" if first else ""
