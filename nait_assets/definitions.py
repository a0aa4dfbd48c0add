"""Where assets, jobs and resources meet. No logic but one: what no method of the recipe reads is left out."""

from pathlib import Path

import dagster as dg

from nait_assets.audit import assets as audit
from nait_assets.corpora import assets as corpora
from nait_assets.corpora import checks as corpora_checks
from nait_assets.corpora.sensors import build_sensors
from nait_assets.extraction import assets as extraction
from nait_assets.extraction import checks as extraction_checks
from nait_assets.features import assets as features
from nait_assets.features import checks as features_checks
from nait_assets.lineage import RECIPE_FILE
from nait_assets.measurements import assets as measurements
from nait_assets.measurements import checks as measurements_checks
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.report import assets as report
from nait_assets.resources import LanguageModel, Warehouse, home_of
from nait_assets.scoring import assets as scoring
from nait_assets.scoring import checks as scoring_checks
from nait_assets.selection import assets as selection
from nait_assets.selection import checks as selection_checks


def build_definitions(recipe: Recipe, home: Path | None = None) -> dg.Definitions:
    """The definitions of a recipe.

    Args:
        recipe: What to select, from what, with what.
        home: Where tables and subsets lie; `$NAIT_HOME`, else `data/home/<recipe name>`, by default.
    """
    home = home or home_of(recipe)
    partitions = Partitions.of(recipe)
    rooms = [corpora, extraction, measurements, features, scoring, selection, report]
    checks = [corpora_checks, extraction_checks, measurements_checks, features_checks, scoring_checks, selection_checks]
    of_recipe = {RECIPE_FILE: dg.MetadataValue.path(str(recipe.path))}
    assets = _read_by_a_method([asset for room in rooms for asset in room.build_assets(recipe, partitions)])
    code_versions = {"/".join(spec.key.path): spec.code_version for asset in assets for spec in asset.specs}
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.merge_attributes(metadata=of_recipe),
            [*assets, *audit.build_assets(recipe, code_versions)],
        ),
        asset_checks=[
            found.definition()
            for room in checks
            for found in room.build_checks(recipe, partitions)
            if found.asset in code_versions
        ],
        resources={"warehouse": Warehouse(home=str(home)), "language_model": LanguageModel.of(recipe, home)},
        sensors=build_sensors(recipe, partitions),
        schedules=audit.build_schedules(),
        executor=dg.in_process_executor,
    )


def _read_by_a_method(assets: list[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Assets without those that nothing of the recipe's methods rests on: they cost nothing, and are not shown."""
    by_key = {asset.key: asset for asset in assets}
    pending = [key for key in by_key if key.path[0] not in ("extraction", "measurements", "features")]
    read: set[dg.AssetKey] = set()
    while pending:
        key = pending.pop()
        if key in by_key and key not in read:
            read.add(key)
            pending += by_key[key].dependency_keys
    return [asset for asset in assets if asset.key in read]


defs = build_definitions(load_recipe())
