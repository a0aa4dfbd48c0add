"""`nait explain`: why a candidate has its scores."""

from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option, recipe_option


@click.command("explain")
@click.argument("sample_id")
@click.option("--target", required=True, help="A capability, or, of several, 'all'.")
@click.option("--method", help="Whose score to explain; by default the recipe's recommended method.")
@click.option("--reasons", default=10, show_default=True, help="How many neurons, examples or numbers to show.")
@recipe_option
@home_option
def command(
    sample_id: str, target: str, method: str | None, reasons: int, recipe_path: Path | None, home: Path | None
) -> None:
    """Show a candidate's scores and ranks, what contributes most to its score, and its text.

    A unique beginning of the id will do.
    """
    from nait_assets.scoring.explanation import explain as explained

    with opened(recipe_path, home, dagster=False) as workplace:
        say(explained(workplace.recipe, workplace.warehouse, sample_id, target, reasons, method))
