"""Outputs of the scoring: a table of scores of every method."""

from nait_assets.catalogue import Output
from nait_assets.recipe import Recipe
from nait_assets.tables import scores_table


def scores_output(method: str) -> Output:
    """The scores of a method."""
    table = scores_table(method)
    return Output(table.asset, "target", table)


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the scoring of a recipe."""
    return [scores_output(method) for method in recipe.methods]


def output_named(key: str) -> Output | None:
    """The scores of a method that a recipe may no longer have, by their key."""
    begin, _, end = scores_output("*").key.partition("*")
    return scores_output(key[len(begin) : -len(end)]) if key.startswith(begin) and key.endswith(end) else None
