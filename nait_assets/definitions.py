"""Where rooms meet. No logic but one: what no method of the recipe reads is left out."""

import functools
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from nait_assets.audit import assets as audit
from nait_assets.catalogue import Catalogue, Output
from nait_assets.corpora.room import ROOM as CORPORA
from nait_assets.evaluation.room import ROOM as EVALUATION
from nait_assets.extraction.room import ROOM as EXTRACTION
from nait_assets.features.room import ROOM as FEATURES
from nait_assets.lineage import RECIPE_FILE, asset_path
from nait_assets.measurements.room import ROOM as MEASUREMENTS
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.report.room import ROOM as REPORT
from nait_assets.resources import LanguageModel, Warehouse, home_of
from nait_assets.rooms import Room
from nait_assets.scoring.room import ROOM as SCORING
from nait_assets.selection.room import ROOM as SELECTION
from nait_assets.training.room import ROOM as TRAINING

ROOMS: tuple[Room, ...] = (
    CORPORA,
    EXTRACTION,
    MEASUREMENTS,
    FEATURES,
    SCORING,
    SELECTION,
    TRAINING,
    EVALUATION,
    REPORT,
)
"""In the order in which they are made. The audit, which looks at their outputs from outside, is not among them."""


def catalogue_of(recipe: Recipe, rooms: Sequence[Room] | None = None) -> Catalogue:
    """The outputs that a recipe can have, in the order of the rooms; `build_definitions` leaves some out."""
    return Catalogue(output for room in rooms or ROOMS for output in room.outputs(recipe))


def output_named(rooms: Sequence[Room], key: str) -> Output | None:
    """The output that has a key in another recipe; None where no room knows it."""
    return next((output for room in rooms if (output := room.output_named(key)) is not None), None)


def build_definitions(recipe: Recipe, home: Path | None = None, rooms: Sequence[Room] | None = None) -> dg.Definitions:
    """The definitions of a recipe.

    Args:
        recipe: What to select, from what, with what.
        home: Where tables and subsets lie; `$NAIT_HOME`, else `data/home/<recipe name>`, by default.
        rooms: rooms in order; `ROOMS` by default.
    """
    home, rooms = home or home_of(recipe), rooms or ROOMS
    partitions, catalogue = Partitions.of(recipe), catalogue_of(recipe, rooms)
    of_recipe = {RECIPE_FILE: dg.MetadataValue.path(str(recipe.path))}
    assets = _rested_on([asset for room in rooms for asset in room.build_assets(recipe, partitions)], catalogue)
    code_versions = {asset_path(spec.key): spec.code_version for asset in assets for spec in asset.specs}
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.merge_attributes(metadata=of_recipe),
            [*assets, *audit.build_assets(recipe, catalogue, code_versions, functools.partial(output_named, rooms))],
        ),
        asset_checks=[
            checks.definition(partitions.of_output(catalogue[checks.asset].partitions))
            for room in rooms
            for checks in room.build_checks(recipe, partitions)
            if checks.asset in code_versions
        ],
        resources={
            "warehouse": _fixed(Warehouse(home=str(home), recipe=recipe.name)),
            "language_model": _fixed(LanguageModel.of(recipe, home)),
        },
        sensors=[sensor for room in rooms for sensor in room.build_sensors(recipe, partitions)],
        schedules=audit.build_schedules(),
        executor=dg.in_process_executor,
    )


def _fixed(resource: dg.ConfigurableResource) -> dg.ResourceDefinition:
    """A resource that no run's configuration can change: whoever may start a run must not choose where it writes."""

    def build(context: dg.InitResourceContext) -> dg.ConfigurableResource:
        resource.setup_for_execution(context)
        return resource

    return dg.ResourceDefinition(build, config_schema={}, description=type(resource).__doc__)


def _rested_on(assets: Sequence[dg.AssetsDefinition], catalogue: Catalogue) -> list[dg.AssetsDefinition]:
    """Assets without those on demand that no other rests on: they cost nothing, and are not shown."""
    by_key = {asset.key: asset for asset in assets}
    pending = [key for key in by_key if not catalogue[asset_path(key)].on_demand]
    read: set[dg.AssetKey] = set()
    while pending:
        key = pending.pop()
        if key in by_key and key not in read:
            read.add(key)
            pending += by_key[key].dependency_keys
    return [asset for asset in assets if asset.key in read]


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the recipe that the environment names, built when Dagster asks for them."""
    return build_definitions(load_recipe())
