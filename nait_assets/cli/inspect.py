"""`nait inspect`: what a file holds, before there is a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.messages import say
from nait_assets.cli.options import home_option


@click.command("inspect")
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("--format", "row_format", default="auto", show_default=True, help="As in a recipe, in YAML.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Further fields of a source, in YAML.")
@click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="Recipe whose model shows the examples.")
@home_option
def command(
    sources: tuple[str, ...], row_format: str, settings: tuple[str, ...], recipe_path: Path | None, home: Path | None
) -> None:
    """Print a file's format, its rows used and rejected, two examples as a model reads them, and what a recipe says.

    FILE is what a recipe has as `source`: a file, a folder, a pattern in quotes, a URL, hub:<org>/<name>; several are
    shards.
    """
    import yaml
    from pydantic import ValidationError

    from nait_assets.corpora.inspection import inspected, recipe_of
    from nait_assets.recipe import Source

    try:
        further = dict(setting.split("=", 1) for setting in settings)
        fields = {name: yaml.safe_load(value) for name, value in {"format": row_format, **further}.items()}
        source = Source.model_validate({"source": sources[0] if len(sources) == 1 else sources, **fields})
    except (ValidationError, ValueError, yaml.YAMLError) as error:
        lines = [one["msg"] for one in error.errors()] if isinstance(error, ValidationError) else [str(error)]
        raise click.UsageError("; ".join(lines)) from error
    shown, reader = _shown(recipe_path, home)
    say(inspected(source, recipe_of(source, Path.cwd()), shown, reader))


def _shown(recipe_path: Path | None, home: Path | None) -> tuple[Callable[[Any], str], str]:
    """How a conversation is shown, and what that is called: by a recipe's model, or under plain headings."""
    from nait_assets.models.rendering import Renderer
    from nait_assets.recipe import Extraction, load_recipe

    if recipe_path is None:
        return Renderer.of(None, Extraction(template="plain")).text, "plain headings"
    from nait_assets.resources import LanguageModel, home_of

    recipe = load_recipe(recipe_path)
    tokenizer = LanguageModel.of(recipe, home or home_of(recipe)).tokenizer()
    renderer = Renderer.of(tokenizer, recipe.extraction)
    reader = f"the chat template of {recipe.model.source}" if renderer.template != "plain" else "plain headings"
    return renderer.text, reader
