"""The benchmark of readings judges by the project's own rules: two of its readings are methods, held against these."""

import numpy as np
import polars as pl
import pytest

from nait_assets.evaluation.foresight import Predictor, controls, foresight
from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.features.centroids import standardized_centroid
from nait_assets.features.directions import activation_change, principal_direction
from nait_assets.report.comparison import retrieval
from nait_assets.scoring.methods.nait import projections
from nait_assets.scoring.methods.nait_standardized import cosines
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.conftest import benchmark

N_POOL, N_EXAMPLES, N_LAYERS, WIDTH = 30, 6, 3, 8
CAPABILITIES = ["code", "math"]


def a_pass() -> object:
    """Activations of a pool and of two capabilities' examples, one of which is cut."""
    random = np.random.default_rng(3)
    n = N_POOL + N_EXAMPLES * len(CAPABILITIES)
    samples = pl.DataFrame(
        {
            "sample_id": [f"{row:03}" for row in range(n)],
            "corpus": ["candidates"] * N_POOL + ["code"] * N_EXAMPLES + ["math"] * N_EXAMPLES,
            "topic": ["pool"] * (N_POOL - 8) + ["code"] * 4 + ["math"] * 4 + [None] * (2 * N_EXAMPLES),
            "n_tokens": random.integers(5, 50, n),
            "is_cut": [False] * (n - 1) + [True],
            "row": np.arange(n, dtype=np.uint32),
        }
    )
    array = (random.standard_normal((6, n, N_LAYERS, WIDTH)) + 1).astype(np.float32)
    begin = (10 * random.standard_normal((N_LAYERS, WIDTH))).astype(np.float32)
    return benchmark("nait_passes").Pass("model", "chat", samples, {"mlp": array}, {"mlp": begin}, {})


def scores_of(reading: dict[str, str]) -> np.ndarray:
    """`(n_capabilities, n_candidates)` of one reading."""
    (found,) = [scores for axes, scores in benchmark("nait_readings").scored(a_pass(), "mlp") if axes == reading]
    return np.asarray(found)


def test_the_reading_of_nait_is_the_method() -> None:
    """The page says what the method does in other words; if the two differed, it would speak of something else."""
    read = a_pass()
    _, last, mean, *_ = read.arrays["mlp"]
    pool, directions = np.arange(N_POOL), {}
    examples = [np.arange(N_POOL, N_POOL + N_EXAMPLES), np.arange(N_POOL + N_EXAMPLES, len(mean) - 1)]
    for layer in range(N_LAYERS):
        first = np.broadcast_to(read.begins["mlp"][layer], last[:, layer].shape)
        change = activation_change("last_minus_first", mean[:, layer], first, last[:, layer])
        directions[layer] = np.stack([principal_direction(change[chosen])[0] for chosen in examples])
    blocks = [(layer, pool, mean[pool, layer]) for layer in range(N_LAYERS)]
    wanted = projections(blocks, directions, N_POOL).T
    np.testing.assert_allclose(scores_of(benchmark("nait_readings").NAIT), wanted, rtol=1e-4, atol=1e-4)


def test_the_reading_of_nait_standardized_is_the_method() -> None:
    """Up to a factor for each capability, which no order depends on."""
    _, _, mean, *_ = a_pass().arrays["mlp"]
    pool, centroids = np.arange(N_POOL), {}
    blocks = [(layer, pool, mean[pool, layer]) for layer in range(N_LAYERS)]
    statistics = by_layer(neuron_statistics(blocks))
    examples = [mean[N_POOL : N_POOL + N_EXAMPLES], mean[N_POOL + N_EXAMPLES :]]
    for layer in range(N_LAYERS):
        vectors = [standardized_centroid(part[:, layer].mean(axis=0), statistics[layer]) for part in examples]
        centroids[layer] = np.stack(vectors)
    wanted = cosines(blocks, statistics, centroids, N_POOL).T
    found = scores_of(benchmark("nait_readings").STANDARDIZED)
    factors = (found * wanted).sum(axis=1) / (wanted**2).sum(axis=1)
    np.testing.assert_allclose(found / factors[:, None], wanted, rtol=1e-3, atol=1e-4)


def test_every_reading_is_there_once() -> None:
    """A reading that is made twice would count twice in the means over choices."""
    readings = [tuple(axes.values()) for axes, _ in benchmark("nait_readings").scored(a_pass(), "mlp")]
    assert len(set(readings)) == len(readings) == 2508


def test_planted_rows_are_found_as_the_report_finds_them() -> None:
    """The page stands beside the README's table of retrieval, so its figures must be of the same kind."""
    judging, read = benchmark("nait_judging"), a_pass()
    candidates = read.samples.filter(corpus="candidates")
    scores = np.random.default_rng(0).standard_normal((1, 2, N_POOL))
    found = judging.judged(scores, judging.Truth.of(candidates, CAPABILITIES, None))
    for place, capability in enumerate(CAPABILITIES):
        frame = ranked(candidates["sample_id"].to_list(), scores[0, place])
        area, precision, _ = retrieval(frame, candidates.filter(topic=capability)["sample_id"])
        assert found["placements"][0, place].mean() == pytest.approx(area)
        assert found["precision"][0, place] == pytest.approx(precision)


def test_one_order_for_all_capabilities_overlaps_wholly() -> None:
    """The paper's overlap is 1 where the capability makes no difference, which is what it may be a sign of."""
    judging, read = benchmark("nait_judging"), a_pass()
    scores = np.tile(np.random.default_rng(0).standard_normal(N_POOL), (1, 2, 1))
    truth = judging.Truth.of(read.samples.filter(corpus="candidates"), CAPABILITIES, None)
    assert judging.judged(scores, truth)["overlap"].tolist() == [[1.0, 1.0]]


def test_training_is_foretold_as_evaluation_says() -> None:
    """Correlations, and partial ones given two lengths, are those of `evaluation/foresight`."""
    judging, random = benchmark("nait_judging"), np.random.default_rng(1)
    falls, values, lengths = (random.standard_normal((n, 24)) for n in (2, 2, 2))
    probes = judging.Probes([], falls, lengths)
    plain, partial = judging.teaching(values[None], probes, np.arange(24))
    named = dict(zip(("answer_tokens", "answer_rank"), lengths, strict=True))
    method = Predictor("method", "method", dict(zip(CAPABILITIES, values, strict=True)), {}, {})
    rows = foresight(
        [method, *controls(CAPABILITIES, named)],
        dict(zip(("one", "two"), falls, strict=True)),
        {"code": ["one"], "math": ["two"]},
    )
    (mean,) = rows.filter(target="", predictor="method").iter_rows(named=True)
    assert plain[0] == pytest.approx(mean["correlation"])
    assert partial[0] == pytest.approx(mean["partial"])
