"""Foresight: correlations against scipy, a method that knows and one that only knows length."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata, spearmanr

from nait_assets.evaluation.foresight import (
    Predictor,
    controls,
    foresight,
    predictor_of_method,
    predictors_of_length,
)
from nait_assets.evaluation.shown import foresight_table, foresight_verdict

N = 32


def lengths(values: np.ndarray) -> dict[str, np.ndarray]:
    """One length under the names that methods are measured by."""
    return dict.fromkeys(("answer_tokens", "answer_rank"), values)


def predictor(name: str, values: np.ndarray) -> Predictor:
    """A method for one target."""
    return Predictor(name, "method", {"math": values}, {"math": values}, {"math": 1.0})


def test_a_method_that_knows_is_told_from_one_that_is_length_alone() -> None:
    """Given the length of answers, what follows length alone foretells nothing."""
    rng = np.random.default_rng(3)
    length, knowledge = rng.normal(size=N), rng.normal(size=N)
    fall = length + knowledge + 0.1 * rng.normal(size=N)
    methods = [predictor("knows", knowledge), predictor("long", length + 0.3 * rng.normal(size=N))]
    given = [*methods, *controls(["math"], lengths(length))]
    found = foresight(given, {"exam": fall}, {"math": ["exam"]})
    rows = {name: found.filter(predictor=name).row(0, named=True) for name in found["predictor"]}
    for one in methods:
        row = rows[one.name]
        assert row["correlation"] == pytest.approx(spearmanr(one.values["math"], fall).statistic)
        assert row["by_score"] == row["correlation"]
        assert row["low"] < row["correlation"] < row["high"]
    assert rows["knows"]["partial_low"] > 0.5
    assert abs(rows["long"]["partial"]) < 0.4 < rows["long"]["correlation"]
    assert rows["answer_tokens"]["partial"] is None
    assert rows["answer_tokens"]["above_length"] is None
    assert found.equals(foresight(given, {"exam": fall}, {"math": ["exam"]}))


def test_a_method_has_to_beat_the_length_that_foretells_best_in_either_direction() -> None:
    """Where short answers help, "less than the number of tokens" would be no bar at all."""
    rng = np.random.default_rng(4)
    length = rng.normal(size=N)
    fall = -length + 0.5 * rng.normal(size=N)
    given = [predictor("short", -length), predictor("long", length), *controls(["math"], lengths(length))]
    rows = {row["predictor"]: row for row in foresight(given, {"exam": fall}, {"math": ["exam"]}).to_dicts()}
    assert rows["short"]["above_length"] == pytest.approx(0.0)
    assert rows["short"]["partial"] is None, "nothing is left of it given length"
    assert rows["long"]["above_length"] == pytest.approx(2 * rows["long"]["correlation"])


def test_what_two_lengths_know_is_taken_out_one_after_another() -> None:
    """As the partial correlation by regression has it."""
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(2, N))
    method, fall = first + second + rng.normal(size=N), first - second + rng.normal(size=N)
    of_lengths = {"answer_tokens": first, "answer_rank": second}
    given = [predictor("one", method), *controls(["math"], of_lengths)]
    found = foresight(given, {"exam": fall}, {"math": ["exam"]}).filter(predictor="one")["partial"].item()
    ranks = np.stack([rankdata(values) for values in (method, fall, first, second)]).T
    design = np.column_stack([np.ones(N), ranks[:, 2:]])
    left = ranks[:, :2] - design @ np.linalg.lstsq(design, ranks[:, :2], rcond=None)[0]
    assert found == pytest.approx(np.corrcoef(left.T)[0, 1])


def test_tasks_of_a_target_together_count_alike() -> None:
    """The scale of a task does not decide."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=N), rng.normal(size=N)
    given = {"one": one, "other": 1000 * other}
    found = foresight([predictor("sum", one / one.std() + other / other.std())], given, {"math": ["one", "other"]})
    assert found.filter(task="")["correlation"].item() == pytest.approx(1.0)
    assert set(found["task"]) == {"", "one", "other"}


