"""Ranks, and the agreement between recipes and methods."""

from typing import get_args

import numpy as np
import polars as pl
import pytest

from nait_assets.recipe import FEATURE_OF_METHOD, MethodName
from nait_assets.scoring.assets import METHODS
from nait_assets.scoring.method import ranked


def test_rank_1_has_the_highest_score() -> None:
    """Higher is better for every method."""
    frame = ranked(["a", "b", "c"], np.array([0.5, 2.0, -1.0]))
    assert frame.rows() == [("b", 2.0, 1), ("a", 0.5, 2), ("c", -1.0, 3)]
    assert dict(frame.schema) == {"sample_id": pl.String, "score": pl.Float64, "rank": pl.Int64}


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["ascending", "shuffled"])
def test_ties_go_to_the_smaller_sample_id(order: list[int]) -> None:
    """The order of the input must not decide which of two equal rows is chosen; -0.0 equals 0.0."""
    names, scores = ["a", "b", "c", "d"], [0.0, -0.0, 0.0, 1.0]
    frame = ranked([names[place] for place in order], np.array([scores[place] for place in order]))
    assert frame["sample_id"].to_list() == ["d", "a", "b", "c"]
    assert frame["rank"].to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(broken: float) -> None:
    """NaN sorts above every number: the broken sample would be chosen first."""
    with pytest.raises(ValueError, match=r"NaN or infinite for sample\(s\) b$"):
        ranked(["a", "b"], np.array([1.0, broken]))


def test_every_method_of_a_recipe_exists_and_reads_the_feature_that_the_recipe_plans() -> None:
    """`recipe.py` may not import `scoring`, so the two lists are kept by hand."""
    assert set(METHODS) == set(get_args(MethodName)) == set(FEATURE_OF_METHOD)
    read = {name: method.feature and method.feature.name for name, method in METHODS.items()}
    assert read == {name: feature and f"features.{feature}" for name, feature in FEATURE_OF_METHOD.items()}
