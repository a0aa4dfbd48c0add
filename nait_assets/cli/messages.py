"""Exit codes, the errors that end a command, and what they say."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import click

from nait_assets.errors import UserError
from nait_assets.shown import printable

STEP_FAILED, BAD_INPUT, STATUS_STALE, AUDIT_BROKEN, BUSY, INTERRUPTED = 1, 2, 3, 4, 5, 130
FULL_DISK = ("no space left on device", "database or disk is full", "disk quota exceeded", "[errno 28]")


def say(text: str, err: bool = False) -> None:
    """Print text, in which there may be a stranger's, with its control characters written out.

    Args:
        text: Lines to print.
        err: Whether on standard error.
    """
    click.echo(printable(text), err=err)


def say_json(data: Any) -> None:
    """Print data as JSON, in which every character that is not ASCII is escaped."""
    click.echo(json.dumps(data, indent=2))


class LogLines(logging.Formatter):
    """Lines of a log as `say` prints text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return printable(super().format(record))


class StepFailed(click.ClickException):
    """A step of the run failed; what was made before it stays."""

    exit_code = STEP_FAILED


class StepRefused(StepFailed):
    """Steps could not use what the recipe names, and nothing else failed."""

    exit_code = BAD_INPUT


class DiskFull(StepFailed):
    """Nothing more can be written."""


class HomeBusy(click.ClickException):
    """Another `nait run` has the home."""

    exit_code = BUSY


def label(assets: list[Any], partition: str | None) -> str:
    """How assets of one run are named to a user: their keys as paths, and their partition."""
    names = ", ".join("/".join(asset.path) for asset in assets)
    return f"{names} [{partition}]" if partition else names


def reason_lines(steps: list[Any], n_partitions: int) -> list[str]:
    """One line for each set of reasons, with the partitions that share it."""
    from nait_assets.planning import by_reasons

    lines = []
    for reasons, partitions in by_reasons(steps).items():
        keys = [partition for partition in partitions if partition is not None]
        where = "every partition" if 1 < len(keys) == n_partitions else ", ".join(keys)
        lines.append(f"{where}: {'; '.join(reasons)}" if where else "; ".join(reasons))
    return lines


def grouped_check_lines(failed: list[tuple[Any, str | None]]) -> list[str]:
    """One line for each check that failed, with a count where it did for several outputs; blocking ones first.

    Args:
        failed: evaluations of checks, each with the partition of the output.
    """
    groups: dict[tuple[bool, str], list[tuple[str, str]]] = {}
    for evaluation, partition in failed:
        one = label([evaluation.asset_key], partition), str(evaluation.description)
        groups.setdefault((not evaluation.blocking, evaluation.check_name), []).append(one)
    lines = []
    for (warns, check), found in sorted(groups.items()):
        kind = "warning" if warns else "check failed"
        (output, said), count = found[0], len(found)
        lines.append(
            f"{kind}: {output}, {check}: {said}"
            if count == 1
            else f"{kind}: {check} of {count} outputs, such as {output}: {said}"
        )
    return lines


def leftover_lines(found: list[Any]) -> list[str]:
    """One line for each asset that has leftovers, with their partitions."""
    partitions: dict[str, list[str]] = {}
    for leftover in found:
        partitions.setdefault(leftover.output.key, []).append(leftover.partition)
    return [f"{key}: {', '.join(names)}" if any(names) else key for key, names in partitions.items()]


def cause_of(event: Any) -> Any:
    """The error that failed a step, without Dagster's own around it."""
    error = event.step_failure_data.error
    while error.cause is not None and error.cls_name.startswith("Dagster"):
        error = error.cause
    return error


def user_errors(base: type[UserError] = UserError) -> dict[str, type[UserError]]:
    """The classes of errors that a user can fix, by name: of an error in a step, Dagster stores the class' name."""
    named = {base.__name__: base}
    for subclass in base.__subclasses__():
        named |= user_errors(subclass)
    return named


def reason_of(error: Any) -> str:
    """What an error says, and where it was raised unless its message is clear without."""
    message = error.message.strip().partition(": ")[2] or error.message.strip()
    if error.cls_name in user_errors():
        return message
    return f"{error.cls_name}: {message}\n{''.join(error.stack[-2:])}"


def is_bad_input(error_class: str) -> bool:
    """Whether an error of this class in a step means that the recipe, or what it names, is to blame."""
    found = user_errors().get(error_class)
    return found is not None and found.bad_input


def is_full_disk(error: Any, home: Path) -> bool:
    """Whether an error, as it is or as Dagster stored it, or one of its causes, says that the disk is full."""
    while error is not None:
        text = str(getattr(error, "message", "") or error).lower()
        # SQLite says no more where a full disk has no room for the memory that its processes share.
        if any(words in text for words in FULL_DISK) or ("disk i/o error" in text and _n_free_bytes(home) < 2**20):
            return True
        error = (
            getattr(error, "cause", None) or getattr(error, "__cause__", None) or getattr(error, "__context__", None)
        )
    return False


def full_disk(home: Path) -> str:
    """What to do about a full disk."""
    return (
        f"the disk that {home} lies on is full ({_n_free_bytes(home) / 2**20:.0f} MiB are free). Make room "
        "and run this again: what is finished stays, and an extraction continues from its last finished shard."
    )


def _n_free_bytes(home: Path) -> int:
    return shutil.disk_usage(home).free
