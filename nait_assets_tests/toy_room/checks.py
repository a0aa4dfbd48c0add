"""Checks of the toy room."""

from collections.abc import Mapping

from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.toy_room.catalogue import COUNTS, WORD_COUNTS

CHECKS = [Check("word_occurs", "Some candidate says the word.", blocking=False)]


def build_checks(_recipe: Recipe, _partitions: Partitions) -> list[AssetChecks]:
    """The check of the counts."""

    def execute(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        with warehouse.tables.snapshot() as snapshot:
            total = int(snapshot.read(WORD_COUNTS)["n_times"].sum())
        return {"word_occurs": CheckResult(total > 0, f"it occurs {total} times")}

    return [AssetChecks(COUNTS.key, CHECKS, execute)]
