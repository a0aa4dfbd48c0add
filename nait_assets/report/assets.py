"""The asset of the report: one page a recipe."""

from pathlib import Path

import dagster as dg

from nait_assets import lineage
from nait_assets.automation import when_inputs_change
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.report.contents import build_page
from nait_assets.report.reading import read
from nait_assets.resources import Warehouse
from nait_assets.resources.files import replacing, sha256
from nait_assets.selection.assets import subset_asset
from nait_assets.tables import CANDIDATE_POOL, NEURON_STATISTICS, STANDARDIZED_CENTROIDS, scores_table

ROOM = "report"
ALGORITHM = "1"


def build_assets(recipe: Recipe, _: Partitions) -> list[dg.AssetsDefinition]:
    """The page of a recipe."""
    version = fingerprint(
        recipe.name,
        recipe.model,
        recipe.extraction,
        recipe.capability_names,
        sorted(recipe.methods),
        recipe.ratios,
    )

    @dg.asset(
        deps=_dependencies(recipe),
        code_version=f"{ALGORITHM}:{version}",
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"html", "altair", "scikitlearn"},
        automation_condition=when_inputs_change(),
    )
    def selection_report(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """What was chosen and why, as one page that opens without a server.

        One row is one candidate that the recommended method chose for one target, in the page's table.
        """
        reading = read(recipe, warehouse)
        page, path = build_page(reading), report_file(warehouse)
        with replacing(path) as temporary:
            temporary.write_text(page.html, encoding="utf-8", newline="\n")
        record = lineage.record_of(context, sha256(path)[:16], reading.inputs)
        with warehouse.tables.writing() as transaction:
            transaction.put_record(record)
        metadata = {
            "path": dg.MetadataValue.path(str(path)),
            "page": dg.MetadataValue.url(path.absolute().as_uri()),
            "size_bytes": path.stat().st_size,
            "n_charts": page.n_charts,
            "n_chosen_candidates": page.n_chosen,
            "n_candidates_in_table": page.n_rows_shown,
            "n_candidates_on_map": page.n_on_map,
        }
        return lineage.result(record, metadata)

    return [selection_report]


def report_file(warehouse: Warehouse) -> Path:
    """Where the page lies."""
    return warehouse.folder / "report" / "index.html"


def _dependencies(recipe: Recipe) -> list[dg.AssetDep]:
    """Every partition of all that `read` reads."""
    names = [CANDIDATE_POOL.asset, *(scores_table(method).asset for method in recipe.methods)]
    names += [subset_asset(method) for method in recipe.methods]
    if recipe.reads_activations:
        names.append(CANDIDATE_ACTIVATIONS)
        names += [IN_DOMAIN_ACTIVATIONS] if recipe.reads_activations_of_examples else []
    if "nait_standardized" in recipe.methods:
        names += [NEURON_STATISTICS.asset, STANDARDIZED_CENTROIDS.asset]
    keys = [dg.AssetKey(name.split("/")) for name in names]
    return [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in keys]
