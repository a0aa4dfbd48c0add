"""The options that several commands have, and what a shell completes in them."""

import itertools
from pathlib import Path
from typing import Any

import click

recipe_option = click.option(
    "--recipe", "recipe_path", type=click.Path(path_type=Path), help="Recipe file; $NAIT_RECIPE, else the demo."
)
home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="Folder of tables and subsets; $NAIT_HOME, else data/home/<recipe>.",
)
json_option = click.option("--json", "as_data", is_flag=True, help="Print the same as JSON.")


def _recipe_of(context: click.Context) -> Any:
    """The recipe that a command line names so far; None where it cannot be read."""
    from nait_assets.errors import UserError
    from nait_assets.recipe import load_recipe

    try:
        return load_recipe(context.params.get("recipe_path"))
    except UserError:
        return None


def complete_target(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Targets of the recipe that begin so."""
    recipe = _recipe_of(context)
    return [target for target in recipe.targets if target.startswith(begun)] if recipe else []


def complete_method(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Methods of the recipe that begin so."""
    recipe = _recipe_of(context)
    return [method for method in recipe.methods if method.startswith(begun)] if recipe else []


def complete_subset(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Subsets of the recipe, `<method>/<target>/<ratio>`, that begin so."""
    recipe = _recipe_of(context)
    if recipe is None:
        return []
    cells = itertools.product(recipe.methods, recipe.targets, recipe.ratios)
    return [subset for subset in map("/".join, cells) if subset.startswith(begun)]
