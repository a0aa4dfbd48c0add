"""`nait reset`: what a name means, and that the next run makes just that anew."""

from pathlib import Path

import pytest

from nait_assets.recipe import Recipe
from nait_assets_tests.command import nait, run


@pytest.mark.parametrize(
    ("what", "missing"),
    [
        ("features/nait_directions[math]", {"features/nait_directions[math]"}),
        (
            "activations",
            {
                "extraction/candidate_activations",
                "extraction/in_domain_activations[code]",
                "extraction/in_domain_activations[math]",
            },
        ),
    ],
)
def test_what_was_reset_is_made_anew_and_nothing_else_where_it_comes_out_the_same(
    recipe: Recipe, home: Path, what: str, missing: set[str]
) -> None:
    """The numbers are the same to the bit, so nothing behind them is stale."""
    answer = nait("reset", what, "--yes", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.err
    assert nait("status", "--recipe", recipe.path, "--home", home).code == 3
    assert run(recipe, home) == missing
    assert nait("audit", "--recipe", recipe.path, "--home", home).code == 0


def test_a_name_that_nothing_has_is_refused_with_those_that_there_are(recipe: Recipe, home: Path) -> None:
    """A slip of the pen must remove nothing."""
    answer = nait("reset", "calibrations", "--yes", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    assert "'calibrations' is no output of the recipe: name activations" in answer.err
    assert nait("status", "--recipe", recipe.path, "--home", home).code == 0
