"""`nait reset`: forget a stored output, so that the next run makes it anew."""

from pathlib import Path

import click

from nait_assets.cli.clean import remove_confirmed
from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option, recipe_option


@click.command("reset")
@click.argument("what")
@recipe_option
@home_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(what: str, recipe_path: Path | None, home: Path | None, yes: bool) -> None:
    """Forget a stored output, so that `nait run` makes it anew, and what rests on it if it comes out otherwise.

    WHAT is calibration, autoencoder or activations, which are kept as long as they can be, or the key of any asset
    such as features/neuron_statistics, with [PARTITION] for one of its partitions. It lists them, and asks.
    """
    from nait_assets.leftovers import stored_under

    with opened(recipe_path, home, writes=True) as workplace, workplace.locked():
        found = stored_under(what, workplace.catalogue, workplace.warehouse)
        if not found:
            say(f"{workplace.home} has no {what}: nothing to forget.")
            return
        say(f"`nait run` will make anew from {workplace.recipe.path}:")
        remove_confirmed(workplace, found, yes)
