"""The command line: a thin shell over the same assets and the same Dagster instance as the UI.

Exit codes: 0 done, 1 a step failed, 2 bad input, 3 (`nait status`) something is missing or out of date,
4 (`nait audit`) a chain is broken, 5 another `nait run` has the home, 130 interrupted.
"""

import contextlib
import importlib.resources
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

log = logging.getLogger(__name__)
STEP_FAILED, BAD_INPUT, STATUS_STALE, AUDIT_BROKEN, BUSY, INTERRUPTED = 1, 2, 3, 4, 5, 130
CLEAR_ERRORS = {"RecipeError", "WarehouseError", "NonFiniteActivations"}  # their messages need no traceback
FULL_DISK = ("no space left on device", "database or disk is full", "disk quota exceeded", "[errno 28]")

recipe_option = click.option(
    "--recipe", "recipe_path", type=click.Path(path_type=Path), help="Recipe file; $NAIT_RECIPE, else the demo."
)
home_option = click.option(
    "--home", type=click.Path(path_type=Path), help="Where tables and subsets lie; $NAIT_HOME, else data/home/<recipe>."
)


@click.group()
@click.version_option(package_name="nait_assets")
def nait() -> None:
    """Choose instruction-tuning examples by the neurons that they activate."""


@nait.command()
@recipe_option
@home_option
@click.option(
    "--select",
    "selection",
    default=None,
    help="A Dagster asset selection, such as 'group:corpora' or 'key:scoring/nait_scores'.",
)
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="What reads.")
@click.option("--ray-address", default=None, help="Of a running Ray cluster; starts Ray on this machine by default.")
@click.option("--ray-workers", type=click.IntRange(1), default=2, show_default=True, help="Actors; each has the model.")
@click.option("--ray-cpus", type=float, default=1.0, show_default=True, help="CPUs of each actor.")
@click.option("--ray-gpus", type=float, default=0.0, show_default=True, help="GPUs of each actor.")
@click.option("--batch-tokens", type=click.IntRange(1), default=None, help="Most tokens of a batch.")
def run(recipe_path: Path | None, home: Path | None, selection: str | None, **extraction: Any) -> None:
    """Make what is missing or out of date, and nothing else."""
    with _workplace(recipe_path, home, writes=True) as workplace, workplace.alone():
        plan, records = workplace.plan(selection), workplace.warehouse.records()
        n_runs = n_outputs = 0
        started = time.monotonic()
        for stage in plan.stages() if plan.check(records) else []:
            steps = [step for asset in stage for step in plan.out_of_date(asset, records)]
            if steps:
                n_runs, n_outputs = n_runs + _run_stage(workplace, steps, extraction), n_outputs + len(steps)
                records = workplace.warehouse.records()
        if n_outputs == 0:
            what = "Everything" if selection is None else "What was selected"
            click.echo(f"{what} is up to date in {workplace.home}; nothing was computed.")
        else:
            click.echo(
                f"{n_outputs} outputs made in {n_runs} runs, {time.monotonic() - started:.0f} s, in {workplace.home}"
            )


@nait.command()
@recipe_option
@home_option
def status(recipe_path: Path | None, home: Path | None) -> int:
    """Say what is missing or out of date, and why. Exit code 3 if anything is."""
    with _workplace(recipe_path, home) as workplace:
        plan, records = workplace.plan(None), workplace.warehouse.records()
        graph = workplace.defs.resolve_asset_graph()
        stale: set[Any] = set()
        for asset in (asset for stage in plan.stages() for asset in stage):
            steps, n_partitions = plan.out_of_date(asset, records), len(plan.partitions(asset))
            above = sorted("/".join(key.path) for key in stale & graph.get_ancestor_asset_keys(asset))
            note = f", may change once {', '.join(above)} is made" if above and not steps else ""
            click.echo(f"{'/'.join(asset.path):<40} {n_partitions - len(steps):>3} of {n_partitions} current{note}")
            for line in _reason_lines(steps, n_partitions):
                click.echo(f"    {line}")
            if steps:
                stale.add(asset)
        if stale:
            click.echo("`nait run` brings it up to date.")
            return STATUS_STALE
    return 0


