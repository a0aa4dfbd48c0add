"""Asset checks: what should hold of a stored output, tested on what is read back from the tables.

Belongs here: what a check and its result are, and how Dagster is told. Does not belong here: the checks, which are in
each room's `checks.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from nait_assets.lineage import asset_key
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
