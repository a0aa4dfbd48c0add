"""`nait clean`: remove what the recipe no longer has."""

from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import leftover_lines, say
from nait_assets.cli.options import home_option, recipe_option


@click.command("clean")
@recipe_option
@home_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(recipe_path: Path | None, home: Path | None, yes: bool) -> None:
    """Remove outputs that the recipe no longer has from tables and folders; it lists them, and asks."""
    from nait_assets.leftovers import leftovers

    with opened(recipe_path, home, writes=True) as workplace, workplace.locked():
        found = leftovers(workplace.recipe, workplace.defs, workplace.warehouse)
        if not found:
            say(f"{workplace.home} has nothing that {workplace.recipe.path} does not.")
            return
        say(f"No longer in {workplace.recipe.path}:")
        remove_confirmed(workplace, found, yes)


def remove_confirmed(workplace: Workplace, found: list[Any], yes: bool) -> None:
    """List stored outputs, ask, and remove them.

    Args:
        workplace: The recipe and its home, which is locked.
        found: What is removed, a `Leftover` each.
        yes: Whether not to ask.
    """
    from nait_assets.leftovers import remove

    for line in leftover_lines(found):
        say(f"    {line}")
    if not yes and not click.confirm(f"Remove these {len(found)} outputs from {workplace.home}?"):
        say("Nothing was removed.")
        return
    remove(found, workplace.recipe, workplace.warehouse)
    say(f"{len(found)} outputs removed. Their costs, and the history of subsets, stay.")
