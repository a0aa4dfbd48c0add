"""What is missing or out of date, why, and the runs that make it: the command line's view of the same assets.

An output is current if its stored record says that this code made it from the versions that its inputs have now.
Dagster's own view cannot tell: it does not know the content of files, and does not see beyond one step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from nait_assets.catalogue import Catalogue, Output
from nait_assets.definitions import catalogue_of
from nait_assets.lineage import UNHASHED, Record, asset_path, reference
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse


@dataclass(frozen=True)
class Step:
    """One output that is not current.

    Attributes:
        asset: Its key.
        partition: Its partition key, or None.
        reasons: Why it is not current.
    """

    asset: dg.AssetKey
    partition: str | None
    reasons: tuple[str, ...]


@dataclass
class Plan:
    """The state of a recipe's outputs.

    Attributes:
        defs: Definitions of the recipe.
        recipe: Recipe that the definitions were built from.
        warehouse: Warehouse that holds the outputs.
        model: Model of the recipe.
        instance: Dagster instance that knows what was run; None where there is none that can be read.
        only: Assets to look at; all by default.
    """

    defs: dg.Definitions
    recipe: Recipe
    warehouse: Warehouse
    model: LanguageModel
    instance: dg.DagsterInstance | None
    only: frozenset[dg.AssetKey] | None = None
    _external: dict[tuple[dg.AssetKey, str | None], dict[str, str]] = field(default_factory=dict)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The outputs that are planned. The audit is none: what it looks at changes without a version that tells."""
        return catalogue_of(self.recipe)

    def output(self, asset: dg.AssetKey) -> Output:
        """The output that an asset makes."""
        return self.catalogue[asset_path(asset)]

    def stages(self) -> list[list[dg.AssetKey]]:
        """Assets in the order in which they can be made: room by room, and within a room by what they rest on there."""
        graph, rooms = self.defs.resolve_asset_graph(), self.catalogue.rooms
        depths: dict[dg.AssetKey, int] = {}
        stages: dict[tuple[int, int], list[dg.AssetKey]] = {}
        for key in graph.toposorted_asset_keys:
            if asset_path(key) not in self.catalogue:
                continue
            room = self.output(key).room
            parents = [parent for parent in graph.get(key).parent_keys if self.output(parent).room == room]
            depths[key] = 1 + max((depths[parent] for parent in parents), default=0)
            if self.only is None or key in self.only:
                stages.setdefault((rooms.index(room), depths[key]), []).append(key)
        return [sorted(stages[place]) for place in sorted(stages)]

    def partitions(self, asset: dg.AssetKey) -> list[str | None]:
        """An asset's partition keys, or None alone."""
        definition = self.defs.resolve_asset_graph().get(asset).partitions_def
        return [str(key) for key in definition.get_partition_keys()] if definition else [None]

    def out_of_date(self, asset: dg.AssetKey, records: Mapping[str, Record]) -> list[Step]:
        """The partitions of an asset that are not current, given the records of what there is.

        Raises:
            UserError: A source or the model cannot be found.
        """
        definition = self.defs.resolve_asset_graph().get(asset).partitions_def
        seen, unpassed = self._seen_by_dagster(asset, definition is not None), self._unpassed_checks(asset)
        steps = [
            Step(asset, partition, (*self._reasons(asset, partition, records, seen), *unpassed.get(partition, [])))
            for partition in self.partitions(asset)
        ]
        return [step for step in steps if step.reasons]

    def check(self, records: Mapping[str, Record]) -> list[Step]:
        """Find what a user got wrong before anything is written or the model is loaded.

        Returns:
            Every step that is not current now; making them can show that others are not.

        Raises:
            UserError: A source, the model or a feature file cannot be found, the model lacks the site or a layer, or
                a feature file does not fit the recipe.
        """
        steps = [step for stage in self.stages() for asset in stage for step in self.out_of_date(asset, records)]
        partitions: dict[dg.AssetKey, list[str]] = {}
        for step in steps:
            self._external_versions(step.asset, step.partition)
            partitions.setdefault(step.asset, []).append(step.partition or "")
        for asset, of_asset in partitions.items():
            self.output(asset).preflight(self.recipe, self.model, of_asset)
        return steps

    def _reasons(
        self, asset: dg.AssetKey, partition: str | None, records: Mapping[str, Record], seen: set[str | None]
    ) -> Iterator[str]:
        record = records.get(reference(asset_path(asset), partition))
        if record is None:
            yield "missing"
            return
        if record.code_version != self.defs.resolve_asset_graph().get(asset).code_version:
            yield "the recipe or the code changed"
        if not record.record_hash:
            yield UNHASHED
        yield from self._changed_inputs(record, self._inputs(asset, partition, records))
        outlived = self.output(asset).why_outlived(self.warehouse, partition or "")
        if outlived:
            yield outlived
        for path in self.output(asset).files(self.recipe, self.warehouse, partition or ""):
            if not path.exists():
                yield f"{path} is missing"
        if partition not in seen:
            yield "unknown to this Dagster instance"

    @staticmethod
    def _changed_inputs(record: Record, wanted: Mapping[str, str]) -> Iterator[str]:
        for source in sorted({*wanted, *record.inputs}):
            if source not in record.inputs:
                yield f"new input {source}"
            elif source not in wanted:
                yield f"{source} is no longer an input"
            elif wanted[source] != record.inputs[source]:
                yield f"{source} changed"

    def _inputs(self, asset: dg.AssetKey, partition: str | None, records: Mapping[str, Record]) -> dict[str, str]:
        """The versions that an output's inputs have now; "" for one that is missing."""
        parents = self.defs.resolve_asset_graph().get_parents_partitions(asset, partition).parent_partitions
        names = [
            reference(asset_path(parent.asset_key), parent.partition_key and str(parent.partition_key))
            for parent in parents
        ]
        inputs = {name: records[name].data_version if name in records else "" for name in names}
        return {**inputs, **self._external_versions(asset, partition)}

    def _external_versions(self, asset: dg.AssetKey, partition: str | None) -> dict[str, str]:
        """The versions of what an output reads from outside: sources, the model, feature files."""
        if (asset, partition) not in self._external:
            self._external[asset, partition] = self.output(asset).external_versions(
                self.recipe, self.warehouse, self.model, partition or ""
            )
        return self._external[asset, partition]

    def _unpassed_checks(self, asset: dg.AssetKey) -> dict[str | None, list[str]]:
        """What the checks of the present output of each partition leave open: one that blocks failed, or has not ended.

        A process that ends between an output and its checks leaves them planned, and the output as if it were checked.
        A check of which nothing is known is none of these: it may be newer than the output.
        """
        graph = self.defs.resolve_asset_graph()
        keys = list(graph.get_check_keys_for_assets({asset}))
        found: dict[str | None, list[str]] = {}
        for info in self.instance.event_log_storage.get_asset_check_partition_info(keys) if self.instance else []:
            name, status, reason = info.check_key.name, info.latest_execution_status, ""
            if status == AssetCheckExecutionRecordStatus.PLANNED or not info.is_current:
                reason = f"its check {name} did not end"
            elif status == AssetCheckExecutionRecordStatus.FAILED and graph.get(info.check_key).blocking:
                reason = f"its check {name} failed"
            if reason:
                found.setdefault(info.partition_key, []).append(reason)
        return found

    def _seen_by_dagster(self, asset: dg.AssetKey, partitioned: bool) -> set[str | None]:
        if self.instance is None:
            return set()
        if partitioned:
            return {str(key) for key in self.instance.get_materialized_partitions(asset)}
        return {None} if self.instance.get_latest_materialization_event(asset) else set()


def by_reasons(steps: list[Step]) -> dict[tuple[str, ...], list[str | None]]:
    """Partitions that are not current for the same reasons, together."""
    partitions: dict[tuple[str, ...], list[str | None]] = {}
    for step in steps:
        partitions.setdefault(step.reasons, []).append(step.partition)
    return partitions


def runs_of(steps: list[Step], defs: dg.Definitions) -> list[tuple[str | None, list[dg.AssetKey]]]:
    """Steps of one stage as few runs: assets with the same partitions are made together, partition by partition."""
    graph = defs.resolve_asset_graph()
    runs: dict[tuple[str, str | None], list[dg.AssetKey]] = {}
    for step in steps:
        definition = graph.get(step.asset).partitions_def
        runs.setdefault((repr(definition), step.partition), []).append(step.asset)
    return [(partition, assets) for (_, partition), assets in runs.items()]
