"""`nait explain`: the text says what was asked for, with the numbers of the tables."""

import json
import re
from pathlib import Path

import pytest

from nait_assets.audit.why import why
from nait_assets.audit.why_text import WIDTH, as_json, text_of
from nait_assets.errors import NotFoundError, WarehouseError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.report.pages import home_with_subsets
from nait_assets_tests.small_home import UNREAD, build_home


@pytest.mark.parametrize("target", ["math", "all"])
def test_explanation_has_scores_ranks_neurons_and_text(
    small_recipe: Recipe, small_home: Warehouse, target: str
) -> None:
    """What the command promises, with the very numbers of the tables."""
    text = text_of(why(small_recipe, small_home, "c4", target, n=2))
    with small_home.tables.snapshot() as snapshot:
        query = "SELECT method, score, rank FROM scoring.scores WHERE sample_id = 'c4' AND target = ?"
        rows = snapshot.connection.execute(query, [target]).fetchall()
    assert len(rows) == 2
    for method, score, rank in rows:
        assert f"  {method:<20} score {score:>12.5f}   rank {rank:>6,} of 10" in text.splitlines()
    assert len(re.findall(r"^  \d+:\d+ ", text, flags=re.MULTILINE)) == 2
    assert "sample c4, row 4 of pool.jsonl, topic code" in text
    assert text.endswith("[user] question 4\n[assistant] answer")


def test_explained_neurons_add_up_to_the_score_in_the_table(small_recipe: Recipe, small_home: Warehouse) -> None:
    """From the tables to the text, nothing is lost: two layers of three neurons."""
    text = text_of(why(small_recipe, small_home, "c4", "all", n=6))
    shares = [float(line.rpartition("share")[2]) for line in text.splitlines() if "share" in line]
    (score_line,) = [line for line in text.splitlines() if "nait_standardized  " in line]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(float(score_line.split()[2]), abs=6e-5)


def test_a_sample_that_was_not_read_is_said_to_have_no_neurons(small_recipe: Recipe, small_home: Warehouse) -> None:
    """It is in the pool and has no score: the reader should learn why."""
    text = text_of(why(small_recipe, small_home, UNREAD, "math", n=2))
    assert "nait_standardized: nothing was read of it" in text
    assert "no score: no token" in text


@pytest.mark.parametrize(
    ("sample_id", "found"),
    [("zzz", "'zzz': no candidate has it"), ("c", "'c': 10 samples begin so")],
    ids=["none", "ten"],
)
def test_a_sample_id_must_name_one_candidate(
    small_recipe: Recipe, small_home: Warehouse, sample_id: str, found: str
) -> None:
    """A beginning of the id will do if it is unique; the message says where ids are to be found."""
    with pytest.raises(NotFoundError, match=found + r" in .*warehouse\.duckdb\. Ids are in scoring\.scores"):
        text_of(why(small_recipe, small_home, sample_id, "math", n=2))


def test_an_unknown_target_is_refused_with_those_there_are(small_recipe: Recipe, small_home: Warehouse) -> None:
    """A misspelt capability, with the recipe's path and its targets."""
    with pytest.raises(NotFoundError, match=r"'maths' is not among the recipe's targets, code, math, all") as error:
        text_of(why(small_recipe, small_home, "c4", "maths", n=2))
    assert str(small_recipe.path) in str(error.value)


def test_a_home_without_a_run_is_said_to_be_empty(small_recipe: Recipe, tmp_path: Path) -> None:
    """The first thing a new user may try."""
    with pytest.raises(WarehouseError, match=r"does not exist.*`nait run`"):
        text_of(why(small_recipe, Warehouse(home=str(tmp_path / "nothing")), "c4", "math", n=2))


def test_the_row_is_placed_against_each_ratio_and_told_what_came_instead(small_recipe: Recipe, tmp_path: Path) -> None:
    """One of ten at 0.10, three at 0.30: the second best is told of both, with the texts of the rows that decided."""
    warehouse = home_with_subsets(small_recipe, tmp_path / "home")
    with warehouse.tables.snapshot() as snapshot:
        query = "SELECT sample_id FROM scoring.nait_standardized_scores WHERE target = 'math' ORDER BY rank"
        order = [name for (name,) in snapshot.connection.execute(query).fetchall()]
    text = " ".join(text_of(why(small_recipe, warehouse, order[1], "math", n=2)).split())
    assert "not chosen: rank 2; the last of 1 that are taken has rank 1, and a score" in text
    assert f"the last row taken instead: {order[0]} question {order[0][1:]}" in text
    assert " chosen: rank 2; the last of 3 that are taken has rank 3, and a score" in text
    assert f"the last row taken: {order[2]} question {order[2][1:]}" in text


def test_the_nearest_examples_have_their_texts_and_neurons_the_rows_that_drive_them(
    small_recipe: Recipe, small_home: Warehouse
) -> None:
    """Numbers of neurons and ids of examples say nothing to a person; texts do."""
    lines = text_of(why(small_recipe, small_home, "c4", "math", n=2)).splitlines()
    (near,) = [place for place, line in enumerate(lines) if line.startswith("nearest in-domain examples")]
    (found,) = [place for place, line in enumerate(lines) if "math-example" in line]
    assert found > near
    assert lines[found].endswith("about math")
    assert lines[found + 1].endswith("->  an example")
    driven = [line for line in lines if re.search(r"active on +[+-][\d.]+ sd", line)]
    assert len(driven) == 2
    assert all(re.search(r"question \d$", line) for line in driven)
    assert max(map(len, lines)) <= WIDTH


def test_a_score_that_is_not_what_is_stored_is_said_to_be_older(small_recipe: Recipe, tmp_path: Path) -> None:
    """Between an edit and the run the parts are of one thing and the rank of another."""
    warehouse = build_home(small_recipe, tmp_path / "home")
    assert "it is older" not in text_of(why(small_recipe, warehouse, "c4", "math", n=2))
    with warehouse.tables.transaction() as tables:
        tables.connection.execute("UPDATE scoring.nait_standardized_scores SET score = 0.5 WHERE sample_id = 'c4'")
    assert "the stored score is +0.50000: it is older" in text_of(why(small_recipe, warehouse, "c4", "math", n=2))


def test_the_same_is_there_as_data(small_recipe: Recipe, small_home: Warehouse) -> None:
    """For a script or a notebook: every part and whole texts, which the text cuts."""
    found = why(small_recipe, small_home, "c4", "all", n=2)
    data = json.loads(as_json(found))
    assert data["sample"]["sample_id"] == "c4"
    assert {one["method"]: one["score"] for one in data["scores"]}["nait_standardized"] == found.score
    layers, capabilities = data["explanation"]["parts"]
    assert (layers["by"], set(layers["values"])) == ("layer", {"layer 0", "layer 5"})
    assert set(capabilities["values"]) == {"code", "math"}
    assert set(data["faces"]) == {reason["label"] for reason in data["explanation"]["reasons"]}
