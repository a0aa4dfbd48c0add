"""`nait check`: whether a recipe would run, before it does."""

import json
from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option


@click.command("check")
@click.argument("recipe_path", required=False, metavar="RECIPE", type=click.Path(path_type=Path))
@click.option(
    "--schema", is_flag=True, help="Print the JSON schema of recipes instead, for an editor that completes and checks."
)
@home_option
def command(recipe_path: Path | None, schema: bool, home: Path | None) -> None:
    """Find what is wrong with a recipe: its fields, its files, its model, what its methods need. Nothing is made.

    RECIPE is a file; $NAIT_RECIPE, else the demo's, by default. Exit code 2 if anything is wrong. What becomes of the
    rows of a file is said by `nait inspect`.
    """
    if schema:
        from nait_assets.recipe.json_schema import recipe_schema

        click.echo(json.dumps(recipe_schema(), indent=2))
        return
    with opened(recipe_path, home, dagster=False) as workplace:
        recipe = workplace.recipe
        steps = workplace.plan(None, without_dagster=True).check({})
        n_subsets = len(recipe.methods) * len(recipe.targets) * len(recipe.ratios)
        say(f"{recipe.path}: nothing is wrong with it.")
        say(f"  model: {recipe.model.source}, {workplace.model.dtype_name()} on {workplace.model.resolved_device()}")
        say(f"  pool: {', '.join(source.name for source in recipe.candidates)}")
        say(f"  capabilities: {', '.join(recipe.capability_names)}")
        say(f"  methods: {', '.join(recipe.methods)}")
        say(f"  subsets: {n_subsets:,}, of {len(recipe.targets)} targets and the ratios {', '.join(recipe.ratios)}")
        say(f"`nait run` makes {len(steps):,} outputs in {workplace.home}, those excepted that are there and current.")
