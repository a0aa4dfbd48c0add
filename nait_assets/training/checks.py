"""Checks of the training: whole folders, losses that are numbers and fall, rows that are those of the subset."""

from collections.abc import Mapping

import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult, such_as
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import CANDIDATE_POOL, SUBSETS
from nait_assets.training.catalogue import PROBE_SUBSETS_OUTPUT, ModelsOutput, outputs
from nait_assets.training.models import read_manifest
from nait_assets.training.runs import model_folder, training_of
from nait_assets.training.tables import LOSS_CURVES, PROBE_SUBSETS

MODEL_CHECKS = [
    Check("files_are_as_written", "Every model's folder holds exactly the files that training wrote."),
    Check("losses_are_finite", "No step has a loss or a gradient norm that is NaN or infinite."),
    Check("loss_falls", "The mean loss of the last epoch is below that of the first step.", blocking=False),
    Check("few_rows_are_left_out", "Few rows have no token to learn (`max_rejected`).", blocking=False),
]
TRAINED_ON_SUBSET = Check("rows_are_the_subsets", "Models are trained on rows of their subset and on no others.")
PROBE_CHECKS = [
    Check("rows_are_in_the_pool", "Every row of a probe is a candidate."),
    Check("probes_have_their_size", "Every probe has the rows that the recipe asks for, each once."),
]


def build_checks(recipe: Recipe, _partitions: Partitions) -> list[AssetChecks]:
    """Checks of every trained model, and of the probes' rows."""
    found = []
    for output in outputs(recipe):
        if isinstance(output, ModelsOutput):
            found.append(_checks_of_models(recipe, output))
        elif output is PROBE_SUBSETS_OUTPUT:
            found.append(AssetChecks(output.key, PROBE_CHECKS, lambda warehouse, _: check_probes(warehouse, recipe)))
    return found


def _checks_of_models(recipe: Recipe, output: ModelsOutput) -> AssetChecks:
    def execute(warehouse: Warehouse, partition: str) -> Mapping[str, CheckResult]:
        return check_models(warehouse, recipe, output, partition)

    own = [TRAINED_ON_SUBSET] if output.rows == "subset" else []
    return AssetChecks(output.key, [*MODEL_CHECKS, *own], execute)


def check_models(warehouse: Warehouse, recipe: Recipe, output: ModelsOutput, partition: str) -> dict[str, CheckResult]:
    """Check the models of a partition."""
    with warehouse.tables.snapshot() as tables:
        record, keys = tables.note(output.key, partition), output.keys(tables, partition)
        curves = {key: tables.rows(LOSS_CURVES, key=key).sort("step") for key in keys}
        subset = tables.rows(SUBSETS, **SUBSETS.slice_of(f"{output.method}|{partition}")) if output.method else None
    faults = output.faults(warehouse, record)
    manifests = {key: read_manifest(model_folder(warehouse.folder, key)) for key in keys}
    finite = pl.col("loss").is_finite() & pl.col("grad_norm").is_finite()
    broken = [key for key, curve in curves.items() if not curve.select(finite.all()).item()]
    risen = [key for key, curve in curves.items() if manifests[key]["loss"] >= curve["loss"][0]]
    lost = {key: (said["n_left_out"], said["n_rows"]) for key, said in manifests.items()}
    many = [key for key, (n, rest) in lost.items() if n > recipe.max_rejected * (n + rest)]
    learnt = {name for said in manifests.values() for name in said["sample_ids"]}
    strange = set() if subset is None else learnt - set(subset["sample_id"])
    return {
        "files_are_as_written": CheckResult(not faults, "; ".join(faults) or f"{len(keys)} folders are as written"),
        "losses_are_finite": CheckResult(not broken, f"{len(broken)} of {len(keys)} models have a broken step"),
        "loss_falls": CheckResult(
            not risen,
            f"{len(risen)} of {len(keys)} models end with a loss that is not below the first step's{such_as(risen)}",
        ),
        "few_rows_are_left_out": CheckResult(
            not many,
            f"{sum(n for n, _ in lost.values())} rows are left out, in {len(many)} models too many{such_as(many)}",
        ),
        "rows_are_the_subsets": CheckResult(not strange, f"{len(strange)} rows are of no subset{such_as(strange)}"),
    }


def check_probes(warehouse: Warehouse, recipe: Recipe) -> dict[str, CheckResult]:
    """Check the rows of the probes."""
    probes = training_of(recipe).probes
    assert probes is not None
    with warehouse.tables.snapshot() as tables:
        rows, pool = tables.rows(PROBE_SUBSETS), set(tables.rows(CANDIDATE_POOL.only("sample_id"))["sample_id"])
    strange = set(rows["sample_id"]) - pool
    sizes = rows.group_by("probe").agg(pl.col("sample_id").n_unique().alias("n"))
    wrong = sizes.filter(pl.col("n") != probes.rows)["probe"].to_list()
    return {
        "rows_are_in_the_pool": CheckResult(not strange, f"{len(strange)} rows are not in the pool{such_as(strange)}"),
        "probes_have_their_size": CheckResult(
            not wrong and len(sizes) == probes.number,
            f"{len(sizes)} probes, {len(wrong)} of them of another size than {probes.rows}{such_as(wrong)}",
        ),
    }