def test_a_predictor_that_does_not_vary_foretells_nothing() -> None:
    """And has no interval, instead of a made-up one."""
    rng = np.random.default_rng(0)
    found = foresight([predictor("flat", np.ones(N))], {"exam": rng.normal(size=N)}, {"math": ["exam"]})
    assert found.select("correlation", "low", "high", "partial", "by_score").row(0) == (None,) * 5


def test_rows_without_a_score_are_ranked_last() -> None:
    """Their share is said."""
    probes = pl.DataFrame({"probe": [0, 0, 1, 1], "sample_id": ["a", "b", "c", "d"]})
    scores = pl.DataFrame({"sample_id": ["a", "b", "c", "d"], "score": [3.0, 1.0, 2.0, None], "rank": [1, 3, 2, None]})
    found = predictor_of_method("one", {"math": scores}, probes)
    assert found.values["math"].tolist() == [-2.0, -3.5]
    assert found.scores["math"].tolist() == [2.0, 2.0]
    assert found.share_scored["math"] == 0.75


def test_lengths_of_probes_are_means_and_a_rank_in_the_pool() -> None:
    """The rank does not let one long answer stand for the others."""
    probes = pl.DataFrame({"probe": [0, 0, 1, 1], "sample_id": ["a", "b", "c", "d"]})
    characters = pl.DataFrame(
        {"sample_id": ["a", "b", "c", "d", "e"], "characters": [1, 3, 5, 7, 9], "answer_characters": [0, 90, 2, 2, 9]}
    )
    models = pl.DataFrame({"number": [1, 0], "n_rows": [2, 2], "n_tokens": [40, 20], "n_answer_tokens": [10, 6]})
    found = {name: values.tolist() for name, values in predictors_of_length(probes, characters, models).items()}
    assert found == {
        "characters": [2.0, 6.0],
        "tokens": [10.0, 20.0],
        "answer_tokens": [3.0, 5.0],
        "answer_rank": [3.0, 2.5],
    }


@pytest.fixture
def of_two_targets() -> pl.DataFrame:
    """A method that knows both targets, one that follows length, and the comprehensive target's."""
    rng = np.random.default_rng(1)
    length, *knowledge = rng.normal(size=(3, N))
    given = {"code": knowledge[0], "math": knowledge[1]}
    falls = {name: 0.5 * length + values for name, values in given.items()}
    values = {"knows": given, "long": dict.fromkeys(given, length + 0.3 * rng.normal(size=N))}
    methods = [Predictor(name, "method", {**one, "all": rng.normal(size=N)}, {}, {}) for name, one in values.items()]
    tasks = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}
    return foresight([*methods, *controls(["code", "math", "all"], lengths(length))], falls, tasks)


def test_the_mean_over_targets_leaves_the_comprehensive_one_out(of_two_targets: pl.DataFrame) -> None:
    """Its interval is by the same resamples: that of the mean is narrower than those of its parts."""
    rows = of_two_targets.filter(predictor="knows")
    own = rows.filter(pl.col("target").is_in(["code", "math"]))
    mean = rows.filter(target="").row(0, named=True)
    for name in ("correlation", "partial", "above_length"):
        assert mean[name] == pytest.approx(own[name].mean())
    width = pl.col("high") - pl.col("low")
    assert mean["high"] - mean["low"] < own.select(width.max()).item()
    assert set(of_two_targets.filter(target="")["predictor"]) == set(of_two_targets["predictor"])


def test_the_best_method_is_named_with_what_it_knows_beyond_length(of_two_targets: pl.DataFrame) -> None:
    """Also where that is nothing."""
    header, rows = foresight_table(of_two_targets)
    assert header == ["method", "mean", "code", "math", "all"]
    assert [row[0] for row in rows[:2]] == ["knows", "long"]
    assert str(rows[2][0]).endswith("(control)")
    told = foresight_verdict(of_two_targets)
    assert told.startswith("`knows` foretells training best: +0.")
    assert "It is better than length alone, by +" in told
    told = foresight_verdict(of_two_targets.filter(pl.col("predictor") != "knows"))
    assert told.startswith("`long` foretells training best")
    assert "not told apart from length alone" in told
    assert foresight_verdict(of_two_targets.filter(kind="control")) == ""
    none = of_two_targets.with_columns(correlation=-pl.col("correlation").abs())
    assert foresight_verdict(none).startswith("No method foretells training: the best, `")
