"""`nait compare`: models of several homes side by side."""

from pathlib import Path

import click

from nait_assets.cli.messages import say


@click.command("compare")
@click.argument("homes", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(homes: tuple[Path, ...]) -> None:
    """Print the results of several homes in one table: other base models, other sizes, other recipes.

    HOMES are folders in which `nait run` has made `evaluation/comparison`. Losses of models with different tokenizers
    have no common scale; accuracies have.
    """
    from nait_assets.evaluation.homes import compared_homes

    for line in compared_homes(homes):
        say(line)
