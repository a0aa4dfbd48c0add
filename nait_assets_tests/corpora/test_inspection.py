"""`nait inspect`: what a file holds, said before there is a recipe, and the lines that a recipe then has."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nait_assets.corpora.corpus import read_corpus
from nait_assets.corpora.inspection import inspected, recipe_of
from nait_assets.models.rendering import Renderer
from nait_assets.recipe import Extraction, Source
from nait_assets_tests.command import nait
from nait_assets_tests.conftest import write_jsonl
from nait_assets_tests.test_recipe import recipe_in

GOOD = {"conversation": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
ROWS: list[dict[str, Any]] = [
    GOOD,
    GOOD,
    {"conversation": [{"role": "narrator", "content": "x"}]},
    {"conversation": [*GOOD["conversation"], {"role": "user", "content": "Thanks"}], "lang": "en"},
    {"conversation": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "c"}]},
]


def report(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> str:
    write_jsonl(folder / "pool.jsonl", rows)
    source = Source(source="pool.jsonl", **{"format": "auto", **settings})
    return inspected(
        source, recipe_of(source, folder), Renderer.of(None, Extraction(template="plain")).text, "plain headings"
    )


def test_rows_are_counted_with_reasons_and_shown(tmp_path: Path) -> None:
    """All that a person needs before the first run."""
    text = report(tmp_path, ROWS)
    assert "pool.jsonl: 5 rows: 2 used, 1 rejected, 2 duplicates; 1 lost the turns behind their last response" in text
    assert "Format: {turns: conversation}, found" in text
    assert "Columns: conversation (list), lang (text)" in text
    assert "  rejected: 1 x unknown role 'narrator'; known are system," in text
    assert "reasoning 1" in text
    assert "  | ### Instruction:\n  | 1 + 1?" in text


def test_the_lines_for_a_recipe_read_the_same_rows(tmp_path: Path) -> None:
    """They are copied as they stand."""
    line = report(tmp_path, ROWS, roles={"narrator": "user"}, topic="t").splitlines()[-1].strip()
    recipe = recipe_in(tmp_path, **yaml.safe_load(line))
    assert read_corpus(recipe, "candidates").n_rows == 5


def test_a_format_that_does_not_fit_is_told_with_the_one_that_does(tmp_path: Path) -> None:
    """The recipe's own format can be tried, too."""
    from nait_assets.errors import SourceError

    with pytest.raises(SourceError, match=r"They look like `format: \{turns: conversation\}`"):
        report(tmp_path, ROWS, format="messages")


def test_the_command_prints_it_and_refuses_what_is_no_field(tmp_path: Path) -> None:
    """The same message as a recipe's, in one line."""
    file = tmp_path / "pool.jsonl"
    file.write_text(json.dumps(GOOD))
    answer = nait("inspect", file, "--set", "roles={narrator: user}")
    assert answer.code == 0, answer.err
    assert "1 rows: 1 used" in answer.out
    assert nait("inspect", file, "--set", "role={}").code == 2
    assert "there is no file" in nait("inspect", tmp_path / "nowhere.jsonl").err
