"""Asset checks: what should hold of a stored output, tested on what is read back from the tables.

Belongs here: what a check and its result are, and how Dagster is told. Does not belong here: the checks, which are in
each room's `checks.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from nait_assets.lineage import asset_key
from nait_assets.losses import Losses
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse


@dataclass(frozen=True)
class Check:
    """Something that should hold of every partition of an asset.

    Attributes:
        name: Name of the check in Dagster, such as `ids_are_unique`.
        description: What should hold, in a sentence.
        blocking: Whether nothing may be made from an output that fails it; otherwise a failure is a warning.
    """

    name: str
    description: str
    blocking: bool = True


@dataclass(frozen=True)
class CheckResult:
    """Whether a check passed for one partition.

    Attributes:
        passed: Whether what should hold does hold.
        description: What was found, in a sentence.
        metadata: Numbers and rows that people look at.
    """

    passed: bool
    description: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


CheckFunction = Callable[[Warehouse, str], Mapping[str, CheckResult]]
"""From the warehouse and a partition key ("" where there is none) to the result of each check, by its name."""


@dataclass(frozen=True)
class AssetChecks:
    """The checks of one asset, executed together, so that its tables are read once.

    Attributes:
        asset: Key of the asset as a path, such as `corpora/candidate_pool`.
        checks: What should hold of each of its partitions.
        execute: Function that looks at a partition.
    """

    asset: str
    checks: Sequence[Check]
    execute: CheckFunction

    def definition(self, partitions_def: dg.PartitionsDefinition | None) -> dg.AssetChecksDefinition:
        """The checks for Dagster: one step, which runs right after the asset's own.

        Args:
            partitions_def: partitions of the asset.
        """
        key = asset_key(self.asset)
        by_name = {check.name: check for check in self.checks}
        specs = [
            dg.AssetCheckSpec(
                check.name,
                asset=key,
                description=check.description,
                blocking=check.blocking,
                partitions_def=partitions_def,
            )
            for check in self.checks
        ]

        @dg.multi_asset_check(name=f"{key.to_python_identifier()}_checks", specs=specs, can_subset=True)
        def checks(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> Iterator[dg.AssetCheckResult]:
            results = self.execute(warehouse, str(context.partition_key) if context.has_partition_key else "")
            for selected in sorted(context.selected_asset_check_keys):
                result, blocking = results[selected.name], by_name[selected.name].blocking
                yield dg.AssetCheckResult(
                    passed=result.passed,
                    asset_key=selected.asset_key,
                    check_name=selected.name,
                    severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
                    description=result.description,
                    metadata=dict(result.metadata),
                )

        return checks


def such_as(found: Iterable[object]) -> str:
    """The first three of some ids, as the end of a sentence; "" where there are none."""
    first = sorted(map(str, found))[:3]
    return f", such as {', '.join(first)}" if first else ""


FEW_REJECTED, ENOUGH_LEFT = "few_rows_are_rejected", "enough_rows_are_left"


def checks_of_losses(recipe: Recipe) -> list[Check]:
    """The checks of every output that rejects rows: a warning, and where the recipe sets a limit, a blocking one."""
    limit, most = recipe.refuse_above, recipe.max_rejected
    blocking = Check(ENOUGH_LEFT, f"At most {limit or 0:.2%} of the rows are rejected, as `refuse_above` says.")
    warning = Check(FEW_REJECTED, f"At most {most:.2%} of the rows are rejected (`max_rejected`).", blocking=False)
    return [warning, *([] if limit is None else [blocking])]


def check_losses(recipe: Recipe, losses: Losses | None) -> dict[str, CheckResult]:
    """The results of `checks_of_losses`; an output that has no counts passes."""
    if losses is None:
        return {name: CheckResult(True, "there are no counts of rows") for name in (FEW_REJECTED, ENOUGH_LEFT)}
    share, numbers = losses.share_rejected, {"n_rejected": losses.n_rejected, "share_rejected": losses.share_rejected}
    said = f"{share:.1%} are rejected; {losses.sentence}"
    limit = 1.0 if recipe.refuse_above is None else recipe.refuse_above
    return {
        FEW_REJECTED: CheckResult(share <= recipe.max_rejected, said, numbers),
        ENOUGH_LEFT: CheckResult(share <= limit, said, numbers),
    }
