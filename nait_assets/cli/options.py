"""The options that several commands have."""

from pathlib import Path

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
