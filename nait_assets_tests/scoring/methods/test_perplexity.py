"""perplexity_low and perplexity_high: the loss of the text, both ways."""

import numpy as np
import polars as pl
import pytest

from nait_assets.scoring.method import Method, ScoringInputs
from nait_assets.scoring.methods import perplexity
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.scoring.given import without_capabilities


def inputs(losses: list[float], targets: list[str]) -> ScoringInputs:
    names = [f"s{place}" for place in range(len(losses))]
    frame = pl.DataFrame({"sample_id": names, "text_loss": losses})
    return without_capabilities(names, targets, frames={perplexity.OUTPUTS: frame})


def test_low_begins_with_the_likeliest_and_high_with_the_unlikeliest() -> None:
    """A sign that is wrong would choose the opposite half of the pool."""
    given = inputs([2.0, 0.5, 3.0], ["math"])

    low, high = (
        ranked(given.sample_ids, method.scores(given).values[:, 0])["sample_id"].to_list()
        for method in (perplexity.LOW, perplexity.HIGH)
    )

    assert low == ["s1", "s0", "s2"]
    assert high == low[::-1]


@pytest.mark.parametrize("method", [perplexity.LOW, perplexity.HIGH], ids=lambda method: method.name)
def test_scores_order_as_perplexities_where_those_overflow(method: Method) -> None:
    """exp(800) is infinite, its logarithm is not."""
    values = method.scores(inputs([800.0, 900.0], ["math"])).values

    assert np.isfinite(values).all()
    assert (values[1, 0] > values[0, 0]) == (method is perplexity.HIGH)


def test_every_target_has_the_same_scores() -> None:
    """And a target's do not depend on which others are scored along."""
    alone = perplexity.HIGH.scores(inputs([2.0, 0.5], ["math"])).values
    along = perplexity.HIGH.scores(inputs([2.0, 0.5], ["code", "math", "all"])).values

    assert along.shape == (2, 3)
    assert (along == alone).all()
