"""The diversity of active neurons against its formula, written out with loops in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nait_assets.errors import RecipeError
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.method import Block
from nait_assets.scoring.methods.neuron_diversity import METHOD, NeuronDiversityOptions, specialisation
from nait_assets.tables import scores_table
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.scoring.given import without_capabilities

LAYERS, N_SAMPLES, WIDTH = (0, 5), 7, 8
RANDOM = np.random.default_rng(0)
POOL = {layer: RANDOM.normal(RANDOM.normal(0, 3, WIDTH), 2, (N_SAMPLES, WIDTH)).astype(np.float32) for layer in LAYERS}
STATISTICS = {layer: NeuronStatistics(POOL[layer].mean(axis=0), POOL[layer].std(axis=0)) for layer in LAYERS}
PLACES = np.array([4, 0, 6, 2, 1, 5, 3])


def blocks(*borders: int) -> list[Block]:
    """The pool in blocks, places in a mixed order as a table's rows may lie."""
    return [(layer, part, POOL[layer][part]) for part in np.split(PLACES, borders) for layer in LAYERS]


def scores(
    pool: list[Block],
    threshold: float = 1.25,
    statistics: dict[int, NeuronStatistics] = STATISTICS,
    targets: tuple[str, ...] = ("math",),
) -> np.ndarray:
    """The method's scores of a pool."""
    options = NeuronDiversityOptions(threshold=threshold)
    names = [f"s{number}" for number in range(N_SAMPLES)]
    given = without_capabilities(names, targets, blocks=pool, statistics=statistics, options=options)
    return METHOD.scores(given).values


def literal_score(sample: int, threshold: float) -> float:
    """The formula of the module's docstring."""
    found = total = 0.0
    for layer in LAYERS:
        z, weights = [], []
        for neuron in range(WIDTH):
            mean = float(STATISTICS[layer].mean[neuron])
            deviation = float(STATISTICS[layer].standard_deviation[neuron])
            z.append((float(POOL[layer][sample, neuron]) - mean) / deviation)
            weights.append(deviation / (deviation + abs(mean)))
        own = math.sqrt(sum(value * value for value in z) / WIDTH)
        found += sum(weight for value, weight in zip(z, weights, strict=True) if value / own > threshold)
        total += sum(weights)
    return found / total


@pytest.mark.parametrize("borders", [(), (3,), (1, 2, 6)], ids=str)
@pytest.mark.parametrize("threshold", [0.5, 1.25])
def test_score_is_the_weighted_share_of_neurons_that_stand_out(borders: tuple[int, ...], threshold: float) -> None:
    """Over all layers, and whatever blocks the table comes in."""
    expected = [[literal_score(sample, threshold)] for sample in range(N_SAMPLES)]
    assert len({value for (value,) in expected}) == N_SAMPLES
    np.testing.assert_allclose(scores(blocks(*borders), threshold), expected, rtol=1e-9)


def test_every_target_has_the_same_scores() -> None:
    """Nothing of a capability is read."""
    found = scores(blocks(3), targets=("code", "math", "all"))
    np.testing.assert_array_equal(found, np.repeat(scores(blocks(3)), 3, axis=1))


def test_distance_from_the_pool_does_not_count() -> None:
    """Long rows lie far from the pool's mean on all neurons: three times as far is the same score."""
    far = [
        (layer, places, STATISTICS[layer].mean + 3 * (block - STATISTICS[layer].mean))
        for layer, places, block in blocks()
    ]
    np.testing.assert_allclose(scores(far), scores(blocks()))


def test_a_neuron_busy_on_every_row_counts_for_little() -> None:
    """What all rows of a pool use says nothing of a row's breadth."""
    weights = specialisation(NeuronStatistics(np.float32([100, -100, 0.01, 0]), np.ones(4, np.float32)))
    np.testing.assert_allclose(weights, [1 / 101, 1 / 101, 1 / 1.01, 1], rtol=1e-6)


def test_neurons_that_never_vary_weigh_nothing() -> None:
    """0/0 must not become NaN, which ranks first; a whole pool of equal rows has scores of nought."""
    still = NeuronStatistics(np.float32([0, 5]), np.float32([0, 1e-40]))
    np.testing.assert_array_equal(specialisation(still), [0, 0])
    pool = [(0, np.arange(N_SAMPLES), np.tile(np.float32([0, 5]), (N_SAMPLES, 1)))]
    np.testing.assert_array_equal(scores(pool, statistics={0: still}), np.zeros((N_SAMPLES, 1)))


def test_a_candidate_equal_to_the_pools_mean_has_no_active_neuron() -> None:
    """It has no scale of its own to stand out by."""
    pool = [(layer, np.arange(N_SAMPLES), np.tile(STATISTICS[layer].mean, (N_SAMPLES, 1))) for layer in LAYERS]
    np.testing.assert_array_equal(scores(pool), np.zeros((N_SAMPLES, 1)))


def test_a_projection_is_refused_with_the_recipe(make_recipe: Callable[..., Recipe]) -> None:
    """Its dimensions are sums of neurons: none of them is specialised."""
    with pytest.raises(RecipeError, match=r"'neuron_diversity' needs every neuron.*`extraction\.projection`"):
        make_recipe(methods=["neuron_diversity"], extraction={"max_tokens": 64, "projection": 16})


@pytest.mark.parametrize("threshold", [-1, 0, "high"])
def test_a_wrong_threshold_is_refused_with_the_recipe(make_recipe: Callable[..., Recipe], threshold: object) -> None:
    """Before the model reads a single row."""
    with pytest.raises(RecipeError, match=r"recipe\.yaml(.|\n)*neuron_diversity\.threshold"):
        make_recipe(methods=["neuron_diversity"], options={"neuron_diversity": {"threshold": threshold}})


def test_a_run_scores_every_candidate_and_a_second_makes_nothing(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """From texts to subsets, without reading in-domain examples."""
    recipe, home = make_recipe(methods=["neuron_diversity"], ratios=[0.3]), quick_home(tmp_path / "home")
    made = run(recipe, home)
    assert {"scoring/neuron_diversity_scores[math]", "selection/neuron_diversity_subset[all|0.30]"} <= made
    assert not any("in_domain_activations" in output for output in made)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        frames = [snapshot.read(scores_table(METHOD.name), target=target).sort("rank") for target in recipe.targets]
    assert len(frames[0]) == 20
    assert frames[0]["score"].is_between(0, 1).all()
    assert frames[0]["score"].n_unique() > 10
    own = ["sample_id", "score", "rank"]
    assert all(frame.select(own).equals(frames[0].select(own)) for frame in frames)
    assert run(recipe, home) == set()
