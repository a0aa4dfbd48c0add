"""Asset checks: claims about what is stored, read back from the tables, so that anyone can judge again at any time.

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


def checks_of(
    asset: str, partitions_def: dg.PartitionsDefinition | None, claims: Sequence[Claim], judge: Judge
) -> dg.AssetChecksDefinition:
    """The checks of one asset, in one step that reads its tables once.

    Args:
        asset: Its key as a path.
        partitions_def: Of the asset.
        claims: About each of its partitions.
        judge: What looks at a partition.
    """
    key = dg.AssetKey(asset.split("/"))
    specs = [
        dg.AssetCheckSpec(
            claim.name,
            asset=key,
            description=claim.description,
            blocking=claim.blocking,
            partitions_def=partitions_def,
        )
        for claim in claims
    ]
    severities = {
        claim.name: dg.AssetCheckSeverity.ERROR if claim.blocking else dg.AssetCheckSeverity.WARN for claim in claims
    }

    @dg.multi_asset_check(name=f"{key.to_python_identifier()}_checks", specs=specs, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> Iterator[dg.AssetCheckResult]:
        partition = str(context.partition_key) if context.has_partition_key else ""
        verdicts = judge(warehouse, partition)
        for check in sorted(context.selected_asset_check_keys):
            verdict = verdicts[check.name]
            yield dg.AssetCheckResult(
                passed=verdict.holds,
                asset_key=check.asset_key,
                check_name=check.name,
                severity=severities[check.name],
                description=verdict.says,
                metadata=dict(verdict.metadata),
            )

    return checks
