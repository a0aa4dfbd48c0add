"""Rows of strangers on a terminal and on Dagster's page: nothing moves the cursor, forges a line or is a link."""

import json
import re
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nait_assets.losses import as_list
from nait_assets.recipe import PROJECT_ROOT
from nait_assets.shown import QUESTION, as_code, figure, one_line, printable
from nait_assets_tests.command import nait, quick_home

ATTACKS = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://a.example\x1b\\\\x",
    "\x9b2J",
    "a\b\b\bb",
    "a\rb",
    "\u202eabc",
)


@given(st.text())
def test_nothing_that_is_printed_is_a_control_character(text: str) -> None:
    """Of any text; line feeds and tabs stay."""
    assert not [one for one in printable(text) if unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t"]
    assert isinstance(printable(text).encode(), bytes)  # halves of characters cannot be encoded
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_controls_are_written_out(attack: str) -> None:
    """What was there can still be seen."""
    assert re.search(r"\\(x|u|r)", printable(attack))


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://a.example/x.png)",
        "[approve](http://a.example)",
        "<img src=http://a.example>",
        "`![x](http://a.example)`",
        "a\n\n# b",
        "http://a.example",
    ],
)
def test_no_text_of_a_row_is_markdown(text: str) -> None:
    """A picture would be fetched by whoever looks at the page."""
    for shown in (as_code(text), as_list([(text, 3)])):
        html = MarkdownIt("commonmark").enable("table").render(shown)
        assert not re.search(r"<(a|img|h1)\b", html)


def test_commands_print_no_control_of_a_row(tmp_path: Path) -> None:
    """Neither of a good row nor of a refused one; a topic cannot forge a line."""
    evil = "".join(ATTACKS)
    rows = [
        {
            "messages": [{"role": "user", "content": f"add {evil}"}, {"role": "assistant", "content": "sum"}],
            "t": f"x\nnait/all: rank 1{evil}",
        },
        {"messages": [{"role": evil, "content": "a"}], "t": "x"},
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "name: t\nmodel: {source: model}\ncandidates: {source: pool.jsonl, topic_field: t}\n"
        "capabilities: {math: {source: pool.jsonl}}\nmethods: [random]\nratios: [1]\n"
    )
    commands = (["inspect", tmp_path / "pool.jsonl"], ["run", "--select", "group:corpora"], ["status"])
    home = quick_home(tmp_path / "home")
    for command in commands:
        options = [] if command[0] == "inspect" else ["--recipe", tmp_path / "recipe.yaml", "--home", home]
        answer = nait(*command, *options)
        out = answer.out + answer.err
        assert answer.code in (0, 3), out
        assert not set(out) & set("\x1b\x9b\b\r\u202e")
        assert "\nnait/all: rank 1" not in out


def test_a_small_number_keeps_three_digits_of_the_largest_beside_it() -> None:
    """Products of gradients and a direction's scores were 0.00000 all over."""
    assert (figure(0.25, 0.25), figure(-12.5, 12.5), figure(0.0, 0.0)) == ("+0.25000", "-12.50000", "+0.00000")
    assert (figure(0.0000123, 0.0000456), figure(0.004, 0.004, signed=False)) == ("+0.0000123", "0.00400")


def test_a_row_is_told_by_what_it_asks_and_not_by_its_system_message() -> None:
    """Of a pool with one system message, five best rows and all rows of a difference were told by the same sentence."""
    system, user, answer = (
        {"role": role, "content": content}
        for role, content in (("system", "Be brief."), ("user", "two?"), ("assistant", "2"))
    )
    rows = pl.DataFrame({"messages": [[system, user, answer, {**user, "content": "why?"}], [system, answer], [system]]})
    assert rows.select(QUESTION).to_series().to_list() == ["two?", "2", "Be brief."]


def test_no_list_of_rows_is_told_by_first_messages() -> None:
    """The same in every place that lists rows; excerpts of what was refused are the row's own beginning."""
    first = re.compile(r"list\.first\(\)\.struct\.field\(.content|messages['\"]\]\[0\]\[.content")
    folder = PROJECT_ROOT / "nait_assets"
    found = {file.name for file in folder.rglob("*.py") if first.search(file.read_text(encoding="utf-8"))}
    assert found <= {"published.py"}