@nait.command()
@click.argument("sample_id")
@click.option("--target", required=True, help="A capability, or 'all'.")
@click.option("--neurons", default=10, show_default=True, help="How many neurons to show.")
@recipe_option
@home_option
def explain(sample_id: str, target: str, neurons: int, recipe_path: Path | None, home: Path | None) -> None:
    """Show a candidate's scores and ranks, the neurons that speak for it, and its text.

    A unique beginning of the id will do.
    """
    from nait_assets.scoring.explanation import explain as explained

    with _workplace(recipe_path, home) as workplace:
        click.echo(explained(workplace.recipe, workplace.warehouse, sample_id, target, neurons))


@nait.command()
@click.argument("subset", required=False)
@click.option(
    "--row", "sample_id", default=None, help="Tell where a row came from, and which subsets it is in, and why."
)
@recipe_option
@home_option
def audit(subset: str | None, sample_id: str | None, recipe_path: Path | None, home: Path | None) -> int:
    """Verify what subsets rest on, back to sources, model and code. Exit code 4 if a chain is broken.

    SUBSET is <method>/<target>/<ratio>, or a beginning of it; all by default.
    """
    from nait_assets.audit.chain import Auditor, first_broken, subsets_of
    from nait_assets.audit.row import describe_row

    with _workplace(recipe_path, home) as workplace:
        if sample_id is not None:
            click.echo(describe_row(workplace.recipe, workplace.warehouse, sample_id))
            return 0
        specs = workplace.defs.resolve_all_asset_specs()
        code_versions = {"/".join(spec.key.path): spec.code_version for spec in specs}
        auditor = Auditor(workplace.recipe, workplace.warehouse, workplace.model, code_versions)
        cells = subsets_of(workplace.recipe, subset)
        broken = 0
        for cell in cells:
            chain = auditor.chain(*cell)
            fault = first_broken(chain)
            broken += fault is not None
            untold = sum(link.holds is None for link in chain)
            said = f"holds: {len(chain) - untold} links verified" + (
                f", {untold} cannot be told here" if untold else ""
            )
            if fault is not None:
                said = f"BROKEN at {fault.output}, {fault.what}: {fault.says}"
            click.echo(f"{'/'.join(cell):<44} {said}")
            for link in chain if len(cells) == 1 else []:
                mark = {True: "ok", False: "BROKEN", None: "untold"}[link.holds]
                click.echo(f"    {mark:<7} {link.output}, {link.what}: {link.says}")
        return AUDIT_BROKEN if broken else 0


@nait.command()
@click.argument("version")
@click.argument("other", required=False)
@click.option("--rows", default=10, show_default=True, help="How many of the rows that came, and that went, to list.")
@recipe_option
@home_option
def diff(version: str, other: str | None, rows: int, recipe_path: Path | None, home: Path | None) -> None:
    """Compare two versions of a subset: rows added, removed, kept, and which input changed.

    A version is <method>/<target>/<ratio>, the latest; with @ and the beginning of a data version, or with @~N the
    N-th before the latest. One alone is compared with the version before the latest.
    """
    from nait_assets.audit.difference import describe_difference

    with _workplace(recipe_path, home) as workplace:
        click.echo(describe_difference(workplace.recipe, workplace.warehouse, version, other, rows))


@nait.command()
@recipe_option
@home_option
def summary(recipe_path: Path | None, home: Path | None) -> None:
    """Print what was read, what was chosen, and how far the choice fits the topics."""
    from nait_assets.selection.summary import summarize

    with _workplace(recipe_path, home) as workplace:
        speed = workplace.noted("extraction/candidate_activations", "tokens_per_second")
        click.echo(summarize(workplace.recipe, workplace.warehouse, speed, workplace.n_rows_read()))
        click.echo(f"Open the UI: nait ui --recipe {workplace.recipe.path} (then http://127.0.0.1:3000)")


@nait.command()
@recipe_option
@home_option
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def ui(recipe_path: Path | None, home: Path | None, port: int, host: str) -> None:
    """Start Dagster's web server and daemon on the home's own instance."""
    with _workplace(recipe_path, home, writes=True) as workplace:
        environment = {**os.environ, "NAIT_RECIPE": str(workplace.recipe.path), "NAIT_HOME": str(workplace.home)}
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-m", "nait_assets.definitions", "--host", host, "--port", str(port)]
    os.execve(program, [str(program), *arguments], environment)  # so that Ctrl-C reaches Dagster and nobody else


