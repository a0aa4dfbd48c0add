"""The half-whitened score against its formula, by a singular value decomposition in float64."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.scoring.method import Block, ScoringInputs
from nait_assets.scoring.methods import nait_standardized
from nait_assets.scoring.methods.nait_neighbours import reference_places
from nait_assets.scoring.methods.nait_whitened import CENTROIDS, METHOD, NaitWhitenedOptions, contributions, fit
from nait_assets_tests.scoring.given import for_capabilities

LAYERS, N_SAMPLES, WIDTH = (0, 5), 40, 6
RANDOM = np.random.default_rng(0)
SPREAD = np.geomspace(5, 0.2, N_NEURONS := len(LAYERS) * WIDTH)
POOL = RANDOM.normal(size=(N_SAMPLES, N_NEURONS)) * SPREAD @ RANDOM.normal(size=(N_NEURONS, N_NEURONS)) + 3
POOL_OF = {
    layer: POOL[:, part].astype(np.float32)
    for layer, part in zip(LAYERS, np.split(np.arange(N_NEURONS), 2), strict=True)
}
STATISTICS = {layer: NeuronStatistics(values.mean(axis=0), values.std(axis=0)) for layer, values in POOL_OF.items()}
CENTROID_OF = {name: RANDOM.normal(0, scale, N_NEURONS) for name, scale in (("code", 0.1), ("math", 10.0))}
SAMPLE_IDS = [f"s{number:02}" for number in range(N_SAMPLES)]
TARGETS = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}


class Streamed:
    """The pool in blocks whose rows lie in a mixed order; it counts how often it is streamed."""

    def __init__(self, *borders: int):
        self.borders, self.n_streams = borders, 0

    def __iter__(self) -> Iterator[Block]:
        self.n_streams += 1
        places = np.random.default_rng(1).permutation(N_SAMPLES)
        for part in np.split(places, self.borders):
            yield from ((layer, part, POOL_OF[layer][part]) for layer in LAYERS)


def inputs_of(*borders: int, **options: Any) -> ScoringInputs:
    frames = {
        name: pl.DataFrame(
            {"layer": LAYERS, "centroid": [part.astype(np.float32).tolist() for part in np.split(vector, 2)]}
        )
        for name, vector in CENTROID_OF.items()
    }
    rows = {target: {name: frames[name] for name in names} for target, names in TARGETS.items()}
    return for_capabilities(
        SAMPLE_IDS,
        CENTROIDS,
        rows,
        blocks=Streamed(*borders),
        statistics=STATISTICS,
        options=NaitWhitenedOptions(**options),
    )


def literal(k: int, power: float, similarity: str, reference: np.ndarray | None = None) -> np.ndarray:
    """S^-p V z and the cosine, or product, by target; float64."""
    standardized = np.concatenate([STATISTICS[layer].standardize(POOL_OF[layer]) for layer in LAYERS], axis=1).astype(
        float
    )
    rows = standardized if reference is None else standardized[reference]
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    deviations = values[:k] / np.sqrt(len(rows))

    def whitened(vectors: np.ndarray) -> np.ndarray:
        return vectors @ directions[:k].T / deviations**power

    centroids = {name: whitened(vector.astype(np.float32).astype(float)) for name, vector in CENTROID_OF.items()}
    units = {name: vector / np.linalg.norm(vector) for name, vector in centroids.items()}
    scores = []
    for names in TARGETS.values():
        target, candidates = np.mean([units[name] for name in names], axis=0), whitened(standardized)
        norms = np.linalg.norm(candidates, axis=1) * np.linalg.norm(target) if similarity == "cosine" else 1
        scores.append(candidates @ target / norms)
    return np.stack(scores, axis=1)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize(("k", "power"), [(3, 0.5), (3, 0.0), (7, 1.0)])
@pytest.mark.parametrize("borders", [(), (13,), (1, 2, 30)], ids=str)
def test_score_is_that_of_the_formula(borders: tuple[int, ...], k: int, power: float, similarity: str) -> None:
    """Over all layers at once; how the pool is cut into blocks does not show, and it is streamed twice."""
    inputs = inputs_of(*borders, components=k, power=power, similarity=similarity)
    found = METHOD.scores(inputs).values
    np.testing.assert_allclose(found, literal(k, power, similarity), rtol=1e-3, atol=1e-4)
    assert inputs.blocks.n_streams == 2  # type: ignore[attr-defined]


def test_all_components_unscaled_are_the_standardised_score() -> None:
    """An orthonormal basis of everything leaves angles as they are: what is new is the choice of k and the scaling."""
    inputs = inputs_of(components=N_NEURONS, power=0)
    found = METHOD.scores(inputs).values
    for column, name in enumerate(("code", "math")):
        centroid = {layer: part[None] for layer, part in zip(LAYERS, np.split(CENTROID_OF[name], 2), strict=True)}
        expected = nait_standardized.cosines(inputs.blocks, STATISTICS, centroid, N_SAMPLES)[:, 0]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)


def test_a_large_pool_has_the_components_of_some_of_its_rows() -> None:
    """Chosen by hash: memory is bounded by them, and a row more replaces one of them at most."""
    chosen = reference_places(SAMPLE_IDS, 20)
    found = METHOD.scores(inputs_of(13, components=4, reference=20)).values
    np.testing.assert_allclose(found, literal(4, 0.5, "cosine", chosen), rtol=1e-3, atol=1e-4)
    assert np.abs(found - literal(4, 0.5, "cosine")).max() > 1e-2


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_shares_of_the_neurons_add_up_to_the_score(target: str, similarity: str) -> None:
    """An explanation that sums to something else explains another score."""
    inputs = inputs_of(13, components=5, similarity=similarity)
    scores = METHOD.scores(inputs).values[:, list(TARGETS).index(target)]
    fitted = inputs_of(13, components=5, similarity=similarity)
    fitted = replace(fitted, fitted=fit(fitted))
    for sample_id in ("s00", "s27"):
        linear, *_ = contributions(fitted, sample_id, target)
        found = linear.shares
        assert list(linear.layers) == list(LAYERS)
        assert found.sum() == pytest.approx(scores[SAMPLE_IDS.index(sample_id)], rel=1e-4, abs=1e-6)
        assert METHOD.explain is not None
        first = METHOD.explain(fitted, sample_id, target, 3).reasons[0]
        most = found.argmax() if found.sum() >= 0 else found.argmin()
        row, neuron = np.unravel_index(most, found.shape)
        assert first.label == f"{LAYERS[row]}:{neuron}"
        assert f"share {found[row, neuron]:+.5f}" in first.detail


def test_a_pool_that_does_not_vary_scores_zero() -> None:
    """It has no components: 0/0 must not become NaN, which ranks first."""
    still = {layer: NeuronStatistics(np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32)) for layer in LAYERS}
    inputs = replace(inputs_of(), statistics=still)
    np.testing.assert_array_equal(METHOD.scores(inputs).values, np.zeros((N_SAMPLES, 3)))
