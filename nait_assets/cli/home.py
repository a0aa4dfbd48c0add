"""A recipe's home as a command has it: the recipe, the folder, its lock, and the Dagster instance in it."""

import contextlib
import functools
import importlib.resources
import logging
import os
import platform
import re
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.messages import DiskFull, HomeBusy, full_disk, is_full_disk, say
from nait_assets.errors import DamagedError, UserError, WarehouseError

log = logging.getLogger(__name__)


class Workplace:
    """A recipe, its home, and the Dagster instance that lies there."""

    def __init__(self, recipe_path: Path | None, home: Path | None):
        from nait_assets.recipe import load_recipe
        from nait_assets.resources import LanguageModel, Warehouse, home_of

        self.recipe = load_recipe(recipe_path)
        self.home = home.expanduser().absolute() if home else home_of(self.recipe)
        _require_usable(self.home)
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
            from nait_assets.definitions import build_definitions

            self._defs = build_definitions(self.recipe, self.home)
        return self._defs

    @functools.cached_property
    def catalogue(self) -> Any:
        """The outputs that the recipe can have."""
        from nait_assets.definitions import catalogue_of

        return catalogue_of(self.recipe)

    @property
    def instance(self) -> Any:
        """The Dagster instance of the home, made if it is not there; of a read-only home, a copy of it.

        Raises:
            DamagedError: Its settings or its storage cannot be read.
        """
        if self._instance is None:
            from nait_assets.resources.instance import open_instance

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
            with self.reading_dagster():
                self._instance = open_instance(folder)
        return self._instance

    @contextlib.contextmanager
    def reading_dagster(self) -> Iterator[None]:
        """A block in which Dagster's files are read: if they are damaged, it ends in an error that names them.

        Raises:
            DamagedError: The block failed, and they are.
        """
        from nait_assets.resources.dagster_files import faults

        try:
            yield
        except (UserError, click.ClickException):
            raise
        except Exception as error:
            found = faults(self.home / "dagster")
            if not found or is_full_disk(error, self.home):
                raise
            raise DamagedError("; ".join(found)) from error

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
        try:
            (self.home / "dagster").mkdir(parents=True, exist_ok=True)
            reason = "" if os.access(self.home / "dagster", os.W_OK) else "it is read-only or belongs to another user"
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            raise WarehouseError(
                f"{self.home} cannot be written: {reason}. Name another home (--home, NAIT_HOME), or make this one "
                "writable; `nait status`, `explain`, `audit`, `diff` and `summary` read it as it is."
            )

    def bring_up_to_schema(self, writes: bool) -> None:
        """Carry a home of an earlier version over, and say so, or refuse it where the command only reads.

        Raises:
            WarehouseError: The home is another recipe's, of a newer version, or of an earlier one and the command
                only reads.
            HomeBusy: It has to be carried over, and another `nait run` holds it.
        """
        from nait_assets.resources import home as homes

        homes.require_recipe(self.home, self.recipe.name)
        if not writes or homes.schema_version(self.home) >= homes.SCHEMA_VERSION:
            homes.require_current(self.home)
            return
        from nait_assets.cli.carry_over import carry_over

        with self.locked():
            say(carry_over(self.home, self._report))

    def _report(self, record: Any) -> None:
        """Tell the Dagster instance of an output that no run of its own made under this name."""
        import dagster as dg

        from nait_assets.lineage import asset_key

        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key(record.asset),
                description="Carried over from an earlier version of nait_assets.",
                metadata={"nait/inputs": dg.MetadataValue.json(dict(record.inputs))},
                partition=record.partition or None,
                tags={"dagster/data_version": record.data_version},
            )
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home's lock for this command, and fail the runs that killed commands left unfinished in Dagster.

        Raises:
            HomeBusy: Another `nait run` holds it.
        """
        import filelock

        path = self.home / "dagster" / "nait_run.lock"
        path.touch()
        # No soft lock as a fallback: a killed command would leave it behind, and the home locked.
        lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise HomeBusy(
                f"another `nait run` is using {self.home} ({path.read_text().strip()}). "
                "Wait for it to end, then run this again; `nait status` works meanwhile."
            ) from None
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): run one `nait run` at a time", path, error)
        else:
            self._fail_orphaned_runs()
        try:
            path.write_text(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            yield
        finally:
            lock.release()

    def _fail_orphaned_runs(self) -> None:
        """Mark the runs of killed commands as failed, as each keeps its slot in the language model's pool until then.

        To be called with the home locked, when no such command can be alive.
        """
        import dagster as dg

        ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
        unfinished = dg.RunsFilter(tags={"nait/command": "run"}, statuses=list(set(dg.DagsterRunStatus) - ended))
        for run in self.instance.get_runs(unfinished):
            self.instance.report_run_failed(run, "The process of this `nait run` ended without finishing.")
            self.instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)

    def noted(self, asset: str, name: str, partition: str | None = None) -> float | None:
        """A number in the metadata of the latest materialization that this instance ran."""
        import dagster as dg

        from nait_assets.lineage import asset_key

        partitions = [partition] if partition else None
        wanted = dg.AssetRecordsFilter(asset_key=asset_key(asset), asset_partitions=partitions)
        records = self.instance.fetch_materializations(wanted, limit=1).records
        value = records[0].asset_materialization.metadata.get(name) if records else None
        return value.value if value is not None else None

    def n_rows_read(self) -> int | None:
        """Rows read from the sources of all corpora."""
        numbers = [self.noted("corpora/candidate_pool", "n_rows_read")]
        for capability in self.recipe.capabilities_with_examples:
            numbers.append(self.noted("corpora/in_domain_set", "n_rows_read", capability))
        return None if None in numbers else int(sum(number or 0 for number in numbers))

    def plan(self, selection: str | None, without_dagster: bool = False) -> Any:
        """The state of the recipe's outputs, or of the selected ones.

        Args:
            selection: Dagster's asset selection, or None.
            without_dagster: Whether to leave out what the Dagster instance knows.
        """
        import dagster as dg

        from nait_assets.planning import Plan

        only = None
        if selection is not None:
            try:
                only = frozenset(dg.AssetSelection.from_string(selection).resolve(self.defs.resolve_asset_graph()))
            except Exception as error:
                raise click.UsageError(f"--select {selection!r} is not an asset selection: {error}") from error
            if not only:
                raise click.UsageError(f"--select {selection!r} selects no asset")
        instance = None if without_dagster else self.instance
        return Plan(self.defs, self.recipe, self.warehouse, self.model, instance, only)


@contextlib.contextmanager
def opened(
    recipe_path: Path | None, home: Path | None, writes: bool = False, dagster: bool = True
) -> Iterator[Workplace]:
    """A recipe's home for the length of a block.

    Args:
        recipe_path: Recipe file; `$NAIT_RECIPE`, else the demo's, by default.
        home: Home folder; `$NAIT_HOME`, else `data/home/<recipe name>`, by default.
        writes: Whether the block writes to the home.
        dagster: Whether the block needs the home's Dagster instance.

    Raises:
        WarehouseError: The block writes, and the home cannot be written to; or it does not, and the home is of an
            earlier version. Either way, the home is of a newer one.
        DamagedError: A file of the home cannot be read.
        DiskFull: The block raised an error that says so.
    """
    workplace = Workplace(recipe_path, home)
    if writes:
        workplace.require_writable()
    try:
        with workplace.reading_dagster():
            workplace.bring_up_to_schema(writes)
            if dagster:
                workplace.instance  # noqa: B018  sets DAGSTER_HOME
            yield workplace
    except Exception as error:
        if is_full_disk(error, workplace.home):
            raise DiskFull(full_disk(workplace.home)) from error
        raise
    finally:
        workplace.close()


def _logs_of_runs(_folder: str, names: list[str]) -> list[str]:
    """Dagster's file of events of each run, which can be many, and which no command reads."""
    return [name for name in names if re.match(r"[0-9a-f]{8}-[0-9a-f-]{27}\.db", name)]


def _require_usable(home: Path) -> None:
    """Refuse a path that Dagster cannot keep its databases at: it writes it into a URL as it is.

    Raises:
        WarehouseError: It has a `?`, or what a URL reads as another sign, such as `%20`.
    """
    if "?" in str(home) or urllib.parse.unquote(str(home)) != str(home):
        raise WarehouseError(
            f"{home} cannot be a home: Dagster reads `?`, and `%` before two digits, as parts of a URL. Name a folder "
            "without them (--home, NAIT_HOME), or rename those above it."
        )