class _Workplace:
    """A recipe, its home, and the Dagster instance that lies there."""

    def __init__(self, recipe_path: Path | None, home: Path | None):
        from nait_assets.recipe import load_recipe
        from nait_assets.resources import LanguageModel, Warehouse, home_of

        self.recipe = load_recipe(recipe_path)
        self.home = home.expanduser().absolute() if home else home_of(self.recipe)
        self.warehouse = Warehouse(home=str(self.home))
        self.model = LanguageModel.of(self.recipe, self.home)
        self._defs: Any = None
        self._instance: Any = None
        self._temporary = contextlib.ExitStack()

    def close(self) -> None:
        """Close the Dagster instance."""
        if self._instance is not None:
            self._instance.dispose()
        self._temporary.close()

    @property
    def defs(self) -> Any:
        """The recipe's definitions."""
        if self._defs is None:
            # The module builds the definitions of the recipe that the environment names, as Dagster's processes do.
            os.environ.update(NAIT_RECIPE=str(self.recipe.path), NAIT_HOME=str(self.home))
            from nait_assets.definitions import build_definitions

            self._defs = build_definitions(self.recipe, self.home)
        return self._defs

    @property
    def instance(self) -> Any:
        """The Dagster instance of the home, made if it is not there; of a read-only home, a copy of it."""
        if self._instance is None:
            import dagster as dg

            folder = self.home / "dagster"
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                folder = self._copied(folder)
            settings = folder / "dagster.yaml"
            if not settings.exists():
                from nait_assets.resources.files import replacing

                with replacing(settings) as temporary:
                    temporary.write_bytes(
                        importlib.resources.files("nait_assets").joinpath("dagster.yaml").read_bytes()
                    )
            os.environ["DAGSTER_HOME"] = str(folder)
            self._instance = dg.DagsterInstance.get()
        return self._instance

    def _copied(self, folder: Path) -> Path:
        """What Dagster knows of the home, where it can write: it opens no instance only to read."""
        copy = Path(self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="nait-"))) / "dagster"
        if not folder.exists():
            copy.mkdir()
            return copy
        shutil.copytree(folder, copy, ignore=_logs_of_runs, copy_function=shutil.copyfile)
        return copy

    def require_writable(self) -> None:
        """Refuse a home that nothing can be written to.

        Raises:
            WarehouseError: It is read-only, another user's, or cannot be made.
        """
        from nait_assets.resources.warehouse import WarehouseError

        try:
            (self.home / "dagster").mkdir(parents=True, exist_ok=True)
            reason = "" if os.access(self.home / "dagster", os.W_OK) else "it is read-only, or another user's"
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            raise WarehouseError(
                f"{self.home} cannot be written: {reason}. Name another home (--home, NAIT_HOME), or make this one "
                "writable; `nait status`, `explain`, `audit`, `diff` and `summary` read it as it is."
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Have the home for this command, and settle what commands that died left in Dagster's books.

        Raises:
            HomeBusy: Another `nait run` has it.
        """
        import fcntl

        with (self.home / "dagster" / "nait_run.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise HomeBusy(
                    f"another `nait run` is at work in {self.home} ({file.read().strip()}). "
                    "Wait for it to end, then run this again; `nait status` works meanwhile."
                ) from None
            except OSError as error:  # a file system without locks
                log.warning("%s cannot be locked (%s): run one `nait run` at a time", file.name, error)
            else:
                self._bury_the_dead()
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
            yield

    def _bury_the_dead(self) -> None:
        """End the runs of commands that were killed: they would keep the language model's place in its pool for ever.

        To be called with the home locked, when no such command can be alive.
        """
        import dagster as dg

        ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
        unfinished = dg.RunsFilter(tags={"nait/command": "run"}, statuses=list(set(dg.DagsterRunStatus) - ended))
        for run in self.instance.get_runs(unfinished):
            self.instance.report_run_failed(run, "The process of this `nait run` died.")
            self.instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)

    def await_pools(self, assets: Iterable[Any]) -> None:
        """Wait until a run of Dagster's daemon gives the language model free; Dagster would wait, deaf and in silence.

        Args:
            assets: That are about to be made.
        """
        storage, graph = self.instance.event_log_storage, self.defs.resolve_asset_graph()
        if not storage.supports_global_concurrency_limits:
            return
        for pool in {pool for asset in assets for pool in graph.get(asset).pools or ()}:
            said = False
            while (info := storage.get_concurrency_info(pool)).slot_count and not _free(info):
                if not said:
                    runs = ", ".join(sorted(info.active_run_ids))
                    click.echo(
                        f"waiting for the pool {pool}, which the run {runs} of Dagster's daemon has. "
                        "If that run is dead, terminate it in the UI."
                    )
                    said = True
                time.sleep(1)

    def noted(self, asset: str, name: str, partition: str | None = None) -> float | None:
        """A number in the metadata of the latest materialization that this instance ran."""
        import dagster as dg

        partitions = [partition] if partition else None
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset.split("/")), asset_partitions=partitions)
        records = self.instance.fetch_materializations(wanted, limit=1).records
        value = records[0].asset_materialization.metadata.get(name) if records else None
        return value.value if value is not None else None

    def n_rows_read(self) -> int | None:
        """Rows read from the sources of all corpora."""
        numbers = [self.noted("corpora/candidate_pool", "n_rows_read")]
        for capability in self.recipe.capabilities_with_examples:
            numbers.append(self.noted("corpora/in_domain_set", "n_rows_read", capability))
        return None if None in numbers else int(sum(number or 0 for number in numbers))

    def plan(self, selection: str | None) -> Any:
        """The state of the recipe's outputs, or of the selected ones."""
        import dagster as dg

        from nait_assets.planning import Plan

        only = None
        if selection is not None:
            try:
                only = frozenset(dg.AssetSelection.from_string(selection).resolve(self.defs.resolve_asset_graph()))
            except Exception as error:
                raise click.UsageError(f"--select {selection!r} is no asset selection: {error}") from error
            if not only:
                raise click.UsageError(f"--select {selection!r} selects no asset")
        return Plan(self.defs, self.recipe, self.warehouse, self.model, self.instance, only)


@contextlib.contextmanager
def _workplace(recipe_path: Path | None, home: Path | None, writes: bool = False) -> Iterator[_Workplace]:
    workplace = _Workplace(recipe_path, home)
    if writes:
        workplace.require_writable()
    try:
        workplace.instance  # noqa: B018  sets DAGSTER_HOME
        yield workplace
    except Exception as error:
        if _is_full_disk(error, workplace.home):
            raise DiskFull(_full_disk(workplace.home)) from error
        raise
    finally:
        workplace.close()


def _logs_of_runs(_folder: str, names: list[str]) -> list[str]:
    """Dagster's file of events of each run, which can be many, and which no command reads."""
    return [name for name in names if re.match(r"[0-9a-f]{8}-[0-9a-f-]{27}\.db", name)]


def _free(pool: Any) -> bool:
    return bool(pool.active_slot_count < pool.slot_count)


def _is_full_disk(error: Any, home: Path) -> bool:
    """Whether an error, as it is or as Dagster stored it, or one that it came from, tells of a full disk."""
    while error is not None:
        text = str(getattr(error, "message", "") or error).lower()
        # SQLite says no more where a full disk has no room for the memory that its processes share.
        if any(words in text for words in FULL_DISK) or ("disk i/o error" in text and _n_free_bytes(home) < 2**20):
            return True
        error = (
            getattr(error, "cause", None) or getattr(error, "__cause__", None) or getattr(error, "__context__", None)
        )
    return False


def _n_free_bytes(home: Path) -> int:
    return shutil.disk_usage(home).free


def _full_disk(home: Path) -> str:
    return (
        f"the disk that {home} lies on is full ({_n_free_bytes(home) / 2**20:.0f} MiB are free). Make room "
        "and run this again: what was made stays, and an extraction goes on from its last finished shard."
    )


def _reason_lines(steps: list[Any], n_partitions: int) -> list[str]:
    """One line for each set of reasons, with the partitions that share it."""
    from nait_assets.planning import by_reasons

    lines = []
    for reasons, partitions in by_reasons(steps).items():
        names = [partition for partition in partitions if partition is not None]
        where = "every partition" if 1 < len(names) == n_partitions else ", ".join(names)
        lines.append(f"{where}: {'; '.join(reasons)}" if where else "; ".join(reasons))
    return lines


def _run_stage(workplace: _Workplace, steps: list[Any], extraction: dict[str, Any]) -> int:
    """Run one stage's steps; a failure ends the command when the stage is through.

    Args:
        workplace: Whose assets they are.
        steps: To make.
        extraction: Run configuration of the steps that read the model.

    Returns:
        How many runs it took.

    Raises:
        StepFailed: What failed, and why, each reason once.
    """
    from nait_assets.planning import runs_of

    runs = runs_of(steps, workplace.defs)
    job = workplace.defs.resolve_implicit_global_asset_job_def()
    failures: dict[str, list[str]] = {}
    kinds: set[str] = set()
    for partition, assets in runs:
        workplace.await_pools(assets)
        started = time.monotonic()
        result = job.execute_in_process(
            instance=workplace.instance,
            asset_selection=assets,
            partition_key=partition,
            raise_on_error=False,
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {
                    asset.to_python_identifier(): {"config": extraction}
                    for asset in assets
                    if asset.path[0] in ("extraction", "measurements")
                },
            },
            tags={"nait/command": "run"},
        )
        errors = {event.step_key: _cause(event) for event in result.all_events if event.is_step_failure}
        names = {asset.to_python_identifier(): _label([asset], partition) for asset in assets}
        verdicts = [_check_line(event, partition) for event in result.all_events if _is_failed_check(event)]
        outcome = "done  " if result.success else "FAILED"
        click.echo(f"{outcome} {time.monotonic() - started:6.1f} s  {_label(assets, partition)}")
        if any(error.cls_name == "DagsterExecutionInterruptedError" for error in errors.values()):
            raise KeyboardInterrupt  # which Dagster takes for a failure of the step
        if not result.success and not errors:
            failures.setdefault("the run failed outside of its steps; its log says why", []).append(
                _label(assets, partition)
            )
            kinds.add("")
        for line in verdicts:
            click.echo(f"  {line}")
        if any(_is_full_disk(error, workplace.home) for error in errors.values()):
            raise DiskFull(f"{_label(assets, partition)}: {_full_disk(workplace.home)}")
        for step, error in errors.items():
            if error.cls_name == "DagsterAssetCheckFailedError":  # its verdict stands above
                failures.setdefault("a blocking check failed", []).append(_label(assets, partition))
                kinds.add(error.cls_name)
                continue
            failures.setdefault(_reason(error), []).append(names.get(step) or _label(assets, partition))
            kinds.add(error.cls_name)
    if failures:
        lines = [f"{', '.join(labels)}: {reason}" for reason, labels in failures.items()]
        raise (StepRefused if kinds == {"RecipeError"} else StepFailed)("\n".join(lines))
    return len(runs)


