"""The paper's score against its formula, written out as two loops."""

import numpy as np
import polars as pl
import pytest

from nait_assets.scoring.method import Block
from nait_assets.scoring.methods import nait
from nait_assets_tests.scoring.given import for_capabilities

LAYERS, N_SAMPLES, WIDTH = (0, 5), 7, 6
RANDOM = np.random.default_rng(0)
POOL = {layer: RANDOM.normal(1, 2, (N_SAMPLES, WIDTH)).astype(np.float32) for layer in LAYERS}
DIRECTIONS = {
    name: {layer: RANDOM.normal(size=WIDTH).astype(np.float32) for layer in LAYERS} for name in ("code", "math")
}
SAMPLE_IDS = [f"s{number}" for number in range(N_SAMPLES)]


def blocks(*borders: int) -> list[Block]:
    """The pool in blocks, places in a mixed order as a table's rows may lie."""
    places = np.array([4, 0, 6, 2, 1, 5, 3])
    return [(layer, part, POOL[layer][part]) for part in np.split(places, borders) for layer in LAYERS]


def score(*capabilities: str, borders: tuple[int, ...] = ()) -> np.ndarray:
    """Scores for one target of these capabilities, through the method's own door."""
    features = {
        name: pl.DataFrame({"layer": LAYERS, "direction": [DIRECTIONS[name][layer].tolist() for layer in LAYERS]})
        for name in capabilities
    }
    scores = nait.METHOD.score(
        for_capabilities(SAMPLE_IDS, nait.DIRECTIONS, {"target": features}, blocks=blocks(*borders))
    )
    assert scores.shape == (N_SAMPLES, 1)
    return scores[:, 0]


def literal(capability: str) -> np.ndarray:
    """Eq. 5, word for word, in float64: the sum over layers and neurons."""
    scores = np.zeros(N_SAMPLES)
    for sample in range(N_SAMPLES):
        for layer in LAYERS:
            for neuron in range(WIDTH):
                scores[sample] += float(POOL[layer][sample, neuron]) * float(DIRECTIONS[capability][layer][neuron])
    return scores


@pytest.mark.parametrize("borders", [(), (3,), (1, 2, 6)], ids=str)
def test_score_is_the_sum_over_layers_of_activation_times_direction(borders: tuple[int, ...]) -> None:
    """In the order of `sample_ids`, wherever blocks begin and however their rows lie."""
    np.testing.assert_allclose(score("math", borders=borders), literal("math"), rtol=1e-5, atol=1e-5)


def test_score_of_the_comprehensive_target_is_the_mean_of_the_capabilities_scores() -> None:
    """The paper leaves the composite open; ours has this plain reading, each capability with the same say."""
    np.testing.assert_allclose(score("code", "math"), (literal("code") + literal("math")) / 2, rtol=1e-5, atol=1e-5)


def test_combined_direction_of_one_capability_is_its_own() -> None:
    """A target of one capability is scored along the very vector in its feature file."""
    combined = nait.combined_directions({"math": DIRECTIONS["math"]})
    assert sorted(combined) == list(LAYERS)
    for layer in LAYERS:
        np.testing.assert_array_equal(combined[layer], DIRECTIONS["math"][layer])


def test_several_targets_are_projected_in_one_pass() -> None:
    """One reading of the pool serves many directions, each its own column."""
    stacked = {layer: np.stack([DIRECTIONS["code"][layer], DIRECTIONS["math"][layer]]) for layer in LAYERS}
    scores = nait.projections(blocks(3), stacked, N_SAMPLES)
    np.testing.assert_allclose(scores, np.stack([literal("code"), literal("math")], axis=1), rtol=1e-5, atol=1e-5)
