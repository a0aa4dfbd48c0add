"""Asset checks: claims about what is stored, judged by what is read back from the tables.

Belongs here: what a claim and a verdict are, and how Dagster is told. Does not belong here: the claims, which stand in
each room's `checks.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from nait_assets.resources import Warehouse


@dataclass(frozen=True)
class Claim:
    """Something that should hold of every partition of an asset.

    Attributes:
        name: The check's, such as `ids_are_unique`.
        description: What should hold.
        blocking: Whether nothing may rest on an output of which it does not hold; else it is a warning.
    """

    name: str
    description: str
    blocking: bool = True


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds.

    Attributes:
        holds: Of the partition that was looked at.
        says: What was found, in a sentence.
        metadata: Numbers and rows that people look at.
    """

    holds: bool
    says: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


Judge = Callable[[Warehouse, str], Mapping[str, Verdict]]
"""From the warehouse and a partition key ("" where there is none) to a verdict on each claim, by name."""


@dataclass(frozen=True)
class AssetChecks:
    """The checks of one asset, judged together, so that its tables are read once.

    Attributes:
        asset: Its key as a path.
        partitions_def: Of the asset.
        claims: About each of its partitions.
        judge: What looks at a partition.
    """

    asset: str
    partitions_def: dg.PartitionsDefinition | None
    claims: Sequence[Claim]
    judge: Judge

    def definition(self) -> dg.AssetChecksDefinition:
        """The checks for Dagster: one step, which runs behind the asset's own."""
        key = dg.AssetKey(self.asset.split("/"))
        claims = {claim.name: claim for claim in self.claims}
        specs = [
            dg.AssetCheckSpec(
                claim.name,
                asset=key,
                description=claim.description,
                blocking=claim.blocking,
                partitions_def=self.partitions_def,
            )
            for claim in self.claims
        ]

        @dg.multi_asset_check(name=f"{key.to_python_identifier()}_checks", specs=specs, can_subset=True)
        def checks(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> Iterator[dg.AssetCheckResult]:
            verdicts = self.judge(warehouse, str(context.partition_key) if context.has_partition_key else "")
            for check in sorted(context.selected_asset_check_keys):
                verdict, blocking = verdicts[check.name], claims[check.name].blocking
                yield dg.AssetCheckResult(
                    passed=verdict.holds,
                    asset_key=check.asset_key,
                    check_name=check.name,
                    severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
                    description=verdict.says,
                    metadata=dict(verdict.metadata),
                )

        return checks
