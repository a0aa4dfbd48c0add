"""Explanations: what each neuron adds to a score, and the strongest neurons of a projection."""

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.scoring.explanation import shared_strength
from nait_assets.scoring.linear import LinearScore
from nait_assets.scoring.methods.nait_standardized import contributions, cosines

LAYERS, WIDTH = (2, 7), 5
RANDOM = np.random.default_rng(0)
SAMPLE = {layer: RANDOM.normal(4, 2, WIDTH).astype(np.float32) for layer in LAYERS}
STATISTICS = {
    layer: NeuronStatistics(np.full(WIDTH, 3, np.float32), RANDOM.uniform(1, 2, WIDTH).astype(np.float32))
    for layer in LAYERS
}
CENTROIDS = {layer: RANDOM.normal(size=WIDTH) for layer in LAYERS}


def test_contributions_of_all_neurons_add_up_to_the_score() -> None:
    """Else the explanation would be of something other than what ranked the sample."""
    found = contributions(SAMPLE, STATISTICS, CENTROIDS)
    blocks = [(layer, np.arange(1), SAMPLE[layer][None]) for layer in LAYERS]
    score = cosines(blocks, STATISTICS, {layer: CENTROIDS[layer][None] for layer in LAYERS}, 1)[0, 0]
    assert found.shares.sum() == pytest.approx(score, abs=1e-6)
    (by_layer,) = found.parts
    assert list(by_layer.values) == ["layer 2", "layer 7"]
    assert by_layer.total == pytest.approx(score, abs=1e-6)


def test_each_contribution_names_its_layer_and_neuron() -> None:
    """The index is what a person looks up in the model: layers have their own numbers, not their places."""
    reasons = contributions(SAMPLE, STATISTICS, CENTROIDS).strongest(
        len(LAYERS) * WIDTH, lambda layer, neuron, value, _: f"{layer} {neuron} {value:.6f}"
    )
    assert len({reason.neuron for reason in reasons}) == len(LAYERS) * WIDTH
    for reason in reasons:
        assert reason.neuron is not None
        layer, neuron = reason.neuron
        z = (SAMPLE[layer][neuron] - STATISTICS[layer].mean[neuron]) / STATISTICS[layer].standard_deviation[neuron]
        assert reason.label == f"{layer}:{neuron}"
        named, value = reason.detail.split(", share")[0].rsplit(" ", 1)
        assert named == f"{layer} {neuron}"
        assert float(value) == pytest.approx(float(z), rel=1e-4)
        assert np.sign(reason.share) == np.sign(z * CENTROIDS[layer][neuron])
        assert reason.inverted == (CENTROIDS[layer][neuron] < 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_neurons_that_weigh_most_in_the_score_s_direction_come_first(sign: int) -> None:
    """Of a row that is far from the target what speaks against it is why, not the few neurons that speak for it."""
    found = contributions(SAMPLE, STATISTICS, {layer: sign * vector for layer, vector in CENTROIDS.items()})
    direction = np.sign(found.shares.sum())
    everything = [direction * (reason.share or 0) for reason in found.strongest(100, lambda *_: "")]
    assert everything == sorted(everything, reverse=True)
    assert everything[0] > 0 > everything[-1]
    three = [direction * (reason.share or 0) for reason in found.strongest(3, lambda *_: "")]
    assert three == everything[:3]


def test_the_spread_counts_the_neurons_that_make_up_half_of_what_speaks_for_a_row() -> None:
    """Five neurons that are 2 % of a score look as if they were why; this says over how many it is spread."""
    shares = np.array([[4.0, 1.0, -2.0], [3.0, 2.0, 0.0]])
    spread = LinearScore([0, 1], shares, np.ones((2, 3))).spread
    assert spread == (
        "4 of 6 neurons speak for it, +10.00000, half of it by the 2 that add most; 1 speak against it, -2.00000"
    )
    assert LinearScore([0], -np.ones((1, 2)), np.ones((1, 2))).spread.startswith(
        "0 of 2 neurons speak for it, +0.00000"
    )


def test_a_sample_at_the_pools_mean_has_no_contributions() -> None:
    """Its score is 0, so each neuron's part is 0 and not NaN."""
    mean = {layer: STATISTICS[layer].mean for layer in LAYERS}
    assert not contributions(mean, STATISTICS, CENTROIDS).shares.any()


def test_neurons_shared_with_the_examples_come_first_and_opposed_ones_last() -> None:
    """A neuron far above the mean here and far below it there speaks against: its strength alone must not rank it."""
    sample = pl.DataFrame({"layer": [0, 0, 1, 1], "neuron": [5, 6, 5, 7], "value": [9.0, -2.0, 1.0, 8.0]})
    examples = pl.DataFrame(
        {
            "sample_id": ["a", "a", "b", "b", "b"],
            "layer": [0, 1, 0, 1, 1],
            "neuron": [6, 5, 6, 7, 9],
            "value": [-3.0, 4.0, -1.0, -6.0, 50.0],
        }
    )
    # Products with the sums over examples: 8, 4, 0 (in none of them), -48; the 50 is of a neuron that is not its own.
    expected = [(0, 6, -2.0, 2, -2.0), (1, 5, 1.0, 1, 4.0), (0, 5, 9.0, 0, 0.0), (1, 7, 8.0, 1, -6.0)]
    assert shared_strength(sample, examples, 10).rows() == expected
    assert shared_strength(sample, examples, 2).rows() == expected[:2]


def test_without_examples_the_strongest_neurons_come_first() -> None:
    """A capability from a feature file has none; what is left is how far each neuron is from its mean."""
    sample = pl.DataFrame({"layer": [0, 0, 1], "neuron": [5, 6, 5], "value": [1.0, -3.0, 2.0]})
    examples = pl.DataFrame(schema={"sample_id": pl.String, **sample.schema})
    assert shared_strength(sample, examples, 10)["value"].to_list() == [-3, 2, 1]
