"""Progress: what is counted, how the rest is reckoned, and where it is shown."""

import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from nait_assets.models import progress
from nait_assets.models.progress import Progress


class Terminal(io.StringIO):
    """Standard error of a person who looks on."""

    def isatty(self) -> bool:
        """It is a terminal."""
        return True


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def monotonic(self) -> float:
        """What `time.monotonic` would say."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still, and no terminal."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def silent(line: str) -> None:
    raise AssertionError(line)


def test_counts_are_of_what_the_model_read_in_this_run(clock: Clock) -> None:
    """Shards of an earlier run are done, but counting their tokens would invent a speed."""
    shown = Progress("candidates", [(3, 300), (2, 30)], silent)

    shown.skip(3, 300)
    shown.begin()
    clock.now += 1.5
    shown.advance(2, 30)

    assert (shown.n_done, shown.n_samples) == (5, 5)
    assert (shown.n_tokens, shown.seconds, shown.tokens_per_second) == (30, 1.5, 20.0)


def test_loading_the_model_and_what_comes_after_the_last_batch_are_not_counted(clock: Clock) -> None:
    """A model takes a minute to load and a table a while to write: they would slow a short run's rate down."""
    shown = Progress("candidates", [(2, 30)], lambda line: None)
    clock.now += 60

    shown.begin()
    clock.now += 2
    shown.advance(2, 30)
    clock.now += 60

    assert shown.seconds == 2


def test_time_left_is_reckoned_by_tokens(clock: Clock) -> None:
    """The longest samples come first: by samples, an hour's run would seem to take days."""
    shown = Progress("candidates", [(1, 500), (1, 900), (8, 100)], silent)

    shown.skip(1, 500)
    shown.begin()
    clock.now += 9
    shown.advance(1, 900)

    assert shown.seconds_left == 1.0


def test_nothing_is_known_before_the_first_batch(clock: Clock) -> None:
    """A second run reads nothing; its summary must not divide by zero."""
    shown = Progress("candidates", [(1, 500)], silent)
    assert (shown.seconds, shown.tokens_per_second, shown.seconds_left) == (0.0, 0.0, float("inf"))

    shown.begin()

    assert (shown.seconds, shown.tokens_per_second, shown.seconds_left) == (0.0, 0.0, float("inf"))


def test_batch_that_takes_no_time_is_no_error(clock: Clock) -> None:
    """A clock may tick more slowly than a small batch takes."""
    lines: list[str] = []
    shown = Progress("math", [(2, 90)], lines.append)
    clock.now += 20
    shown.begin()

    shown.advance(1, 45)

    assert lines == ["math: 1 of 2 samples read, 0 tokens/s, unknown time left"]


def test_log_gets_a_line_where_there_is_no_terminal(clock: Clock) -> None:
    """In a Dagster run nobody sees a bar; the log says how far it is, how fast, and how long it will take."""
    lines: list[str] = []
    shown = Progress("math", [(1500, 90_000_000)], lines.append)
    shown.begin()

    clock.now += 2000
    shown.advance(1000, 9_000_000)

    assert lines == ["math: 1,000 of 1,500 samples read, 4,500 tokens/s, 5:00:00 left"]


def test_lines_are_some_seconds_apart(clock: Clock) -> None:
    """A line for each of a thousand batches would bury the log."""
    lines: list[str] = []
    shown = Progress("math", [(100, 500)], lines.append)
    shown.begin()

    for _ in range(100):  # 40 seconds
        clock.now += 0.4
        shown.advance(1, 5)

    assert [line.split(" read")[0] for line in lines] == ["math: 38 of 100 samples", "math: 76 of 100 samples"]


def test_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines between would break the bar; it is cleared at the end, as the summary follows."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = Progress("math", [(1, 10), (3, 30)], silent)

    shown.skip(1, 10)
    shown.begin()
    shown.advance(3, 30)
    shown.close()

    assert "math" in terminal.getvalue()
    assert "/40.0 [" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_bar_reckons_with_what_this_run_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on finds half of a day's tokens done at once: the other half will not take a second."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    shown = Progress("math", [(500, 5_000_000), (500, 5_000_000)], silent)

    shown.skip(500, 5_000_000)
    time.sleep(0.2)  # loading the model
    shown.begin()
    time.sleep(0.2)
    shown.advance(1, 100)
    shown.close()

    frame = terminal.getvalue().split("\r")[-3]
    assert "501 of 1,000 samples" in frame
    assert 100 < float(re.search(r"([\d.]+)token/s", frame)[1]) <= 500  # type: ignore[index]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_bar_is_drawn_for_nothing(monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.StringIO]) -> None:
    """A second run that recomputes nothing shows nothing."""
    output = stream()
    monkeypatch.setattr("sys.stderr", output)

    Progress("math", [], silent).close()

    assert output.getvalue() == ""
