"""`nait summary`: what was read and what was chosen."""

from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option, recipe_option


@click.command("summary")
@recipe_option
@home_option
def command(recipe_path: Path | None, home: Path | None) -> None:
    """Print what training does and what foretold it, what was read, what was chosen, and how far it fits the topics."""
    from nait_assets.evaluation.shown import result_lines
    from nait_assets.selection.summary import summarize

    with opened(recipe_path, home) as workplace:
        for line in result_lines(workplace.recipe, workplace.warehouse):
            say(line)
        speed = workplace.noted("extraction/candidate_activations", "tokens_per_second")
        say(summarize(workplace.recipe, workplace.warehouse, speed, workplace.n_rows_read()))
        say(f"Open the UI: nait ui --recipe {workplace.recipe.path} (then http://127.0.0.1:3000)")
