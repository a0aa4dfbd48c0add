"""The score by neighbours against its formula, written out with loops in float64."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import RecipeError
from nait_assets.extraction.activation_table import IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.method import Block, Scores, ScoringInputs
from nait_assets.scoring.methods.nait_neighbours import METHOD, NaitNeighboursOptions, reference_places
from nait_assets.tables import scores_table
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.scoring.given import for_capabilities

LAYERS, N_SAMPLES, WIDTH = (0, 5), 9, 6
RANDOM = np.random.default_rng(0)
POOL = {layer: RANDOM.normal(3, 2, (N_SAMPLES, WIDTH)).astype(np.float32) for layer in LAYERS}
STATISTICS = {layer: NeuronStatistics(POOL[layer].mean(axis=0), POOL[layer].std(axis=0)) for layer in LAYERS}
EXAMPLES = {
    name: {layer: RANDOM.normal(mean, 2, (n, WIDTH)).astype(np.float32) for layer in LAYERS}
    for name, mean, n in (("code", 4, 3), ("math", 2, 4))
}
SAMPLE_IDS = [f"s{number}" for number in range(N_SAMPLES)]
PLACES = np.array([4, 0, 6, 2, 8, 1, 5, 3, 7])
SMALL = NaitNeighboursOptions(neighbours=3)


def blocks(*borders: int, layers_apart: bool = False) -> list[Block]:
    """The pool in blocks of mixed order: all layers of a few samples, then of others, or layer after layer."""
    parts = np.split(PLACES, borders)
    if layers_apart:
        return [(layer, part, POOL[layer][part]) for layer in LAYERS for part in parts]
    return [(layer, part, POOL[layer][part]) for part in parts for layer in LAYERS]


def features(*capabilities: str) -> dict[str, pl.DataFrame]:
    """Rows of the in-domain activations."""
    return {
        name: pl.DataFrame(
            [
                {"sample_id": f"{name}{number}", "layer": layer, "activation": vector.tolist()}
                for layer in LAYERS
                for number, vector in enumerate(EXAMPLES[name][layer])
            ],
            schema={"sample_id": pl.String, "layer": pl.Int16, "activation": pl.List(pl.Float32)},
        )
        for name in capabilities
    }


TARGETS = {"code": features("code"), "math": features("math"), "all": features("code", "math")}


def inputs(
    targets: dict[str, dict[str, pl.DataFrame]],
    options: NaitNeighboursOptions = SMALL,
    pool: list[Block] | None = None,
) -> ScoringInputs:
    """What the method reads."""
    given = blocks(4) if pool is None else pool
    return for_capabilities(
        SAMPLE_IDS, IN_DOMAIN_ACTIVATIONS, targets, blocks=given, statistics=STATISTICS, options=options
    )


def score(*arguments: Any) -> Scores:
    """The method's scores of `inputs`."""
    return METHOD.scores(inputs(*arguments))


def z(rows: dict[int, np.ndarray], number: int) -> list[float]:
    """A row in standard deviations of the pool, all layers one after the other."""
    return [
        (float(rows[layer][number, neuron]) - float(STATISTICS[layer].mean[neuron]))
        / float(STATISTICS[layer].standard_deviation[neuron])
        for layer in LAYERS
        for neuron in range(WIDTH)
    ]


def cosine(left: list[float], right: list[float]) -> float:
    """Neuron by neuron."""
    product = sum(one * other for one, other in zip(left, right, strict=True))
    return product / math.sqrt(sum(one * one for one in left)) / math.sqrt(sum(other * other for other in right))


def literal_hubness(sample: int, neighbours: int, among: list[int]) -> float:
    """Mean cosine to the nearest other rows of the pool."""
    others = sorted((cosine(z(POOL, sample), z(POOL, other)) for other in among if other != sample), reverse=True)
    return sum(others[:neighbours]) / len(others[:neighbours])


