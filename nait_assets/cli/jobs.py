"""Runs of a recipe's assets in this process: the job of one selection of assets is built once for all its partitions.

`JobDefinition.execute_in_process` takes the selection out of the job of all assets, and a snapshot of what is left,
again for each partition; that was a tenth of the time of an output of a few rows. This does the same in two steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags


class Jobs:
    """The jobs of a recipe's definitions, by the assets that they make."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance):
        self._all = defs.resolve_implicit_global_asset_job_def()
        self._instance = instance
        self._jobs: dict[frozenset[dg.AssetKey], dg.JobDefinition] = {}

    def execute(
        self,
        assets: Sequence[dg.AssetKey],
        partition: str | None,
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> dg.ExecuteInProcessResult:
        """Run assets of one partition, with their checks; a step that fails is in the result and raises nothing.

        Args:
            assets: Keys of assets with the same partitions.
            partition: Partition key, or None where they have none.
            run_config: Configuration of the run.
            tags: Tags of the run, beside those that Dagster gives it.
        """
        selected = frozenset(assets)
        if selected not in self._jobs:
            self._jobs[selected] = self._all.as_ephemeral_job({}, {}, asset_selection=list(assets))
        return core_execute_in_process(
            job=InMemoryJob(self._jobs[selected]),
            run_config=run_config,
            instance=self._instance,
            output_capturing_enabled=False,
            raise_on_error=False,
            run_tags=merge_run_tags(self._all, partition, tags, list(assets), self._instance, run_config),
            asset_selection=selected,
        )
