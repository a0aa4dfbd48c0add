"""Many rows cost memory in proportion to the text that is kept, and equal ones next to nothing; progress is said."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nait_assets.corpora.corpus import read_corpus
from nait_assets.resources import reading_progress
from nait_assets.resources.row_readers import rows_of_table
from nait_assets_tests.test_recipe import recipe_in

READ = """
import resource, sys
from nait_assets.corpora.corpus import read_corpus
from nait_assets.recipe import load_recipe
read = read_corpus(load_recipe(sys.argv[1]), "candidates")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(read.examples), read.n_duplicates)
"""


def reading(folder: Path, **source: object) -> tuple[float, int, int]:
    """Peak memory in MB of a process that reads a source, its examples, and its duplicates."""
    recipe = recipe_in(folder, candidates=source)
    command = [sys.executable, "-c", READ, str(recipe.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), int(said[1]), int(said[2])


def test_a_sample_of_a_large_source_takes_memory_like_its_text(tmp_path: Path) -> None:
    """A row as Python objects is five times its text: with `limit` or `skip` all were kept so."""
    peaks, sizes, n_rows = [], [], 40_000
    for times in (1, 2):
        rows = [{"instruction": f"{number} " + "why " * 30, "output": "so " * 60} for number in range(times * n_rows)]
        file = tmp_path / f"{times}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sizes.append(file.stat().st_size / 1e6)
        peak, n_examples, _ = reading(tmp_path, source=file.name, format="alpaca", limit=times * n_rows - 10)
        assert n_examples == times * n_rows - 10
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 4 * (sizes[1] - sizes[0])


def test_a_flood_of_equal_rows_is_counted_and_not_kept(tmp_path: Path) -> None:
    """A Parquet file of some kilobytes can hold millions of equal rows."""
    peaks = []
    for n_rows in (200_000, 400_000):
        text = pa.DictionaryArray.from_arrays(pa.array([0, 1] * (n_rows // 2), pa.int32()), pa.array(["a" * 1000, "b"]))
        once = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), pa.array(["b" * 1000]))
        pq.write_table(pa.table({"instruction": text, "output": once}), tmp_path / "pool.parquet")
        peak, n_examples, n_duplicates = reading(tmp_path, source="pool.parquet", format="alpaca")
        assert (n_examples, n_duplicates) == (2, n_rows - 2)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 40  # the text is 200 MB more


def test_rows_that_differ_only_in_how_they_are_written_are_not_taken_for_one(tmp_path: Path) -> None:
    """Python holds 1, 1.0 and true for equal, and a template prints them differently."""
    rows = [{"q": value, "a": "yes"} for value in (1, 1.0, True, 1, 0.0, -0.0)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": "pool.jsonl", "format": {"user": "{{ q }}", "assistant": "{{ a }}"}}
    read = read_corpus(recipe_in(tmp_path, candidates=source), "candidates")
    asked = [messages[0]["content"] for messages in read.examples["messages"].to_list()]
    assert asked == ["1", "1.0", "True", "0.0", "-0.0"]
    assert read.n_duplicates == 1


def test_equal_rows_of_arrow_come_out_as_they_are() -> None:
    """Rows that repeat the one before share their fields; lists, structs, nulls and chunks are compared whole."""
    turns = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}], None, None, []]
    table = pa.concat_tables([pa.table({"m": turns, "n": [1, 1, None, None, None]})] * 2)
    rows = list(rows_of_table(table, 1))
    assert [row.fields for row in rows] == table.to_pylist()
    assert [row.number for row in rows] == list(range(1, 11))
    assert rows[0].fields is rows[1].fields
    floats = list(rows_of_table(pa.table({"x": [0.0, -0.0]}), 1))
    assert [str(row.fields["x"]) for row in floats] == ["0.0", "-0.0"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_progress_is_said_while_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Nobody waits minutes without a word; a short read says nothing."""
    rows = [{"instruction": f"what is {number}?", "output": "much"} for number in range(50)]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    else:
        (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe, lines = recipe_in(tmp_path, candidates={"source": f"pool.{ending}", "format": "alpaca"}), list[str]()
    read_corpus(recipe, "candidates", lines.append)
    assert lines == []
    monkeypatch.setattr(reading_progress, "LINE_SECONDS", 0.0)
    read_corpus(recipe, "candidates", lines.append)
    assert lines[-1].startswith(f"pool.{ending}: 50 rows read in 0 s, ")
    assert lines[-1].endswith("MB, 100%")
