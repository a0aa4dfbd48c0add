"""`nait run`: make what is missing or out of date, stage by stage."""

import os
import time
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import (
    DiskFull,
    StepFailed,
    StepRefused,
    cause_of,
    full_disk,
    grouped_check_lines,
    is_bad_input,
    is_full_disk,
    label,
    reason_of,
    say,
)
from nait_assets.cli.options import home_option, recipe_option


@click.command("run")
@recipe_option
@home_option
@click.option(
    "--select",
    "selection",
    default=None,
    help="A Dagster asset selection, such as 'group:corpora' or 'key:scoring/nait_scores'.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What runs the model over samples.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    default=None,
    help="Address of a running Ray cluster; $RAY_ADDRESS, else Ray is started on this machine.",
)
@click.option(
    "--ray-workers", type=click.IntRange(1), default=2, show_default=True, help="Ray actors; each loads the model."
)
@click.option("--ray-cpus", type=float, default=1.0, show_default=True, help="CPUs of each actor.")
@click.option("--ray-gpus", type=float, default=0.0, show_default=True, help="GPUs of each actor.")
@click.option("--batch-tokens", type=click.IntRange(1), default=None, help="Largest number of tokens in a batch.")
def command(
    recipe_path: Path | None, home: Path | None, selection: str | None, ray_address: str | None, **extraction: Any
) -> None:
    """Make what is missing or out of date, and nothing else."""
    from nait_assets.leftovers import refresh_views

    if ray_address:
        os.environ["RAY_ADDRESS"] = ray_address  # not run configuration: whoever may start a run must not choose it
    with opened(recipe_path, home, writes=True) as workplace, workplace.locked():
        plan, records = workplace.plan(selection), workplace.warehouse.records()
        n_runs = n_outputs = 0
        started = time.monotonic()
        for stage in plan.stages() if plan.check(records) else []:
            steps = [step for asset in stage for step in plan.out_of_date(asset, records)]
            if steps:
                n_runs, n_outputs = n_runs + _run_stage(workplace, steps, extraction), n_outputs + len(steps)
                records = workplace.warehouse.records()
        refresh_views(workplace.recipe, workplace.warehouse)
        if n_outputs == 0:
            what = "Everything" if selection is None else "What was selected"
            say(f"{what} is up to date in {workplace.home}; nothing was computed.")
        else:
            say(f"{n_outputs} outputs made in {n_runs} runs, {time.monotonic() - started:.0f} s, in {workplace.home}")


def _run_stage(workplace: Workplace, steps: list[Any], extraction: dict[str, Any]) -> int:
    """Run one stage's steps; a failure ends the command when the stage is through.

    Args:
        workplace: Home of the assets.
        steps: Outputs to make, all of one stage.
        extraction: Run configuration of the steps that read the model.

    Returns:
        How many runs it took.

    Raises:
        StepFailed: What failed, and why, each reason once.
    """
    from nait_assets.cli.jobs import Jobs
    from nait_assets.planning import runs_of

    runs, jobs = runs_of(steps, workplace.defs), Jobs(workplace.defs, workplace.instance)
    failures = _Failures()
    for partition, assets in runs:
        _await_pools(workplace, assets)
        started = time.monotonic()
        configuration = _configuration(workplace.catalogue, assets, extraction)
        result = jobs.execute(assets, partition, configuration, {"nait/command": "run"})
        outcome = "done  " if result.success else "FAILED"
        say(f"{outcome} {time.monotonic() - started:6.1f} s  {label(assets, partition)}")
        for line in _losses(workplace, result, partition):
            say(f"    {line}")
        failures.collect(workplace, result, assets, partition)
    for line in grouped_check_lines(failures.checks):
        say(f"  {line}")
    failures.raise_if_any()
    return len(runs)


