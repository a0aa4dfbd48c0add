"""What a subset's files say is what the source says, to the byte; each is read back as the same rows."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.corpora.corpus import read_corpus
from nait_assets.selection.exports import LLAMA_FACTORY_FILE, Exports
from nait_assets.selection.subset import write_folder
from nait_assets_tests.conftest import write_jsonl
from nait_assets_tests.test_recipe import recipe_in

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"q": "ä"}}}
OTHER_CALL = {"function": {"name": "add", "arguments": '{"a": 1, "b": [2, {"c": null}]}'}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def turn(role: str, content: str | None, **keys: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **keys}


USER = turn("user", 'def add(a, b):\r\n    """Add."""\r\n')
ANSWER = turn("assistant", "    return a + b\n")
CODE = {"messages": [USER, ANSWER]}
AGENT = {
    "messages": [
        turn("system", "Call.\n"),
        turn("user", "How warm?"),
        turn("assistant", None, tool_calls=[CALL, OTHER_CALL]),
        turn("tool", "21", tool_call_id="c1", name="look"),
        turn("assistant", "21°", reasoning_content="The tool says so."),
    ],
    "tools": TOOLS,
}
HALF = {
    "messages": [turn("user", "A?"), turn("assistant", "wrong", weight=0), turn("user", "B?"), turn("assistant", "b")]
}
SEVERAL = {"messages": [turn("system", " s"), USER, ANSWER, turn("user", "And?"), turn("assistant", "So. ")]}
OWN = {"messages": [turn("user", "x"), turn("assistant", "y", own={"k": [1]}, thinking="z")]}
ROWS = [CODE, AGENT, HALF, SEVERAL, OWN]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, pl.DataFrame]:
    """A subset of all rows, and these."""
    write_jsonl(tmp_path / "pool.jsonl", ROWS)
    pool = read_corpus(recipe_in(tmp_path), "candidates").examples
    rows = pool.with_columns(pl.int_range(1, pl.len() + 1).alias("rank"), pl.lit(0.5).alias("score"))
    write_folder(tmp_path / "0.10", rows, {}, "---\n---\n", Exports.of(rows, "all", ["pool.jsonl"]))
    return tmp_path / "0.10", rows


def read_back(folder: Path, name: str, row_format: str = "messages") -> list[str]:
    recipe = recipe_in(folder, candidates={"source": name, "format": row_format})
    return list(read_corpus(recipe, "candidates").examples["sample_id"])


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
@pytest.mark.parametrize("row_format", ["messages", "auto"])
def test_rows_are_read_back_as_the_same_samples(written: tuple[Path, pl.DataFrame], name: str, row_format: str) -> None:
    """A subset is a pool like any other: its activations are those that there are."""
    folder, rows = written
    assert read_back(folder, name, row_format) == rows["sample_id"].to_list()


@pytest.mark.parametrize("row_format", ["alpaca", "auto"])
def test_alpaca_rows_are_read_back_with_system_and_history(written: tuple[Path, pl.DataFrame], row_format: str) -> None:
    """The columns that its own description names."""
    folder, rows = written
    assert read_back(folder, "alpaca.json", row_format) == [rows["sample_id"][place] for place in (0, 3)]


def test_llama_factory_gets_only_what_it_reads_as_it_is_meant(written: tuple[Path, pl.DataFrame]) -> None:
    """It knows no `weight`: a turn that is not to be trained on would be trained on."""
    folder, rows = written
    assert read_back(folder, LLAMA_FACTORY_FILE) == [rows["sample_id"][place] for place in (0, 3, 4)]
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["all"]["file_name"] == LLAMA_FACTORY_FILE
    assert LLAMA_FACTORY_FILE in json.loads((folder / "manifest.json").read_text())["files"]


def test_the_lines_are_the_source_s_own(written: tuple[Path, pl.DataFrame]) -> None:
    """Indentation, line ends, keys that nobody knows, calls as they came."""
    folder, _ = written
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: value for name, value in line.items() if name != "sample_id"} for line in lines] == ROWS


def test_parquet_holds_the_source_s_text(written: tuple[Path, pl.DataFrame]) -> None:
    """In one type for all rows: arguments are JSON text, and a turn not to be trained on says so."""
    folder, _ = written
    stored = pl.read_parquet(folder / "train.parquet")
    texts = [[message["content"] for message in messages] for messages in stored["messages"].to_list()]
    assert texts == [[message["content"] for message in row["messages"]] for row in ROWS]
    assert [message["weight"] for message in stored["messages"][2].to_list()] == [None, 0.0, None, None]
    assert json.loads(stored["tools"][1]) == TOOLS
    assert "conversation" not in stored.columns
