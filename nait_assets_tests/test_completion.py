"""What a shell completes: the recipe's own names, asked for as the shell asks."""

import os
import subprocess
import sys

import pytest

from nait_assets.recipe import Recipe


def completions(line: str) -> list[str]:
    """What bash would offer for the last word of a line."""
    words = line.split(" ")
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'nait'; from nait_assets.cli import main; main()"],
        env={**os.environ, "_NAIT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
        check=False,
    )
    return [found.partition(",")[2] for found in ended.stdout.splitlines() if found]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("nait st", ["status"]),
        ("nait explain 0 --recipe {recipe} --target ", ["all", "code", "math"]),
        ("nait explain 0 --recipe {recipe} --method nait_", ["nait_standardized"]),
        ("nait audit --recipe {recipe} random/m", ["random/math/0.30"]),
        ("nait diff --recipe {recipe} nait/c", ["nait/code/0.30"]),
        ("nait audit --recipe /nowhere.yaml random/m", []),
    ],
)
def test_names_of_the_recipe_are_completed(recipe: Recipe, line: str, wanted: list[str]) -> None:
    assert sorted(completions(line.format(recipe=recipe.path))) == wanted