def _is_failed_check(event: Any) -> bool:
    return event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.event_specific_data.passed


def _check_line(event: Any, partition: str | None) -> str:
    """What a check that failed found."""
    found = event.event_specific_data
    kind = "check failed" if found.blocking else "warning"
    return f"{kind}: {_label([found.asset_key], partition)}, {found.check_name}: {found.description}"


class StepFailed(click.ClickException):
    """A step of the run failed; what was made before it stays."""

    exit_code = STEP_FAILED


class DiskFull(StepFailed):
    """Nothing more can be written."""


class HomeBusy(click.ClickException):
    """Another `nait run` has the home."""

    exit_code = BUSY


class StepRefused(StepFailed):
    """A step could not use what the recipe names."""

    exit_code = BAD_INPUT


def _label(assets: list[Any], partition: str | None) -> str:
    names = ", ".join("/".join(asset.path) for asset in assets)
    return f"{names} [{partition}]" if partition else names


def _cause(event: Any) -> Any:
    """The error that failed a step, without Dagster's own around it."""
    error = event.step_failure_data.error
    while error.cause is not None and error.cls_name.startswith("Dagster"):
        error = error.cause
    return error


def _reason(error: Any) -> str:
    """What an error says, and where it was raised unless its message is clear without."""
    message = error.message.strip().partition(": ")[2] or error.message.strip()
    return message if error.cls_name in CLEAR_ERRORS else f"{error.cls_name}: {message}\n{''.join(error.stack[-2:])}"


def execute() -> int:
    """Run the command in `sys.argv`.

    Returns:
        Its exit code; an error that a user can mend is one message on standard error, without a traceback.
    """
    import dagster as dg

    for annoyance in (dg.BetaWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=annoyance)
    logging.basicConfig(format="  %(message)s", level=logging.WARNING)
    logging.getLogger("nait_assets").setLevel(logging.INFO)
    from nait_assets.recipe import RecipeError
    from nait_assets.resources.warehouse import WarehouseError

    try:
        return nait(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (RecipeError, WarehouseError) as error:
        click.echo(f"Error: {error}", err=True)
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was made stays; the next run goes on from there.", err=True)
        return INTERRUPTED


def main() -> None:
    """Entry point of `nait`."""
    code = execute()
    # Not `sys.exit`: where torch was imported, DuckDB's bindings end a page of warnings about leaked types after it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
