"""`nait check`: whether a recipe would run, before it does."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import say, say_json
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

        say_json(recipe_schema())
        return
    from nait_assets.recipe import load_recipe
    from nait_assets.resources import home_of

    place = home or home_of(load_recipe(recipe_path))
    with _not_made(place) as used, opened(recipe_path, used, dagster=False) as workplace:
        recipe = workplace.recipe
        steps = workplace.plan(None, without_dagster=True).check({})
        n_subsets = len(recipe.methods) * len(recipe.targets) * len(recipe.ratios)
        say(f"{recipe.path}: nothing is wrong with it.")
        say(f"  model: {recipe.model.source}, {workplace.model.dtype_name()} on {workplace.model.resolved_device()}")
        say(f"  pool: {', '.join(source.name for source in recipe.candidates)}")
        say(f"  capabilities: {', '.join(recipe.capability_names)}")
        say(f"  methods: {', '.join(recipe.methods)}")
        say(f"  subsets: {n_subsets:,}, of {len(recipe.targets)} targets and the ratios {', '.join(recipe.ratios)}")
        say(f"`nait run` makes {len(steps):,} outputs in {place}, those excepted that are there and current.")


@contextlib.contextmanager
def _not_made(home: Path) -> Iterator[Path]:
    """A home for the length of a block: this one, or, where it has not been made, one that goes away again."""
    if home.expanduser().exists():
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="nait-") as temporary:
        yield Path(temporary)
