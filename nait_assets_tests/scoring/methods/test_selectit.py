"""SelectIT: the three levels of its score against the paper's formulas, written out."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import RecipeError
from nait_assets.recipe import Recipe
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods.selectit import METHOD, SelectitOptions, token_scores
from nait_assets_tests.scoring.given import without_capabilities

NAMES = ["a", "b", "c"]
SIZES = [7_000, 13_000]


def probabilities(n_models: int = 2) -> np.ndarray:
    """`(3, n_models, 5, 5)`."""
    logits = np.random.default_rng(0).normal(scale=2, size=(len(NAMES), n_models, 5, 5))
    return (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).astype(np.float32)


def inputs_of(ratings: np.ndarray, targets: tuple[str, ...] = ("code", "math"), **options: Any) -> ScoringInputs:
    frame = pl.DataFrame(
        {
            "sample_id": NAMES,
            "ratings": [one.ravel() for one in ratings],
            "n_parameters": [SIZES[: ratings.shape[1]]] * len(NAMES),
        }
    )
    candidates = {"measurements/candidate_ratings": frame}
    return without_capabilities(NAMES, targets, frames=candidates, options=SelectitOptions(**options))


def token_by_hand(marks: np.ndarray) -> float:
    best = 0
    for place in range(5):
        if marks[place] > marks[best]:
            best = place
    total = sum(abs(float(marks[best]) - float(mark)) for mark in marks)
    return (best + 1) * total / (5 - 1)


def sentence_by_hand(wordings: np.ndarray, alpha: float) -> float:
    scores = [token_by_hand(marks) for marks in wordings]
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    return mean / (1 + alpha * spread)


def model_by_hand(models: np.ndarray, alpha: float) -> float:
    weighted = [size * sentence_by_hand(wordings, alpha) for size, wordings in zip(SIZES, models, strict=True)]
    return sum(weighted) / sum(SIZES)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 3.0])
def test_model_scores_equal_a_slow_reference(alpha: float) -> None:
    ratings = probabilities()

    found = METHOD.scores(inputs_of(ratings, alpha=alpha)).values

    wanted = [model_by_hand(one, alpha) for one in ratings]
    np.testing.assert_allclose(found, np.stack([wanted, wanted], axis=1), rtol=1e-12)


def test_lower_levels_equal_a_slow_reference() -> None:
    ratings = probabilities(n_models=1)

    of_tokens = METHOD.scores(inputs_of(ratings, level="token")).values[:, 0]
    of_sentences = METHOD.scores(inputs_of(ratings, level="sentence")).values[:, 0]
    of_models = METHOD.scores(inputs_of(ratings)).values[:, 0]

    np.testing.assert_allclose(of_tokens, [token_by_hand(one[0, 0]) for one in ratings], rtol=1e-12)
    np.testing.assert_allclose(of_sentences, [sentence_by_hand(one[0], 0.2) for one in ratings], rtol=1e-12)
    np.testing.assert_allclose(of_models, of_sentences, rtol=1e-12)


def test_a_sure_five_is_five_and_an_unsure_one_is_nothing() -> None:
    """The scale of the score: what the model is not sure of must not count as a middling mark."""
    assert token_scores(np.asarray([0, 0, 0, 0, 1.0])) == 5
    assert token_scores(np.asarray([1.0, 0, 0, 0, 0])) == 1
    assert token_scores(np.full(5, 0.2)) == 0


def test_a_score_does_not_depend_on_the_other_targets_or_samples() -> None:
    ratings = probabilities()

    both, one = METHOD.scores(inputs_of(ratings)), METHOD.scores(inputs_of(ratings, ("math",)))

    assert both.values[:, 1].tolist() == one.values[:, 0].tolist()


def test_a_level_below_model_reads_one_model(make_recipe: Callable[..., Recipe]) -> None:
    """Which of two would it be?"""
    ratings = {"models": [{"source": "a"}, {"source": "b"}]}
    with pytest.raises(RecipeError, match=r"'token' reads one model, and `measurements\.ratings\.models` has 2"):
        make_recipe(methods=["selectit"], options={"selectit": {"level": "token"}}, measurements={"ratings": ratings})
