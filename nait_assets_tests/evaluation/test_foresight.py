"""Foresight: correlations against scipy, a method that knows and one that only knows length."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from nait_assets.evaluation.foresight import (
    Predictor,
    controls,
    foresight,
    predictor_of_method,
    predictors_of_length,
)

N = 32


def predictor(name: str, values: np.ndarray) -> Predictor:
    """A method for one target."""
    return Predictor(name, "method", {"math": values}, {"math": values}, {"math": 1.0})


def test_a_method_that_knows_is_told_from_one_that_is_length_alone() -> None:
    """Given the length of answers, what follows length alone foretells nothing."""
    rng = np.random.default_rng(3)
    length, knowledge = rng.normal(size=N), rng.normal(size=N)
    fall = length + knowledge + 0.1 * rng.normal(size=N)
    methods = [predictor("knows", knowledge), predictor("long", length + 0.3 * rng.normal(size=N))]
    found = foresight(
        [*methods, *controls(["math"], [length, length, length])], {"exam": fall}, {"math": ["exam"]}, length
    )
    rows = {name: found.filter(predictor=name).row(0, named=True) for name in found["predictor"]}
    for one in methods:
        row = rows[one.name]
        assert row["correlation"] == pytest.approx(spearmanr(one.values["math"], fall).statistic)
        assert row["by_score"] == row["correlation"]
        assert row["low"] < row["correlation"] < row["high"]
    assert rows["knows"]["partial_low"] > 0.5
    assert abs(rows["long"]["partial"]) < 0.4 < rows["long"]["correlation"]
    assert rows["answer_tokens"]["partial"] is None
    assert found.equals(
        foresight([*methods, *controls(["math"], [length] * 3)], {"exam": fall}, {"math": ["exam"]}, length)
    )


def test_tasks_of_a_target_together_count_alike() -> None:
    """The scale of a task does not decide."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=N), rng.normal(size=N)
    given = {"one": one, "other": 1000 * other}
    found = foresight([predictor("sum", one / one.std() + other / other.std())], given, {"math": ["one", "other"]}, one)
    assert found.filter(task="")["correlation"].item() == pytest.approx(1.0)
    assert set(found["task"]) == {"", "one", "other"}


def test_a_predictor_that_does_not_vary_foretells_nothing() -> None:
    """And has no interval, instead of a made-up one."""
    rng = np.random.default_rng(0)
    found = foresight([predictor("flat", np.ones(N))], {"exam": rng.normal(size=N)}, {"math": ["exam"]}, np.arange(N))
    assert found.select("correlation", "low", "high", "partial", "by_score").row(0) == (None,) * 5


def test_rows_without_a_score_are_ranked_last() -> None:
    """Their share is said."""
    probes = pl.DataFrame({"probe": [0, 0, 1, 1], "sample_id": ["a", "b", "c", "d"]})
    scores = pl.DataFrame({"sample_id": ["a", "b", "c", "d"], "score": [3.0, 1.0, 2.0, None], "rank": [1, 3, 2, None]})
    found = predictor_of_method("one", {"math": scores}, probes)
    assert found.values["math"].tolist() == [-2.0, -3.5]
    assert found.scores["math"].tolist() == [2.0, 2.0]
    assert found.share_scored["math"] == 0.75
    lengths = pl.DataFrame({"sample_id": ["a", "b", "c", "d"], "length": [1, 3, 5, 7]})
    models = pl.DataFrame({"number": [1, 0], "n_rows": [2, 2], "n_tokens": [40, 20], "n_answer_tokens": [10, 6]})
    characters, tokens, answer_tokens = predictors_of_length(probes, lengths, models)
    assert (characters.tolist(), tokens.tolist(), answer_tokens.tolist()) == ([2.0, 6.0], [10.0, 20.0], [3.0, 5.0])