def _losses(workplace: Workplace, result: Any, partition: str | None) -> list[str]:
    """What became of the rows of every output that a run has made, of those that can lose rows."""
    from nait_assets.lineage import asset_path

    made = [asset_path(event.asset_key) for event in result.get_asset_materialization_events()]
    found = {key: workplace.catalogue[key].losses(workplace.warehouse, partition or "") for key in made}
    lost = {key: losses for key, losses in found.items() if losses is not None}
    return [(f"{key}: " if len(lost) > 1 else "") + losses.sentence for key, losses in lost.items()]


def _configuration(catalogue: Any, assets: list[Any], extraction: dict[str, Any]) -> dict[str, Any]:
    """Run configuration of a run of these assets."""
    from nait_assets.lineage import asset_path

    return {
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {
            asset.to_python_identifier(): {"config": extraction}
            for asset in assets
            if catalogue[asset_path(asset)].takes_run_options
        },
    }


class _Failures:
    """What failed in the runs of a stage: outputs by reason, the classes of the errors, and checks by partition."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[str]] = {}
        self.classes: set[str] = set()
        self.checks: list[tuple[Any, str | None]] = []

    def collect(self, workplace: Workplace, result: Any, assets: list[Any], partition: str | None) -> None:
        """Add the failures of one run, and its failed checks.

        Raises:
            KeyboardInterrupt: The run was interrupted.
            DiskFull: A step failed for want of room, as every later one would.
        """
        errors = {event.step_key: cause_of(event) for event in result.all_events if event.is_step_failure}
        if any(error.cls_name == "DagsterExecutionInterruptedError" for error in errors.values()):
            raise KeyboardInterrupt  # which Dagster takes for a failure of the step
        for event in result.all_events:
            if event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.event_specific_data.passed:
                self.checks.append((event.event_specific_data, partition))
        if any(is_full_disk(error, workplace.home) for error in errors.values()):
            raise DiskFull(f"{label(assets, partition)}: {full_disk(workplace.home)}")
        of_run = label(assets, partition)
        if not result.success and not errors:
            self._add("the run failed outside of its steps; its log says why", of_run, "")
        of_step = {asset.to_python_identifier(): label([asset], partition) for asset in assets}
        for step, error in errors.items():
            if error.cls_name == "DagsterAssetCheckFailedError":  # what the check found has been printed
                self._add("a blocking check failed", of_run, error.cls_name)
            else:
                self._add(reason_of(error), of_step.get(step, of_run), error.cls_name)

    def _add(self, reason: str, output: str, error_class: str) -> None:
        self.outputs.setdefault(reason, []).append(output)
        self.classes.add(error_class)

    def raise_if_any(self) -> None:
        """Raise StepFailed with a line for each reason; StepRefused where the recipe is to blame for all of them."""
        if self.outputs:
            lines = [f"{', '.join(outputs)}: {reason}" for reason, outputs in self.outputs.items()]
            raise (StepRefused if all(map(is_bad_input, self.classes)) else StepFailed)("\n".join(lines))


def _await_pools(workplace: Workplace, assets: list[Any]) -> None:
    """Wait until the language model's pool has a free slot; Dagster would block without a message and ignore Ctrl-C.

    Args:
        workplace: Home with the instance that counts the slots.
        assets: Keys of the assets that are about to be made.
    """
    storage, graph = workplace.instance.event_log_storage, workplace.defs.resolve_asset_graph()
    if not storage.supports_global_concurrency_limits:
        return
    for pool in {pool for asset in assets for pool in graph.get(asset).pools or ()}:
        told = False
        while (info := storage.get_concurrency_info(pool)).slot_count and not _has_free_slot(info):
            if not told:
                runs = ", ".join(sorted(info.active_run_ids))
                say(
                    f"waiting for the pool {pool}, which the run {runs} of Dagster's daemon holds. "
                    "If that run has died, terminate it in the UI."
                )
                told = True
            time.sleep(1)


def _has_free_slot(pool: Any) -> bool:
    return bool(pool.active_slot_count < pool.slot_count)
