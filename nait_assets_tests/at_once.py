"""All outputs of a recipe made at once in an empty home: what its assets do, in order, without runs of Dagster.

Belongs here: the bodies of assets and their checks, called one after the other, at a third of what runs cost. Does not
belong here: what `nait run` decides, which is what this is compared with.
"""

import inspect
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from nait_assets.definitions import ROOMS, build_definitions
from nait_assets.leftovers import refresh_views
from nait_assets.lineage import asset_key, asset_path
from nait_assets.models.config import ExtractionConfig
from nait_assets.partitions import Partitions
from nait_assets.planning import Plan
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse

Outcomes = dict[tuple[dg.AssetCheckKey, str | None], Status]
"""Of each check of each partition."""


class BlockedError(Exception):
    """A blocking check failed."""


def make_at_once(recipe: Recipe, home: Path) -> Outcomes:
    """Make everything in an empty home.

    Args:
        recipe: recipe of the outputs.
        home: home that is not there yet.

    Raises:
        BlockedError: a check did, behind an output from which nothing may be made.
        UserError: something is wrong with the recipe or what it names.
    """
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    plan = Plan(build_definitions(recipe, home), recipe, warehouse, model, None)
    plan.check({})
    outcomes: Outcomes = {}
    for stage in plan.stages():
        for asset in stage:
            for partition in plan.partitions(asset):
                _make(plan, asset, partition)
                outcomes |= _checked(recipe, warehouse, asset, partition)
    refresh_views(recipe, warehouse)
    return outcomes


def _make(plan: Plan, asset: dg.AssetKey, partition: str | None) -> None:
    """Call an asset's body; the context has what bodies ask one for."""
    definition = plan.defs.resolve_asset_graph().get(asset).assets_def
    context = SimpleNamespace(
        asset_key=asset,
        has_partition_key=partition is not None,
        partition_key=partition,
        assets_def=definition,
        run=SimpleNamespace(run_id="at once"),
        log=logging.getLogger(__name__),
    )
    given: dict[str, Any] = {
        "context": context,
        "config": ExtractionConfig(batch_tokens=1),
        "warehouse": plan.warehouse,
        "language_model": plan.model,
    }
    body = definition.op.compute_fn.decorated_fn
    body(**{name: given[name] for name in inspect.signature(body).parameters})


def _checked(recipe: Recipe, warehouse: Warehouse, asset: dg.AssetKey, partition: str | None) -> Outcomes:
    partitions, outcomes = Partitions.of(recipe), {}
    for checks in (checks for room in ROOMS for checks in room.build_checks(recipe, partitions)):
        if checks.asset == asset_path(asset):
            results = checks.execute(warehouse, partition or "")
            for check in checks.checks:
                passed = results[check.name].passed
                if check.blocking and not passed:
                    raise BlockedError(f"{checks.asset}, {check.name}: {results[check.name].description}")
                key = dg.AssetCheckKey(asset_key(checks.asset), check.name)
                outcomes[key, partition] = Status.SUCCEEDED if passed else Status.FAILED
    return outcomes
