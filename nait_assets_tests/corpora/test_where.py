"""`where`: the rows of a source by the values of their columns."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.corpora.corpus import Corpus, read_corpus
from nait_assets.errors import UserError
from nait_assets_tests.test_recipe import recipe_in, refusal_of

ROWS = [
    {"instruction": f"question {number}", "output": f"answer {number}", "list": "ab"[number % 2], "size": number % 3}
    for number in range(8)
]


def write(folder: Path, ending: str, rows: list[dict[str, Any]] = ROWS) -> str:
    """The rows as a file; its name."""
    file = folder / f"rows.{ending}"
    if ending == "parquet":
        pl.DataFrame(rows).write_parquet(file)
    elif ending == "csv":
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = map(json.dumps, rows)
        file.write_text(f"[{','.join(lines)}]" if ending == "json" else "\n".join(lines))
    return file.name


def read(folder: Path, source: str, **settings: Any) -> Corpus:
    fields = {"source": source, "format": "alpaca", **settings}
    return read_corpus(recipe_in(folder, candidates=fields), "candidates")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("where", "taken"), [({"list": "a"}, [1, 3, 5, 7]), ({"list": "b", "size": 1}, [2, 8]), ({"size": "2"}, [3, 6])]
)
def test_only_rows_with_these_values_are_taken_from_files_of_any_kind(
    tmp_path: Path, ending: str, where: dict[str, Any], taken: list[int]
) -> None:
    """One file of many lists is how lists are published; numbers are text in CSV, and still the same numbers."""
    corpus = read(tmp_path, write(tmp_path, ending), where=where)
    assert corpus.examples["source_row"].to_list() == taken
    assert (corpus.n_rows, len(corpus.rejected), corpus.n_unsampled) == (8, 0, 0)
    assert corpus.n_excluded == 8 - len(taken)


def test_sample_is_of_the_rows_that_are_left(tmp_path: Path) -> None:
    """`limit` takes so many of the list, not of the file."""
    corpus = read(tmp_path, write(tmp_path, "jsonl"), where={"list": "a"}, limit=3)
    assert (len(corpus.examples), corpus.n_unsampled) == (3, 1)
    assert set(corpus.examples["source_row"].to_list()) <= {1, 3, 5, 7}


def test_rows_that_cannot_be_read_stay_rejected(tmp_path: Path) -> None:
    """Nobody knows which list they were on: they must not vanish from all of them."""
    name = write(tmp_path, "jsonl")
    with (tmp_path / name).open("a") as file:
        file.write("\n{broken\n")
    corpus = read(tmp_path, name, where={"list": "a"})
    assert corpus.rejected["source_row"].to_list() == [9]


def test_row_without_the_column_is_not_taken(tmp_path: Path) -> None:
    """In JSON lines a row may lack what others have; that is not the value asked for."""
    rows = [*ROWS, {"instruction": "question 9", "output": "answer 9"}]
    assert len(read(tmp_path, write(tmp_path, "jsonl", rows), where={"list": "a"}).examples) == 4


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_unknown_column_is_told_with_those_that_there_are(tmp_path: Path, ending: str) -> None:
    """A misspelt column must not give a list without rows."""
    with pytest.raises(UserError) as error:
        read(tmp_path, write(tmp_path, ending), where={"lst": "a"})
    assert f"source 'rows.{ending}' has no column 'lst', which its format, `topic_field` or `where` names" in str(
        error.value
    )
    assert "Its columns: instruction, list, output, size." in str(error.value)


def test_unknown_value_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    """A misspelt list must not be an empty one."""
    with pytest.raises(UserError) as error:
        read(tmp_path, write(tmp_path, "csv"), where={"list": "c"})
    assert "no row of source 'rows.csv' has {'list': 'c'}, which its `where` asks for" in str(error.value)
    assert "In its 8 rows list is 'a', 'b'." in str(error.value)


def test_values_are_plain(tmp_path: Path) -> None:
    """A list of values would be compared as its text, and never be found."""
    message = refusal_of(tmp_path, candidates={"source": "pool.jsonl", "where": {"list": ["a", "b"]}})
    assert "candidates.0.where.list" in message
