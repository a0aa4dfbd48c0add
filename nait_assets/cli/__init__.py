"""The command line: a thin shell over the same assets and the same Dagster instance as the UI.

One module a command; `home` has the home folder and its lock, `messages` the exit codes and what failures say.
Exit codes: 0 done, 1 a step failed, 2 bad input, 3 (`nait status`) something is missing or out of date,
4 a chain of records is broken (`nait audit`) or a file of the home is damaged, 5 another `nait run` has the home,
130 interrupted.
"""

import logging
import os
import sys
import warnings

import click

from nait_assets.cli import audit, check, clean, compare, diff, explain, init, inspect, reset, run, status, summary, ui
from nait_assets.cli.messages import AUDIT_BROKEN, BAD_INPUT, INTERRUPTED, LogLines, say
from nait_assets.errors import DamagedError, UserError


@click.group()
@click.version_option(package_name="nait_assets")
def nait() -> None:
    """Choose instruction-tuning examples by the neurons that they activate."""


for module in (init, inspect, check, run, status, explain, audit, diff, summary, compare, clean, reset, ui):
    nait.add_command(module.command)


def execute() -> int:
    """Run the command in `sys.argv`.

    Returns:
        Its exit code; an error that a user can fix is one message on standard error, without a traceback.
    """
    import dagster as dg

    for annoyance in (dg.BetaWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=annoyance)
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("  %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("nait_assets").setLevel(logging.INFO)
    try:
        return nait(standalone_mode=False) or 0
    except click.ClickException as error:
        if isinstance(error, click.UsageError):
            error.show()
        else:
            say(f"Error: {error.format_message()}", err=True)
        return error.exit_code
    except UserError as error:
        say(f"Error: {error}", err=True)
        return AUDIT_BROKEN if isinstance(error, DamagedError) else BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        say("Interrupted. What is finished stays; the next run continues from there.", err=True)
        return INTERRUPTED


def main() -> None:
    """Entry point of `nait`."""
    code = execute()
    # Not `sys.exit`: where torch was imported, DuckDB's bindings end a page of warnings about leaked types after it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
