"""`nait explain`: why a candidate has its scores."""

from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import complete_method, complete_target, home_option, recipe_option


@click.command("explain")
@click.argument("sample_id")
@click.option("--target", required=True, shell_complete=complete_target, help="A capability, or, of several, 'all'.")
@click.option(
    "--method",
    shell_complete=complete_method,
    help="Whose score to explain; by default the recipe's recommended method.",
)
@click.option(
    "--reasons", type=click.IntRange(0), default=5, show_default=True, help="How many reasons and examples to show."
)
@click.option("--json", "as_data", is_flag=True, help="Print the same as JSON, with whole texts and all parts.")
@recipe_option
@home_option
def command(
    sample_id: str,
    target: str,
    method: str | None,
    reasons: int,
    as_data: bool,
    recipe_path: Path | None,
    home: Path | None,
) -> None:
    """Show a candidate's scores and ranks, whether and by how much it is chosen, what its score is made of, its text.

    A unique beginning of the id will do. Parts of a score add up to it; the nearest in-domain examples, and the rows
    that drive each neuron most, are shown with their texts.
    """
    from nait_assets.audit.why import why
    from nait_assets.audit.why_text import as_json, text_of

    with opened(recipe_path, home, dagster=False) as workplace:
        found = why(workplace.recipe, workplace.warehouse, sample_id, target, reasons, method)
        say(as_json(found) if as_data else text_of(found))
