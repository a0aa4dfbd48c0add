"""Whatever a text holds: rows that a library wrote are read as they were."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_assets.recipe import Recipe, Source
from nait_assets.resources.dataset_source import read_rows
from nait_assets_tests.test_recipe import recipe_in

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=30)
PIECES = st.lists(st.sampled_from(['"', ",", "\n", "\\", ";", "a", "é", " "]), max_size=12).map("".join)
ROWS = st.lists(st.fixed_dictionaries({"q": TEXT | PIECES, "a": TEXT | PIECES}), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe_in(tmp_path_factory.mktemp("any"))


def read(recipe: Recipe, name: str, **settings_of_source: Any) -> list[dict[str, Any]]:
    return [row.fields for row in read_rows(Source(source=name, **settings_of_source), recipe)]


def file_of(recipe: Recipe, name: str) -> Path:
    return recipe.path.parent / name


@given(rows=ROWS, quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
@settings(deadline=None, derandomize=True, database=None, max_examples=150)
def test_a_csv_that_python_wrote_is_read_as_it_was(recipe: Recipe, rows: list[dict[str, str]], quoting: Any) -> None:
    """Strict is not strange: all that follows the rules is read."""
    with file_of(recipe, "any.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, ["q", "a"], quoting=quoting, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    assert read(recipe, "any.csv") == rows


@given(rows=ROWS, indent=st.sampled_from([None, 1]), ending=st.sampled_from(["json", "jsonl"]))
@settings(deadline=None, derandomize=True, database=None, max_examples=100)
def test_a_json_list_is_read_as_it_was(
    recipe: Recipe, rows: list[dict[str, str]], indent: int | None, ending: str
) -> None:
    """On one line or several, under either ending."""
    file_of(recipe, f"any.{ending}").write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert read(recipe, f"any.{ending}") == rows
