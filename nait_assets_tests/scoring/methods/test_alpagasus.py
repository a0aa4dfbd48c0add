"""AlpaGasus: the judge's ratings as scores."""

from typing import Any

import numpy as np
import polars as pl

from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods.alpagasus import METHOD, AlpagasusOptions
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.scoring.given import without_capabilities

NAMES = ["a", "b", "c", "d"]


def inputs_of(ratings: list[float], targets: tuple[str, ...] = ("code", "math"), **options: Any) -> ScoringInputs:
    frame = pl.DataFrame({"sample_id": NAMES, "score": ratings})
    settings = AlpagasusOptions(**options)
    return without_capabilities(NAMES, targets, frames={"measurements/candidate_judgements": frame}, options=settings)


def test_a_score_is_the_rating_whatever_the_target() -> None:
    scores = METHOD.scores(inputs_of([4.5, 0.0, 5.0, 4.5]))

    assert scores.values.tolist() == [[4.5] * 2, [0.0] * 2, [5.0] * 2, [4.5] * 2]
    assert scores.values[:, :1].tolist() == METHOD.scores(inputs_of([4.5, 0.0, 5.0, 4.5], ("code",))).values.tolist()
    assert scores.reasons == {}


def test_ties_go_by_sample_id() -> None:
    """A judge knows few numbers: most of a subset is decided here, and has to be the same every time."""
    scores = METHOD.scores(inputs_of([4.5, 5.0, 4.5, 5.0]))

    assert ranked(NAMES, scores.values[:, 0], scores.reasons)["sample_id"].to_list() == ["b", "d", "a", "c"]


def test_below_the_threshold_is_no_score_and_at_it_is_one() -> None:
    """The paper keeps what has at least 4.5; no ratio may reach below."""
    scores = METHOD.scores(inputs_of([4.5, 4.0, 5.0, 0.0], threshold=4.5))

    assert scores.reasons == {
        "b": "judged 4, below the threshold of 4.5",
        "d": "judged 0, below the threshold of 4.5",
    }
    assert np.isnan(scores.values[[1, 3]]).all()
    assert ranked(NAMES, scores.values[:, 0], scores.reasons)["score"].to_list() == [5.0, 4.5, None, None]
