"""Separated values, strictly: what does not follow the rules is refused with its line, or read as the recipe says."""

from pathlib import Path
from typing import Any

import pytest

from nait_assets.errors import SourceError
from nait_assets.recipe import Source
from nait_assets.resources.dataset_source import read_rows
from nait_assets_tests.test_recipe import recipe_in

GOOD = "q,a\nq0,a0\n"


def rows(folder: Path, content: str | bytes, name: str = "pool.csv", **settings: Any) -> list[dict[str, Any]]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.fields for row in read_rows(Source(source=name, **settings), recipe_in(folder)) if not row.problem]


def refusal(folder: Path, content: str | bytes, name: str = "pool.csv", **settings: Any) -> str:
    with pytest.raises(SourceError) as error:
        rows(folder, content, name, **settings)
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"never closed,a\nq2,a2\nq3,a3\n', "line 3: a quotation mark is opened and never closed"),
        ('q1,"opened here\nq2,a2\nq3,a3\nq4,a4"\n', "line 3: a quotation mark is opened and closed only on line 6"),
        ('"opened here,a1\nq2,a2\nclosed",here,more\n', "line 3: a quotation mark is opened and closed only on line 5"),
        ('q1,"opened here\nq2,a2\nq3,and closed"\n', "line 3: a quotation mark is opened and closed only on line 5"),
        ('"opened here,a1\nq2,a2\nclosed",a3\n', "line 3: a quotation mark is opened and closed only on line 5"),
        ('q1,"closed" and on\n', "line 3: a quotation mark is closed in the middle of a field"),
        ('q1,5" pipe\n', "line 3: a quotation mark inside a field that does not begin with one"),
        ('"Say \\"hi\\", then","a"\n', 'escaped by backslashes: write `csv: {escape: "\\\\"}`'),
        ('"Say \\"hi\\" then","a"\n', "escaped by backslashes"),
        ('q1,"ends \\""\n', "escaped by backslashes"),
        ('q1,{"a": "say \\"hi\\""}\n', "write `csv: {quotes: none}`"),
    ],
)
def test_a_stray_quotation_mark_refuses_the_file_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    """It swallows the rows behind it, or breaks the text of its own."""
    message = refusal(tmp_path, GOOD + line)
    assert str(tmp_path / "pool.csv") in message
    assert said in message


def test_fields_of_several_lines_are_read(tmp_path: Path) -> None:
    """Poems and code with commas are no rows."""
    poem = "Roses, red,\nviolets, blue\nsugar, sweet\nand so, and so, are you"
    assert rows(tmp_path, f'{GOOD}q1,"{poem}"\n')[1:] == [{"q": "q1", "a": poem}]
    text = "def f(a, b):\n    return a, b\n\nx, y = 1, 2\nprint(x)"
    assert rows(tmp_path, f'{GOOD}q1,"{text}"\n"a ""b""\nc",""\n')[1:] == [
        {"q": "q1", "a": text},
        {"q": 'a "b"\nc', "a": ""},
    ]


def test_the_recipe_says_how_else_a_file_is_written(tmp_path: Path) -> None:
    """Backslashes, marks that are text, another separator."""
    escaped = rows(tmp_path, 'q,a\n"Say \\"hi\\", then \\\\","b"\n', csv={"escape": "\\"})
    assert escaped == [{"q": 'Say "hi", then \\', "a": "b"}]
    assert rows(tmp_path, 'q,a\n5" pipe,"b\n', csv={"quotes": "none"}) == [{"q": '5" pipe', "a": '"b'}]
    assert rows(tmp_path, 'q,a\n5" pipe,b\n', csv={"quotes": "lenient"}) == [{"q": '5" pipe', "a": "b"}]
    assert rows(tmp_path, "q;a\n1,5;b\n", csv={"delimiter": ";"}) == [{"q": "1,5", "a": "b"}]
    assert rows(tmp_path, "q\ta\n1,5\tb\n", "pool.tsv") == [{"q": "1,5", "a": "b"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "q;a\n1;2\n",
            "line 1: 'q;a' looks as if a semicolon stands between the columns. Write `csv: {delimiter: \";\"}`",
        ),
        ("q\ta\n1\t2\n", "a tab stands between"),
        ("q|a\n1|2\n", "a bar stands between"),
        ("q,a,a\n1,2,3\n", "line 1: the header has 'a' twice"),
    ],
)
def test_a_header_that_cannot_be_right_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """A column that is there twice would give its second value to both."""
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["pool.csv", "pool.jsonl", "pool.tsv"])
def test_utf16_is_told_and_read_where_the_recipe_says_so(tmp_path: Path, encoding: str, name: str) -> None:
    """What Windows programs write."""
    content = (
        '{"q": "ä", "a": "b"}\n'
        if name.endswith("jsonl")
        else "q\ta\nä\tb\n".replace("\t", "," if "csv" in name else "\t")
    )
    message = refusal(tmp_path, content.encode(encoding), name)
    assert "line 1: the file looks like UTF-16" in message
    assert rows(tmp_path, content.encode(encoding), name, encoding=encoding) == [{"q": "ä", "a": "b"}]


def test_another_encoding_is_told_with_its_line_and_read_where_the_recipe_says_so(tmp_path: Path) -> None:
    """A letter that is no UTF-8 must not be a row lost, or another letter."""
    content = (GOOD + "é,naïve – “quotes”\n").encode("cp1252")
    message = refusal(tmp_path, content)
    assert "pool.csv, line 3: byte 0xe9 is not UTF-8" in message
    assert "Write `encoding: " in message
    assert rows(tmp_path, content, encoding="cp1252")[1] == {"q": "é", "a": "naïve – “quotes”"}