def literal_score(sample: int, capability: str, options: NaitNeighboursOptions, among: list[int]) -> float:
    """The formula of the module's docstring."""
    rows = EXAMPLES[capability]
    found = sorted((cosine(z(POOL, sample), z(rows, number)) for number in range(len(rows[0]))), reverse=True)
    best = found[: options.best]
    return sum(best) / len(best) - options.hubness * literal_hubness(sample, options.neighbours, among)


@pytest.mark.parametrize("borders", [(), (3,), (1, 2, 6)], ids=str)
@pytest.mark.parametrize("layers_apart", [False, True], ids=["samples first", "layers first"])
def test_score_is_the_best_matches_less_the_hubness(borders: tuple[int, ...], layers_apart: bool) -> None:
    """One cosine over the whole network, and in whatever order the table's rows lie."""
    found = score(TARGETS, SMALL, blocks(*borders, layers_apart=layers_apart)).values
    expected = [
        [literal_score(sample, name, SMALL, list(range(N_SAMPLES))) for name in ("code", "math")]
        for sample in range(N_SAMPLES)
    ]
    np.testing.assert_allclose(found[:, :2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        NaitNeighboursOptions(best=1, neighbours=3),
        NaitNeighboursOptions(best=4, hubness=1, neighbours=1),
        NaitNeighboursOptions(best=9, neighbours=50),
        NaitNeighboursOptions(hubness=0, neighbours=3),
    ],
    ids=str,
)
def test_options_are_the_constants_of_the_formula(options: NaitNeighboursOptions) -> None:
    """More matches or neighbours than there are means all that there are: the pool's size must not fail a recipe."""
    expected = [literal_score(sample, "math", options, list(range(N_SAMPLES))) for sample in range(N_SAMPLES)]
    found = score({"math": TARGETS["math"]}, options).values[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_large_pool_seeks_neighbours_among_the_reference() -> None:
    """Candidates outside of it have all its rows, those in it all but themselves."""
    options = NaitNeighboursOptions(neighbours=2, reference=4)
    among = reference_places(SAMPLE_IDS, 4).tolist()
    expected = [literal_score(sample, "math", options, among) for sample in range(N_SAMPLES)]
    found = score({"math": TARGETS["math"]}, options).values[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - score({"math": TARGETS["math"]}).values[:, 0]).max() > 0.01


def test_a_row_more_replaces_one_of_the_reference_at_most() -> None:
    """A pool that grows by a row keeps its scores nearly."""
    before = {SAMPLE_IDS[place] for place in reference_places(SAMPLE_IDS, 4)}
    for new in ("t0", "t1", "t2", "t3"):
        names = sorted([*SAMPLE_IDS, new])
        assert len(before & {names[place] for place in reference_places(names, 4)}) >= 3


def test_the_comprehensive_target_takes_the_best_of_the_capabilities() -> None:
    """A row serves the capability that it is nearest to; a mean would prefer rows that are half near to all."""
    found = score(TARGETS).values
    np.testing.assert_array_equal(found[:, 2], found[:, :2].max(axis=1))
    assert len(set(found[:, :2].argmax(axis=1))) == 2


def test_scores_do_not_depend_on_the_other_targets() -> None:
    """To the bit: a capability more leaves the others' scores and all that rests on them current."""
    together, alone = score(TARGETS), score({"math": TARGETS["math"]})
    np.testing.assert_array_equal(together.values[:, 1], alone.values[:, 0])
    np.testing.assert_array_equal(together.by_example["math"].matrix(), alone.by_example["math"].matrix())


def test_by_example_holds_every_examples_corrected_cosine() -> None:
    """From it come the turns; the capabilities of `all` take theirs one by one."""
    found = {name: one.matrix() for name, one in score(TARGETS).by_example.items()}
    hubness = [literal_hubness(sample, 3, list(range(N_SAMPLES))) for sample in range(N_SAMPLES)]
    expected = [
        [cosine(z(POOL, sample), z(EXAMPLES["math"], number)) - hubness[sample] / 2 for number in range(4)]
        for sample in range(N_SAMPLES)
    ]
    np.testing.assert_allclose(found["math"], expected, rtol=1e-4, atol=1e-5)
    math, code = found["math"].T, found["code"].T
    turns = [code[0], math[0], code[1], math[1], code[2], math[2], math[3]]
    np.testing.assert_array_equal(found["all"], np.stack(turns, axis=1))


def test_a_candidate_equal_to_the_pools_mean_scores_finitely() -> None:
    """It has no direction: 0/0 must not become NaN, which would rank first."""
    pool = [(layer, np.arange(N_SAMPLES), np.vstack([STATISTICS[layer].mean, POOL[layer][1:]])) for layer in LAYERS]
    found = score({"math": TARGETS["math"]}, SMALL, pool)
    assert np.isfinite(found.values).all()
    np.testing.assert_array_equal(found.by_example["math"].matrix()[0], np.zeros(4))


def test_a_pool_of_one_row_has_no_hubs() -> None:
    """Nothing to be near to: the correction is nought, not a division by it."""
    one = dataclasses.replace(
        inputs({"math": TARGETS["math"]}),
        sample_ids=["s0"],
        blocks=[(layer, np.arange(1), POOL[layer][:1]) for layer in LAYERS],
    )
    best = sorted((cosine(z(POOL, 0), z(EXAMPLES["math"], number)) for number in range(4)), reverse=True)[:2]
    np.testing.assert_allclose(METHOD.scores(one).values, [[sum(best) / 2]], rtol=1e-4)


def test_products_of_finished_candidates_are_dropped() -> None:
    """A pool of a million rows must not hold a million times two thousand products: those in flight are enough."""
    from nait_assets.scoring.methods import nait_neighbours

    made: list[nait_neighbours.NearestMean] = []

    class Watched(nait_neighbours.NearestMean):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nait_neighbours, "NearestMean", Watched)
        score({"math": TARGETS["math"]}, SMALL, blocks(3, 6))
        score({"math": TARGETS["math"]}, SMALL, blocks(3, 6, layers_apart=True))
    assert [len(nearest._products._sums) for nearest in made] == [3, N_SAMPLES]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"best": 0}, "nait_neighbours.best"),
        ({"hubness": 1.5}, "nait_neighbours.hubness"),
        ({"neighbours": 50, "reference": 50}, "fewer than the 50 rows of `reference`"),
        ({"neighbors": 5}, "did you mean 'neighbours'?"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_with_the_recipe(
    make_recipe: Callable[..., Recipe], section: dict[str, float], message: str
) -> None:
    """Before the model reads a single row."""
    with pytest.raises(RecipeError, match=r"recipe\.yaml") as caught:
        make_recipe(methods=["nait_neighbours"], options={"nait_neighbours": section})
    assert message in str(caught.value)


@pytest.fixture(params=[None, 16], ids=["neurons", "projection"])
def made(
    request: pytest.FixtureRequest, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> tuple[Recipe, Path, set[str]]:
    """A recipe with the method, its home, and what a run of it made."""
    extraction = {"max_tokens": 64, **({"projection": request.param} if request.param else {})}
    recipe = make_recipe(methods=["nait_neighbours"], ratios=[0.3], extraction=extraction)
    home = quick_home(tmp_path / "home")
    return recipe, home, run(recipe, home)


def test_a_run_scores_every_candidate_and_a_second_makes_nothing(made: tuple[Recipe, Path, set[str]]) -> None:
    """From texts to subsets, of all neurons and of a projection."""
    recipe, home, first = made
    assert {"scoring/nait_neighbours_scores[math]", "selection/nait_neighbours_subset[all|0.30]"} <= first
    assert "features/neuron_statistics" in first
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        frames = {target: snapshot.read(scores_table(METHOD.name), target=target) for target in recipe.targets}
    for frame in frames.values():
        assert len(frame) == 20
        assert sorted(frame["turn"].to_list()) == list(range(1, 21))
        assert frame["score"].is_between(-1.5, 1.5).all()
    tops = {target: frame["sample_id"].to_list()[:5] for target, frame in frames.items()}
    assert tops["code"] != tops["math"]
    assert run(recipe, home) == set()
