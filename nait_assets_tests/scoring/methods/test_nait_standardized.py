"""The standardised score against its formula, written out in float64."""

import math

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.scoring.method import Block
from nait_assets.scoring.methods import nait_standardized
from nait_assets.scoring.methods.nait_standardized import combined_centroids, contributions, cosines
from nait_assets_tests.scoring.given import for_capabilities

LAYERS, N_SAMPLES, WIDTH = (0, 5), 7, 6
RANDOM = np.random.default_rng(0)
POOL = {layer: RANDOM.normal(3, 2, (N_SAMPLES, WIDTH)).astype(np.float32) for layer in LAYERS}
STATISTICS = {layer: NeuronStatistics(POOL[layer].mean(axis=0), POOL[layer].std(axis=0)) for layer in LAYERS}
CENTROIDS = {
    name: {layer: RANDOM.normal(0, scale, WIDTH).astype(np.float32) for layer in LAYERS}
    for name, scale in (("code", 0.1), ("math", 10.0))
}
SAMPLE_IDS = [f"s{number}" for number in range(N_SAMPLES)]


def blocks(*borders: int) -> list[Block]:
    """The pool in blocks, places in a mixed order as a table's rows may lie."""
    places = np.array([4, 0, 6, 2, 1, 5, 3])
    return [(layer, part, POOL[layer][part]) for part in np.split(places, borders) for layer in LAYERS]


def features(*capabilities: str) -> dict[str, pl.DataFrame]:
    """Rows of `features.standardized_centroids`."""
    return {
        name: pl.DataFrame({"layer": LAYERS, "centroid": [CENTROIDS[name][layer].tolist() for layer in LAYERS]})
        for name in capabilities
    }


def literal_cosine(sample: int, centroid: dict[int, np.ndarray]) -> float:
    """Z . c / (|z| |c|), neuron by neuron."""
    product = squares_sample = squares_centroid = 0.0
    for layer in LAYERS:
        for neuron in range(WIDTH):
            mean = float(STATISTICS[layer].mean[neuron])
            deviation = float(STATISTICS[layer].standard_deviation[neuron])
            z = (float(POOL[layer][sample, neuron]) - mean) / deviation
            c = float(centroid[layer][neuron])
            product, squares_sample, squares_centroid = (
                product + z * c,
                squares_sample + z * z,
                squares_centroid + c * c,
            )
    return product / math.sqrt(squares_sample) / math.sqrt(squares_centroid)


@pytest.mark.parametrize("borders", [(), (3,), (1, 2, 6)], ids=str)
def test_score_is_the_cosine_over_all_layers_and_neurons(borders: tuple[int, ...]) -> None:
    """One cosine over the whole network, not a mean of cosines by layer; blocks do not show."""
    rows = {"math": features("math")}
    inputs = for_capabilities(
        SAMPLE_IDS, nait_standardized.CENTROIDS, rows, blocks=blocks(*borders), statistics=STATISTICS
    )
    expected = [[literal_cosine(sample, CENTROIDS["math"])] for sample in range(N_SAMPLES)]
    np.testing.assert_allclose(nait_standardized.METHOD.score(inputs), expected, rtol=1e-5, atol=1e-6)


