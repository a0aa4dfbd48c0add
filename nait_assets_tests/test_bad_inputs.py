"""Nothing that a recipe or a row can say ends in a traceback or without end: it is read, or refused in a sentence."""

from pathlib import Path

import pytest

from nait_assets.errors import RecipeError
from nait_assets.recipe import load_recipe
from nait_assets_tests import bad_inputs

MOST_CHARACTERS = 2000


@pytest.mark.parametrize("name", bad_inputs.RECIPES)
def test_recipe_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    """Neither a fault of the YAML library nor one of the file system is the user's to read."""
    with bad_inputs.limited():
        found, said = bad_inputs.of_recipe(tmp_path, name)
    assert (found, len(said) < MOST_CHARACTERS) == (bad_inputs.RECIPES[name][1], True), said[:300]
    if found == "refused":
        assert str(tmp_path) in said or "://" in said  # which file it is about


@pytest.mark.parametrize("name", bad_inputs.ROWS)
def test_row_is_read_or_rejected_with_a_reason(name: str, tmp_path: Path) -> None:
    """The row beside it is read."""
    with bad_inputs.limited():
        found, said = bad_inputs.of_rows(tmp_path, name)
    assert (found, len(said) < MOST_CHARACTERS) == (bad_inputs.ROWS[name][1], True), said[:300]


@pytest.mark.parametrize("name", bad_inputs.FILES)
def test_file_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    """Whatever it is named."""
    with bad_inputs.limited():
        found, said = bad_inputs.of_file(tmp_path, name)
    assert (found, len(said) < MOST_CHARACTERS) == (bad_inputs.FILES[name][3], True), said[:300]


def test_many_problems_are_told_in_few_lines(tmp_path: Path) -> None:
    """A thousand unknown fields are twenty lines, and the number of the others."""
    (tmp_path / "recipe.yaml").write_text(bad_inputs.with_fields(**{f"field{n}": n for n in range(1000)}))
    with pytest.raises(RecipeError, match="1000 problem") as error:
        load_recipe(tmp_path / "recipe.yaml")
    assert str(error.value).count("\n") == 21
