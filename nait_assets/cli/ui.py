"""`nait ui`: Dagster's web server and daemon on the home."""

import os
import sys
from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.options import home_option, recipe_option


@click.command("ui")
@recipe_option
@home_option
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def command(recipe_path: Path | None, home: Path | None, port: int, host: str) -> None:
    """Start Dagster's web server and daemon on the home's own instance."""
    with opened(recipe_path, home, writes=True) as workplace:
        environment = {**os.environ, "NAIT_RECIPE": str(workplace.recipe.path), "NAIT_HOME": str(workplace.home)}
    program = Path(sys.executable).with_name("dagster")
    arguments = ["dev", "-m", "nait_assets.definitions", "--host", host, "--port", str(port)]
    os.execve(program, [str(program), *arguments], environment)  # so that Ctrl-C reaches Dagster and nobody else
