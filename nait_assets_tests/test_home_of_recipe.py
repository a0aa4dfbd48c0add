"""A home belongs to one recipe: another is refused, before it replaces anything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nait_assets.errors import WarehouseError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.home import FILE, SCHEMA_VERSION, recipe_name
from nait_assets_tests.command import nait

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("command", ["run", "status", "summary", "audit", "clean"])
def test_the_home_of_another_recipe_is_refused_in_one_sentence(
    make_recipe: MakeRecipe, recipe: Recipe, home: Path, command: str
) -> None:
    """A copied recipe with an old NAIT_HOME in the environment would replace the pool and all that rests on it."""
    assert recipe_name(home) == recipe.name
    tables = (home / "warehouse.duckdb").read_bytes()
    other = make_recipe(name="other", methods=["random"])
    answer = nait(command, "--recipe", other.path, "--home", home)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "belongs to the recipe 'tiny', and this one is 'other'" in line
    assert "--home" in line
    assert (home / "warehouse.duckdb").read_bytes() == tables


def test_a_run_of_dagsters_refuses_the_home_of_another_recipe(home: Path) -> None:
    """The UI's runs go past the command line."""
    with pytest.raises(WarehouseError, match="belongs to the recipe 'tiny'"):
        Warehouse(home=str(home), recipe="other").setup_for_execution(None)  # type: ignore[arg-type]


def test_a_home_from_before_homes_had_a_recipe_belongs_to_the_first_that_runs(recipe: Recipe, home: Path) -> None:
    """Nothing of it is made again for that."""
    (home / FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION}))
    assert nait("status", "--recipe", recipe.path, "--home", home).code == 0
    assert recipe_name(home) is None  # a command that only reads writes nothing
    Warehouse(home=str(home), recipe=recipe.name).setup_for_execution(None)  # type: ignore[arg-type]
    assert json.loads((home / FILE).read_text()) == {"schema_version": SCHEMA_VERSION, "recipe": recipe.name}