def test_several_targets_are_scored_in_one_pass() -> None:
    """Each column has its own centroid's norm."""
    stacked = {layer: np.stack([CENTROIDS["code"][layer], CENTROIDS["math"][layer]]) for layer in LAYERS}
    scores = cosines(blocks(3), STATISTICS, stacked, N_SAMPLES)
    expected = [[literal_cosine(sample, CENTROIDS[name]) for name in ("code", "math")] for sample in range(N_SAMPLES)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_cosines_stay_within_one() -> None:
    """A candidate that is the centroid itself: in float32 the quotient steps over 1 by rounding."""
    worst = 0.0
    for seed in range(50):
        vectors = np.random.default_rng(seed).normal(size=(8, 31)).astype(np.float32)
        plain = {0: NeuronStatistics(np.zeros(31, np.float32), np.ones(31, np.float32))}
        scores = cosines([(0, np.arange(8), vectors)], plain, {0: np.vstack([vectors, -vectors])}, 8)
        np.testing.assert_allclose(np.diag(scores[:, :8]), 1, atol=1e-6)
        worst = max(worst, float(np.abs(scores).max()))
    assert worst <= 1


def test_a_candidate_equal_to_the_pools_mean_scores_zero() -> None:
    """It has no direction: 0/0 must not become NaN, which ranks first."""
    at_mean = [(layer, np.arange(1), STATISTICS[layer].mean[None]) for layer in LAYERS]
    assert cosines(at_mean, STATISTICS, {layer: CENTROIDS["math"][layer][None] for layer in LAYERS}, 1) == [[0]]


def test_a_centroid_of_zeros_gives_every_candidate_zero() -> None:
    """A capability that is the pool's mean distinguishes nobody."""
    zeros = {layer: np.zeros((1, WIDTH)) for layer in LAYERS}
    np.testing.assert_array_equal(cosines(blocks(), STATISTICS, zeros, N_SAMPLES), np.zeros((N_SAMPLES, 1)))


def test_length_of_a_candidates_deviation_does_not_matter() -> None:
    """Twice as far from the pool in the same direction is the same score: what removes the effect of length."""
    centroid = {layer: CENTROIDS["math"][layer][None] for layer in LAYERS}
    doubled = [(layer, places, 2 * block - STATISTICS[layer].mean) for layer, places, block in blocks()]
    np.testing.assert_allclose(
        cosines(doubled, STATISTICS, centroid, N_SAMPLES), cosines(blocks(), STATISTICS, centroid, N_SAMPLES), atol=1e-6
    )


def test_capabilities_are_combined_at_unit_norm() -> None:
    """Math lies a hundred times farther from the pool than code, and must not outweigh it in the target `all`."""
    units = []
    for name in ("code", "math"):
        norm = math.sqrt(sum(float((CENTROIDS[name][layer].astype(np.float64) ** 2).sum()) for layer in LAYERS))
        units.append({layer: CENTROIDS[name][layer] / norm for layer in LAYERS})
    combined = combined_centroids(features("code", "math"))
    for layer in LAYERS:
        np.testing.assert_allclose(combined[layer], (units[0][layer] + units[1][layer]) / 2, rtol=1e-5)
    alone = combined_centroids(features("math"))
    assert math.sqrt(sum(float((vector**2).sum()) for vector in alone.values())) == pytest.approx(1)


def test_a_centroid_of_zeros_adds_nothing_to_the_combination() -> None:
    """It has no unit vector: 0/0 must not become NaN for every other capability."""
    zeros = features("code")["code"].with_columns(centroid=pl.Series([[0.0] * WIDTH] * len(LAYERS)))
    combined = combined_centroids({"zeros": zeros, **features("math")})
    alone = combined_centroids(features("math"))
    for layer in LAYERS:
        np.testing.assert_allclose(combined[layer], alone[layer] / 2)


def test_a_dot_product_is_with_a_centroid_of_unit_norm() -> None:
    """So that the target `all` weighs its capabilities alike; contributions add up to it as to a cosine."""
    options = nait_standardized.NaitStandardizedOptions(similarity="dot")
    rows = {"math": features("math"), "all": features("code", "math")}
    inputs = for_capabilities(
        SAMPLE_IDS, nait_standardized.CENTROIDS, rows, blocks=blocks(3), statistics=STATISTICS, options=options
    )
    z = {
        layer: (POOL[layer].astype(float) - STATISTICS[layer].mean) / STATISTICS[layer].standard_deviation
        for layer in LAYERS
    }
    dots = {}
    for name, vectors in CENTROIDS.items():
        norm = math.sqrt(sum(float((vectors[layer].astype(float) ** 2).sum()) for layer in LAYERS))
        dots[name] = sum(z[layer] @ vectors[layer].astype(float) for layer in LAYERS) / norm
    expected = np.stack([dots["math"], (dots["code"] + dots["math"]) / 2], axis=1)
    np.testing.assert_allclose(nait_standardized.METHOD.score(inputs), expected, rtol=1e-4, atol=1e-5)
    activations = {layer: POOL[layer][2] for layer in LAYERS}
    centroids = combined_centroids(features("math"))
    found = contributions(activations, STATISTICS, centroids, "dot")
    assert found.shares.sum() == pytest.approx(expected[2, 0], rel=1e-4)
