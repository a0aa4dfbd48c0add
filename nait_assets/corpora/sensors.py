"""The sensor that notices changed sources: what corpora were built from is compared with what the sources are now.

It keeps no cursor: what it looks at are the records in the warehouse, so that a missed tick or a failed run loses
nothing. Does not belong here: what a source's state is (`resources/dataset_source.py`).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import dagster as dg

from nait_assets.corpora.catalogue import corpora
from nait_assets.corpora.corpus import source_inputs
from nait_assets.errors import UserError, WarehouseError
from nait_assets.lineage import Record, asset_key, reference
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Store

INTERVAL_SECONDS = 3600
LOCK_SECONDS = 2.0
"""A writer is waited for so long; the next tick is soon enough."""
LOOKING_SECONDS = 30.0
"""After so long no further source is looked at: Dagster ends a sensor's tick after 60 s, a hub may take 20 s more."""


@dataclass(frozen=True)
class Watched:
    """A corpus and the output that it becomes.

    Attributes:
        asset: Key as a path.
        partition: Partition key, or None.
        corpus: Its name in the recipe.
    """

    asset: str
    partition: str | None
    corpus: str

    @property
    def name(self) -> str:
        """The output, as the records name it."""
        return reference(self.asset, self.partition)


@dataclass
class Findings:
    """How each corpus differs from when it was built; one that is in none of these is unchanged.

    Attributes:
        changed: Outputs whose sources differ, with a hash of what they were and what they are.
        unread: Why the sources of an output could not be looked at, by the output's name.
        unbuilt: Outputs that were never built.
    """

    changed: dict[Watched, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    unbuilt: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{name}: its sources could not be read: {reason}" for name, reason in self.unread.items()]
        if self.unbuilt:
            lines.append(f"never built, the first load is a person's (`nait run`): {', '.join(self.unbuilt)}")
        return "\n".join(lines)


def watched_corpora(recipe: Recipe, partitions: Partitions) -> list[Watched]:
    """Every corpus of a recipe."""
    watched = []
    for output in corpora(recipe):
        definition = partitions.of_output(output.partitions)
        for partition in definition.get_partition_keys() if definition else [""]:
            watched.append(Watched(output.key, partition or None, output.corpus(partition)))
    return watched


def compare(
    corpora: Iterable[Watched],
    records: Mapping[str, Record],
    state_of: Callable[[str], Mapping[str, str]],
    seconds: float = LOOKING_SECONDS,
) -> Findings:
    """What the corpora were built from, against what their sources are now.

    Args:
        corpora: Corpora to look at.
        records: What there is, by name.
        state_of: Function from a corpus' name to the state of each of its sources; raises `UserError` if one cannot
            be read, which says nothing about its content.
        seconds: After so long no further source is looked at.
    """
    findings, end = Findings(), time.monotonic() + seconds
    for watched in corpora:
        record = records.get(watched.name)
        if record is None:
            findings.unbuilt.append(watched.name)
        elif time.monotonic() > end:
            findings.unread[watched.name] = f"not looked at, as the other sources took {seconds:g} s"
        else:
            try:
                now = dict(state_of(watched.corpus))
            except UserError as error:
                findings.unread[watched.name] = str(error)
                continue
            # a published list rests on the pool too, which is watched for itself
            then = {name: version for name, version in record.inputs.items() if name not in records}
            if now != then:
                findings.changed[watched] = fingerprint(then, now)
    return findings


def _today() -> date:
    return datetime.now(UTC).date()


def build_sensors(
    recipe: Recipe, partitions: Partitions, today: Callable[[], date] = _today
) -> list[dg.SensorDefinition]:
    """The sensor over a recipe's sources.

    Args:
        recipe: Recipe whose sources are watched.
        partitions: Partitions of the recipe.
        today: The date, which makes a change that failed be requested again the next day.
    """
    watched = watched_corpora(recipe, partitions)
    assets = sorted({one.asset for one in watched})

    @dg.sensor(
        asset_selection=dg.AssetSelection.assets(*assets),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Every hour, requests the corpora whose files or hub data sets differ from what they were built from: an "
            "edited file, a moved branch. A source that cannot be read requests nothing. Stopped until you switch it "
            "on; the first load is yours (`nait run`). One attempt a day for each change."
        ),
    )
    def sources_changed(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
        try:
            records = Store(warehouse.tables.path, LOCK_SECONDS).records()
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        findings = compare(watched, records, lambda corpus: source_inputs(recipe, corpus, warehouse.hashes))
        if not findings.changed:
            return dg.SkipReason(str(findings) or "every corpus was built from what its sources are now")
        if str(findings):
            context.log.warning(str(findings))
        day = today().isoformat()
        return dg.SensorResult(
            [
                dg.RunRequest(
                    run_key=f"{one.name}:{change}:{day}",
                    asset_selection=[asset_key(one.asset)],
                    partition_key=one.partition,
                )
                for one, change in findings.changed.items()
            ]
        )

    return [sources_changed]
