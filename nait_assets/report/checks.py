"""Checks of the comparison: what only all subsets together show.

A check of one target's subset against another's would have the outcome of the day when the one was made: it is not
asked again when the other changes, and at first the other is not there.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import polars as pl

from nait_assets import lineage
from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.report.catalogue import COMPARISON_OUTPUT
from nait_assets.report.page_data import subsets
from nait_assets.resources import Warehouse
from nait_assets.selection.comparison import overlap
from nait_assets.tables import CANDIDATE_POOL

MOST_AGREEMENT = 0.8
N_LISTED = 20
COLUMNS = ["method", "ratio", "target", "other", "overlap", "agreement"]
TARGETS_DIFFER = Check(
    "targets_differ",
    f"No two capabilities' subsets of a method agree by more than {MOST_AGREEMENT} beyond chance.",
    blocking=False,
)


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """The check of the comparison, where a method of the recipe knows its target, and there are two capabilities."""
    targeted = [method for method in recipe.methods if recipe.is_targeted(method)]
    if not targeted or len(recipe.capability_names) < 2:
        return []

    def execute(warehouse: Warehouse, _partition: str) -> Mapping[str, CheckResult]:
        with warehouse.tables.snapshot() as tables:
            chosen, n_candidates = subsets(tables, recipe), tables.n_rows(CANDIDATE_POOL)
        rows = [
            (
                method,
                ratio,
                one,
                other,
                *_agreement(chosen[method, one, ratio], chosen[method, other, ratio], n_candidates),
            )
            for method in targeted
            for ratio in recipe.ratios
            for one, other in combinations(recipe.capability_names, 2)
        ]
        return {TARGETS_DIFFER.name: _judged(pl.DataFrame(rows, COLUMNS, orient="row"))}

    return [AssetChecks(COMPARISON_OUTPUT.key, [TARGETS_DIFFER], execute)]


def _agreement(one: Sequence[str], other: Sequence[str], n_candidates: int) -> tuple[float, float]:
    """The overlap o of two subsets, and (o - r) / (1 - r): two random subsets of a share r of the pool overlap by r.

    Two subsets of the whole pool agree by 0, as nothing was chosen.
    """
    found, by_chance = overlap(one, other), max(len(one), len(other)) / n_candidates
    return found, 0.0 if by_chance >= 1 else (found - by_chance) / (1 - by_chance)


def _judged(pairs: pl.DataFrame) -> CheckResult:
    pairs = pairs.sort("agreement", "method", "ratio", "target", descending=[True, False, False, False])
    most = pairs.row(0, named=True)
    return CheckResult(
        most["agreement"] <= MOST_AGREEMENT,
        f"{most['target']} and {most['other']} of {most['method']} at {most['ratio']} are closest: "
        f"{most['overlap']:.0%} of the rows are the same, {most['agreement']:+.2f} beyond chance",
        {
            "n_pairs_too_close": len(pairs.filter(pl.col("agreement") > MOST_AGREEMENT)),
            "closest_pairs": lineage.table_metadata(pairs.head(N_LISTED)),
        },
    )
