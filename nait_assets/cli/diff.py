"""`nait diff`: what changed between two versions of a subset."""

from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say, say_json
from nait_assets.cli.options import complete_subset, home_option, json_option, recipe_option


@click.command("diff")
@click.argument("version", shell_complete=complete_subset)
@click.argument("other", required=False, shell_complete=complete_subset)
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many of the rows that came, and that went, to list.",
)
@json_option
@recipe_option
@home_option
def command(
    version: str, other: str | None, rows: int, as_data: bool, recipe_path: Path | None, home: Path | None
) -> None:
    """Compare two versions of a subset: rows added, removed, kept, and which input changed.

    A version is <method>/<target>/<ratio>, the latest; with @ and the beginning of a data version, or with @~N the
    N-th before the latest. One alone is compared with the version before the latest.
    """
    from nait_assets.audit.difference import compare, data_of, text_of

    with opened(recipe_path, home, dagster=False) as workplace:
        found = compare(workplace.recipe, workplace.warehouse, version, other)
        if as_data:
            say_json(data_of(found))
        else:
            say(text_of(found, rows))
