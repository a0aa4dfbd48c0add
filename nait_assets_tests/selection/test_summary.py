"""The summary: honest shares, and what a person wants to know after a run."""

from pathlib import Path

import polars as pl
import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import WarehouseError
from nait_assets.selection.summary import own_topic_share, summarize


def ranking(topics: list[str | None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores and pool of candidates whose topics are given from the best to the worst."""
    names = [f"s{place}" for place in range(len(topics))]
    scores = pl.DataFrame({"sample_id": names, "rank": range(1, len(topics) + 1)})
    pool = pl.DataFrame({"sample_id": names, "topic": topics}, schema={"sample_id": pl.String, "topic": pl.String})
    return scores.reverse(), pool


@pytest.mark.parametrize(
    ("topics", "share", "most"),
    [
        (["math", "code"] + ["math"] * 9 + ["code"] * 9, 0.5, 1.0),
        (["math", None] + ["code"] * 18, 0.5, 0.5),
        (["code"] * 19 + ["math"], 0.0, 0.5),
        (["code"] * 20, 0.0, 0.0),
    ],
    ids=["half", "all there are, and one without a topic", "last", "none"],
)
def test_own_topic_share_counts_the_best_tenth_and_what_was_possible(
    topics: list[str | None], share: float, most: float
) -> None:
    """A share of 0.5 is a failure if 1.0 was possible, and perfect if the pool holds no more."""
    scores, pool = ranking(topics)
    assert own_topic_share(scores, pool, "math") == (share, most)


def test_own_topic_share_takes_the_ratio_it_is_given() -> None:
    """ceil(0.3 x 10) rows count as best."""
    scores, pool = ranking(["math", "math", "code", "math"] + ["code"] * 6)
    assert own_topic_share(scores, pool, "math", "0.30") == (pytest.approx(2 / 3), 1.0)


def test_summary_says_what_was_read_and_rejected(small_recipe: Recipe, small_home: Warehouse) -> None:
    """Rows that could not be parsed and samples that the model could not read: neither vanishes in silence."""
    text = summarize(small_recipe, small_home, tokens_per_second=1234.5)
    assert "Pool: 10 candidates." in text
    assert "Rejected rows: 2 in candidates, 1 in candidates when the model read it." in text
    assert "90 tokens of candidates at 1,234 tokens/s, 20 tokens of in-domain examples" in text


def test_summary_lists_the_five_best_rows_of_each_capability(small_recipe: Recipe, small_home: Warehouse) -> None:
    """The look at the rows that tells a person whether the choice makes sense."""
    lines = summarize(small_recipe, small_home, None).splitlines()
    query = """SELECT rank, score, sample_id FROM scoring.scores
               WHERE method = 'nait_standardized' AND target = ? AND rank <= 5 ORDER BY rank"""
    for capability in ("code", "math"):
        with small_home.tables.snapshot() as snapshot:
            best = snapshot.connection.execute(query, [capability]).fetchall()
        start = lines.index(f"Best for {capability} (nait_standardized):") + 1
        for line, (rank, score, name) in zip(lines[start : start + 5], best, strict=True):
            topic = "-" if name == "c3" else ("code", "math")[int(name[1]) % 2]
            assert line.split() == [f"{rank}.", f"{score:+.3f}", topic, name, "question", name[1]]
        assert lines[start + 5] == ""


def test_summary_shows_the_share_of_the_own_topic_by_method(small_recipe: Recipe, small_home: Warehouse) -> None:
    """Every method beside the most that was possible, so that the random control can be compared."""
    lines = summarize(small_recipe, small_home, None).splitlines()
    header = next(place for place, line in enumerate(lines) if line.startswith("Own topic among the best 0.10")) + 1
    assert lines[header].split() == ["code", "math"]
    query = "SELECT sample_id FROM scoring.scores WHERE method = ? AND target = ? AND rank = 1"
    own = {"code": ("c0", "c2", "c4", "c6", "c8"), "math": ("c1", "c5", "c7")}
    for line, method in zip(lines[header + 1 : header + 3], ("nait_standardized", "random"), strict=True):
        with small_home.tables.snapshot() as snapshot:
            best = [snapshot.connection.execute(query, [method, name]).fetchall()[0][0] for name in own]
        shares = ["100%" if row in own[name] else "0%" for row, name in zip(best, own, strict=True)]
        assert line.split() == [method, *shares]
    assert lines[header + 3].split() == ["most", "possible", "100%", "100%"]


def test_summary_says_where_the_subsets_lie(small_recipe: Recipe, small_home: Warehouse) -> None:
    """The last line is where to go next."""
    text = summarize(small_recipe, small_home, None)
    assert text.splitlines()[-1].startswith(f"Subsets: {small_home.folder / 'subsets'}/")


def test_summary_of_a_home_without_a_run_says_so(small_recipe: Recipe, tmp_path: Path) -> None:
    """One clear error, naming the file and the command."""
    with pytest.raises(WarehouseError, match=r"home/warehouse\.duckdb does not exist.*`nait run`"):
        summarize(small_recipe, Warehouse(home=str(tmp_path / "home")), None)
