"""Checks of the activations: every example was read or refused, the numbers are finite, and those that were written."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult, check_losses, checks_of_losses, such_as
from nait_assets.extraction import activation_table
from nait_assets.extraction.catalogue import CANDIDATES_OUTPUT, EXAMPLES_OUTPUT, calibration_output, stored_faults
from nait_assets.models import cuts
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Pooling, Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL, IN_DOMAIN_SET, REJECTED_SAMPLES, Table

CHECKS = [
    Check(
        "samples_are_accounted_for",
        "Every example of the corpus was read or rejected with a reason, and nothing else was read.",
    ),
    Check("every_layer_is_there", "Every sample has one row for each layer."),
    Check("activations_are_finite", "No activation is NaN or infinite."),
    Check("activations_are_as_written", "Every row's numbers still match the digest from when the row was written."),
]
ANSWERS_CHECK = Check(
    "answers_are_read_whole", "Every answer is read to its end, within `extraction.max_tokens`.", blocking=False
)
CALIBRATION_CHECKS = [Check("statistics_are_finite", "Every mean, deviation and component is finite.")]


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """Checks of the candidates' and the in-domain examples' activations."""

    def check_candidates(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        lost = check_losses(recipe, CANDIDATES_OUTPUT.losses(warehouse, ""))
        read = check_answers(recipe, warehouse, POOL)
        return {**check_activations(warehouse, POOL, CANDIDATE_POOL, ""), **read, **lost}

    def check_examples(warehouse: Warehouse, capability: str) -> Mapping[str, CheckResult]:
        lost = check_losses(recipe, EXAMPLES_OUTPUT.losses(warehouse, capability))
        read = check_answers(recipe, warehouse, capability)
        return {**check_activations(warehouse, capability, IN_DOMAIN_SET, capability), **read, **lost}

    of_activations = [*CHECKS, ANSWERS_CHECK, *checks_of_losses(recipe)]
    checks = [AssetChecks(CANDIDATES_OUTPUT.key, of_activations, check_candidates)]
    if recipe.capabilities_with_examples:
        checks.append(AssetChecks(EXAMPLES_OUTPUT.key, of_activations, check_examples))
    if recipe.extraction.projection:
        checks += [_checks_of_calibration(pooling) for pooling in recipe.extraction.pool]
    return checks


def _checks_of_calibration(pooling: Pooling) -> AssetChecks:
    def check(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        return check_calibration(warehouse, CALIBRATION_STATISTICS.of_pooling(pooling))

    return AssetChecks(calibration_output(pooling).key, CALIBRATION_CHECKS, check)


def check_activations(warehouse: Warehouse, corpus: str, table: Table, partition: str) -> dict[str, CheckResult]:
    """Check the activations of a corpus.

    Args:
        warehouse: Warehouse that holds them.
        corpus: Corpus whose file it is.
        table: Table of the corpus.
        partition: Partition of that table.
    """
    with warehouse.tables.snapshot() as snapshot:
        wanted = snapshot.read(table.only("sample_id"), **table.slice_of(partition))
    with activation_table.activations_of(warehouse, corpus).snapshot() as snapshot:
        read = activation_table.samples(snapshot).select("sample_id")
        refused = snapshot.rows(REJECTED_SAMPLES.only("sample_id"), corpus=corpus)
        faults = stored_faults(snapshot)
    known = pl.concat([read, refused])
    lost = set(wanted.join(known, on="sample_id", how="anti")["sample_id"].to_list())
    strange = set(read.join(wanted, on="sample_id", how="anti")["sample_id"].to_list())
    numbers = {"n_examples": len(wanted), "n_read": len(read), "n_refused": len(refused)}
    return {
        "samples_are_accounted_for": CheckResult(
            not lost and not strange,
            f"{len(lost)} examples were neither read nor rejected{such_as(lost)}; "
            f"{len(strange)} of those read are not in the corpus{such_as(strange)}",
            numbers,
        ),
        **{name: CheckResult(not found, "; ".join(found) or "none is otherwise") for name, found in faults.items()},
    }


def check_answers(recipe: Recipe, warehouse: Warehouse, corpus: str) -> dict[str, CheckResult]:
    """Whether the answers of a corpus are read whole, with counts of what is not."""
    with activation_table.activations_of(warehouse, corpus).snapshot() as snapshot:
        samples = activation_table.samples(snapshot)
    found = cuts.counts(samples)
    passed = found["n_answers_cut"] == 0
    remedy = "" if passed else "; a larger `extraction.max_tokens` reads more"
    said = f"{cuts.sentence(samples, recipe.extraction)}{remedy}"
    return {ANSWERS_CHECK.name: CheckResult(passed, said, found)}


def check_calibration(warehouse: Warehouse, table: Table) -> dict[str, CheckResult]:
    """Check the statistics that a projection standardises with."""
    with warehouse.tables.snapshot() as snapshot:
        frame = snapshot.read(table)
    broken = [
        f"{column} of layer {row['layer']}"
        for row in frame.iter_rows(named=True)
        for column in ("mean", "standard_deviation", "components")
        if not np.isfinite(row[column]).all()
    ]
    return {"statistics_are_finite": CheckResult(not broken, f"not finite: {', '.join(broken) or 'none'}")}
