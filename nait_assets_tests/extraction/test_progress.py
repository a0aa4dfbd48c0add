"""Progress: what is counted, and where it is shown."""

import io
from collections.abc import Callable

import pytest

from nait_assets.extraction import progress
from nait_assets.extraction.progress import Progress


class Terminal(io.StringIO):
    """Standard error of a person who looks on."""

    def isatty(self) -> bool:
        """It is a terminal."""
        return True


def silent(line: str) -> None:
    raise AssertionError(line)


def test_counts_are_of_what_the_model_read_in_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of an earlier run are done, but counting their tokens would invent a speed."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    shown = Progress("candidates", [3, 2], silent)

    shown.skip(3)
    shown.advance(2, n_tokens=30, n_padding=4, seconds=1.5)

    assert (shown.n_done, shown.n_samples) == (5, 5)
    assert (shown.n_tokens, shown.n_padding, shown.tokens_per_second) == (30, 4, 20.0)
    assert shown.close() == 1.5


def test_speed_of_nothing_is_zero() -> None:
    """A second run reads nothing; its summary must not divide by zero."""
    assert Progress("candidates", [], silent).tokens_per_second == 0.0


def test_log_gets_a_line_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Dagster run nobody sees a bar; the log says how far it is."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    lines: list[str] = []
    shown = Progress("math", [1500], lines.append)

    shown.advance(1000, n_tokens=9000, n_padding=0, seconds=2.0)

    assert lines == ["math: 1,000 of 1,500 samples read, 4,500 tokens/s"]


def test_lines_are_some_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each of a thousand batches would bury the log."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    shown = Progress("math", [10], silent)

    for _ in range(10):
        shown.advance(1, n_tokens=5, n_padding=0, seconds=0.1)


def test_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines between would break the bar; it is cleared at the end, as the summary follows."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = Progress("math", [4], silent)

    shown.skip(1)
    shown.advance(3, n_tokens=30, n_padding=0, seconds=1.0)
    shown.close()

    assert "math" in terminal.getvalue()
    assert "/4 [" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_bar_is_drawn_for_nothing(monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.StringIO]) -> None:
    """A second run that recomputes nothing shows nothing."""
    output = stream()
    monkeypatch.setattr("sys.stderr", output)

    Progress("math", [], silent).close()

    assert output.getvalue() == ""
