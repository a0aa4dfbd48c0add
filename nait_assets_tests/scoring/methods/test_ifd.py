"""IFD: the ratio of losses, what is dropped, and the options."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import RecipeError
from nait_assets.recipe import Recipe
from nait_assets.scoring.method import Scores, ScoringInputs
from nait_assets.scoring.methods import ifd
from nait_assets.scoring.methods.ifd import IfdOptions
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.scoring.given import without_capabilities

GIVEN, ALONE = [1.0, 2.0, 3.0, 0.5, 2.5], [2.0, 2.5, 2.0, 0.5, 0.0]


def inputs(ratio: Literal["losses", "perplexities"], targets: tuple[str, ...] = ("math",)) -> ScoringInputs:
    names = [f"s{place}" for place in range(len(GIVEN))]
    frames = {
        "measurements/candidate_outputs": pl.DataFrame({"sample_id": names, "answer_loss": GIVEN}),
        "measurements/candidate_answers": pl.DataFrame({"sample_id": names, "answer_loss_alone": ALONE}),
    }
    return without_capabilities(names, targets, frames=frames, options=IfdOptions(ratio=ratio))


def order(scores: Scores) -> list[str]:
    """Samples that are kept, best first."""
    frame = ranked([f"s{place}" for place in range(len(GIVEN))], scores.values[:, 0], scores.reasons)
    return frame.filter(pl.col("score").is_not_null())["sample_id"].to_list()


def test_ifd_of_losses_is_their_quotient_and_the_highest_comes_first() -> None:
    """The hardest of those that the instruction helps: the one that it helps least."""
    found = ifd.METHOD.scores(inputs("losses"))

    for place in (0, 1, 3):
        assert found.values[place, 0] == GIVEN[place] / ALONE[place]
    assert order(found) == ["s3", "s1", "s0"]


def test_ifd_of_perplexities_is_the_quotient_of_exponentials() -> None:
    """As Superfiltering has it; the same rows are dropped, in another order of those that are kept."""
    found = ifd.METHOD.scores(inputs("perplexities"))

    for place in (0, 1, 3):
        assert found.values[place, 0] == pytest.approx(math.exp(GIVEN[place]) / math.exp(ALONE[place]))
    assert "s2" in found.reasons


def test_the_ratios_order_differently() -> None:
    """Else the option would say nothing: of 1 to 2 and 4 to 5.5, losses take the second, perplexities the first."""
    given, alone = np.array([1.0, 4.0]), np.array([2.0, 5.5])

    assert ifd.difficulty(given, alone, "losses").argmax() == 1
    assert ifd.difficulty(given, alone, "perplexities").argmax() == 0


def test_above_one_is_dropped_with_its_value_and_one_is_kept() -> None:
    """Where the instruction makes the response harder to say, it does not fit it."""
    found = ifd.METHOD.scores(inputs("losses"))

    assert found.reasons["s2"] == (
        "its IFD is 1.500, above 1: with the instruction the response is harder to predict than without"
    )
    assert "s3" not in found.reasons


def test_response_without_any_loss_alone_is_dropped_rather_than_infinite() -> None:
    """Nothing can be divided by it."""
    found = ifd.METHOD.scores(inputs("losses"))

    assert found.reasons["s4"].startswith("its IFD is not defined")
    assert np.isnan(found.values[4, 0])


def test_every_target_has_the_same_scores() -> None:
    """And a target's do not depend on which others are scored along."""
    alone, along = (ifd.METHOD.scores(inputs("losses", names)) for names in (("math",), ("code", "math", "all")))

    assert along.values.shape == (5, 3)
    np.testing.assert_array_equal(along.values, np.repeat(alone.values, 3, axis=1))
    assert along.reasons == alone.reasons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ifd": {"ratio": "loss"}}, r"options\.ifd\.ratio: Input should be 'losses' or 'perplexities' \(got 'loss'\)"),
        ({"ifd": {"clusters": 10}}, r"options\.ifd\.clusters: unknown field"),
        ({"pre_experienced_model": {"clusters": 0}}, r"measurements\.pre_experienced_model\.clusters: .* \(got 0\)"),
        (
            {"pre_experienced_model": {"per_cluster": 0}},
            r"measurements\.pre_experienced_model\.per_cluster: .* \(got 0\)",
        ),
        ({"pre_experienced_model": {"epochs": 0}}, r"measurements\.pre_experienced_model\.epochs: .* \(got 0\)"),
        (
            {"pre_experienced_model": {"learning_rate": 2}},
            r"measurements\.pre_experienced_model\.learning_rate: .* \(got 2\)",
        ),
        ({"pre_experienced_model": {"rank": 0}}, r"measurements\.pre_experienced_model\.rank: .* \(got 0\)"),
        ({"pre_experienced_model": {"seed": -1}}, r"measurements\.pre_experienced_model\.seed: .* \(got -1\)"),
    ],
)
def test_wrong_option_is_one_error_at_load(
    make_recipe: Callable[..., Recipe], options: dict[str, Any], message: str
) -> None:
    """Before anything is made, with the field and the value."""
    with pytest.raises(RecipeError, match=message):
        make_recipe(**{"measurements" if "pre_experienced_model" in options else "options": options})


def test_options_of_the_ratio_leave_the_trained_model_as_it_is(make_recipe: Callable[..., Recipe]) -> None:
    """A quotient of the same losses must not cost another training."""
    from nait_assets.measurements import pre_experience

    losses, perplexities, longer = (
        pre_experience.settings(make_recipe(**sections))
        for sections in (
            {},
            {"options": {"ifd_pre_experienced": {"ratio": "perplexities"}}},
            {"measurements": {"pre_experienced_model": {"epochs": 2}}},
        )
    )

    assert losses == perplexities
    assert losses != longer
