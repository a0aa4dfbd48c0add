"""How defaults are chosen: halves that share nothing, scores that are the methods' own, and the rule."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.features.centroids import standardized_centroid
from nait_assets.recipe import PROJECT_ROOT
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods import method_named, nait_neighbours, nait_standardized
from nait_assets_tests.conftest import benchmark

LAYERS, WIDTH, N_POOL, N_EXAMPLES = (0, 3), 20, 30, 4
SAMPLE_IDS = [f"s{number:02}" for number in range(N_POOL + 2 * N_EXAMPLES)]
POOL, TARGETS = SAMPLE_IDS[:N_POOL], {"code": SAMPLE_IDS[N_POOL:-N_EXAMPLES], "math": SAMPLE_IDS[-N_EXAMPLES:]}


def activations() -> Any:
    random = np.random.default_rng(0)
    means = {layer: random.normal(size=(len(SAMPLE_IDS), WIDTH)).astype(np.float32) for layer in LAYERS}
    return benchmark("choice_settings").Activations(
        SAMPLE_IDS, {"all": means, "answer": {n: m**2 for n, m in means.items()}}
    )


def rows(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": names})


def neuron_scores(method: str, options: dict[str, Any], means: dict[int, np.ndarray]) -> np.ndarray:
    """The method's scores from all neurons."""
    places, declared = np.arange(N_POOL), method_named(method)
    statistics = by_layer(neuron_statistics((layer, places, matrix[:N_POOL]) for layer, matrix in means.items()))
    centroids, vectors = {}, {}
    for target, names in TARGETS.items():
        own = [SAMPLE_IDS.index(name) for name in names]
        mean = {
            layer: standardized_centroid(matrix[own].mean(axis=0), statistics[layer]) for layer, matrix in means.items()
        }
        centroids[target] = pl.DataFrame(
            {"layer": list(mean), "centroid": [vector.tolist() for vector in mean.values()]}
        )
        triples = [
            (name, layer, means[layer][place].tolist())
            for name, place in zip(names, own, strict=True)
            for layer in LAYERS
        ]
        vectors[target] = pl.DataFrame(triples, schema=["sample_id", "layer", "activation"], orient="row")
    assert declared.options is not None
    inputs = ScoringInputs(
        POOL,
        {target: [target] for target in TARGETS},
        by_capability={nait_standardized.CENTROIDS: centroids, nait_neighbours.EXAMPLES: vectors},
        blocks=[(layer, places, matrix[:N_POOL]) for layer, matrix in means.items()],
        statistics=statistics,
        options=declared.options(**options),
    )
    return declared.scores(inputs).values


@pytest.mark.parametrize("pool", ["all", "answer"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("nait_standardized", {"similarity": "cosine"}),
        ("nait_standardized", {"similarity": "dot"}),
        ("nait_whitened", {"components": 5, "power": 0.5}),
        ("nait_whitened", {"components": 256, "power": 1.0, "similarity": "dot"}),
        ("nait_neighbours", {"best": 2, "hubness": 0.5, "neighbours": 3}),
    ],
)
def test_rotated_coordinates_give_the_scores_of_all_neurons(method: str, options: dict[str, Any], pool: str) -> None:
    """Or the protocol would choose defaults for something else than what is then run."""
    settings, given = benchmark("choice_settings"), activations()
    scorer = settings.Scorer(settings.World(rows(POOL), {name: rows(ids) for name, ids in TARGETS.items()}), given)
    setting = settings.Setting(method, {"pool": pool, "layers": "all", **options})

    assert scorer.sample_ids == POOL
    np.testing.assert_allclose(scorer.scores(setting), neuron_scores(method, options, given.means[pool]), atol=2e-4)


def test_layers_are_those_of_their_share_of_the_depth() -> None:
    """A wrong bound would judge other layers than the table says."""
    settings = benchmark("choice_settings")
    means = {layer: np.zeros((1, 1)) for layer in range(30)}
    given = settings.Activations(["s"], {"all": means})
    assert given.layers("middle half") == list(range(8, 22))
    assert given.layers("all") == list(range(30))


@pytest.fixture(scope="module")
def demo_rows() -> pl.DataFrame:
    finding = benchmark("choice_finding")
    found: pl.DataFrame = finding.read_rows(finding.DEMO, PROJECT_ROOT / "data" / "demo")
    return found


def test_halves_share_neither_rows_nor_kinds(demo_rows: pl.DataFrame) -> None:
    """What is reported must not have been seen by what was chosen."""
    finding = benchmark("choice_finding")
    assert demo_rows["sample_id"].is_unique().all()
    groups = demo_rows.filter(pl.col("family") != finding.BACKGROUND).group_by("group").agg(pl.col("half").n_unique())
    assert set(groups["half"]) == {1}
    queries = {half: finding.queries_of(demo_rows, half) for half in finding.HALVES}
    assert all(queries.values())
    for half, of_half in queries.items():
        own = set(demo_rows.filter(half=half)["sample_id"])
        for query in of_half:
            assert {*query.examples, *query.wanted, *query.left_out} <= own
            assert not {*query.wanted} & {*query.examples, *query.left_out}


def test_the_same_task_at_another_size_is_in_the_same_half() -> None:
    """Shuffled objects, three and seven of them in one half and five in the other, were not something new to find."""
    finding = benchmark("choice_finding")
    sizes = ("three", "five", "seven")
    tasks = [f"{task}_{size}_objects" for task in ("tracking_shuffled_objects", "logical_deduction") for size in sizes]
    subjects = ["high_school_biology", "college_biology", "virology", "anatomy", "multistep_arithmetic_two"]
    for of in "abcdef":
        halves = finding.alternating([*tasks, *subjects], of)
        assert len({halves[task] for task in tasks[:3]}) == len({halves[task] for task in tasks[3:]}) == 1
        assert halves["high_school_biology"] == halves["college_biology"]
        assert set(halves.values()) == set(finding.HALVES)


def test_intervals_of_few_units_are_as_wide_as_their_number_says() -> None:
    """Of three data sets drawn three times, the mean has two thirds of its variance."""
    finding = benchmark("choice_finding")
    values = np.random.default_rng(0).normal(size=(200, 3))
    spreads = [finding._of_resamples(own[:, None], [place], 2000).var() for place, own in enumerate(values)]
    assert np.mean(spreads) == pytest.approx(np.mean(values.var(axis=1, ddof=1) / 3), rel=0.03)
    frame = pl.DataFrame({"setting": "s", "half": "h", "kind": ["k", "k", "l"], "unit": ["a", "b", "c"]})
    of_kinds = finding.summary(frame.with_columns(auc=pl.Series([0.5, 0.7, 0.9]), precision=0.5))
    found = of_kinds["s", "h"].auc
    assert found[0] == pytest.approx((0.6 + 0.9) / 2)
    assert np.isnan(found[1:]).all(), "of one unit nobody knows how others of its kind would be found"
    assert benchmark("choice").shown(found) == "+0.75"


def test_the_probes_of_each_home_are_drawn_by_themselves(demo_rows: pl.DataFrame) -> None:
    """By the same places the errors of two homes would go together, and the interval of their mean be of one home."""
    choice, trial = benchmark("choice"), benchmark("choice_trial")
    home = trial.trial_home(demo_rows, activations(), "one")
    one, other = choice.measured([], pl.DataFrame(), activations(), [home, home]).teaching
    length = one["tokens"].correlation
    assert other["tokens"].correlation[0] == length[0]
    assert not np.array_equal(other["tokens"].correlation[1:], length[1:], equal_nan=True)


def test_rows_that_are_neither_right_nor_wrong_do_not_count() -> None:
    """In a search for other languages than the examples', rows of their own language are no mistake."""
    finding = benchmark("choice_finding")
    query = finding.Query("q", "shifted", "u", False, ("e",), ("b",), ("a",))
    assert finding.judged(query, ["a", "b", "c"], np.array([3.0, 2.0, 1.0])) == (1.0, 1.0)


def evidence(areas: dict[str, float], teaching: dict[str, float]) -> Any:
    choice, taught = benchmark("choice"), benchmark("choice_teaching")
    sought = benchmark("choice_finding").Sought
    arrays = {name: np.array([area, area]) for name, area in areas.items()}
    finding = {(name, half): sought(own, own, {}) for name, own in arrays.items() for half in ("choosing", "reporting")}
    home = {name: taught.Foretold(np.array([value, value]), None, np.zeros(2), {}) for name, value in teaching.items()}
    return choice.Evidence(finding, [home] if home else [])


def test_what_teaches_best_is_chosen_among_what_finds_well() -> None:
    """The rule of the protocol; without homes, what finds best."""
    choice = benchmark("choice")
    areas = {"finds": 0.95, "both": 0.91, "teaches": 0.85}
    values = [choice.Value(name, (name,)) for name in areas]
    assert choice.chosen(values, evidence(areas, {"finds": 0.1, "both": 0.2, "teaches": 0.5})).value == "both"
    assert choice.chosen(values, evidence(areas, {})).value == "finds"


def test_a_combination_knows_what_other_homes_taught(demo_rows: pl.DataFrame) -> None:
    """It is fitted on the one and judged on the other: on a third thing that none has it could know nothing."""
    taught, trial = benchmark("choice_teaching"), benchmark("choice_trial")
    random = np.random.default_rng(1)
    homes, features = [], {}
    for name in ("one", "other"):
        home = trial.trial_home(demo_rows, activations(), name)
        falls = {target: random.normal(size=12) for target in home.targets}
        probed = taught.Probed(home.probed.subsets, {}, falls)
        homes.append(taught.Home(name, probed, home.scorer, home.targets, home.tasks_of, {}))
        knows = {target: fall + 0.1 * random.normal(size=12) for target, fall in falls.items()}
        noise = {target: random.normal(size=12) for target in home.targets}
        features[name] = [
            taught.Predictor(kind, "method", of, {}, {}) for kind, of in (("knows", knows), ("noise", noise))
        ]
    found = taught.combination(homes[1], homes[:1], features)
    for target, values in found.values.items():
        assert np.corrcoef(values, homes[1].probed.falls[target])[0, 1] > 0.8


def test_all_settings_are_distinct_and_of_their_methods() -> None:
    """Two settings of one name would be one row, and a wrong option an error after the reading."""
    settings = benchmark("choice_settings")
    tried = [one for method in settings.FACTORS for one in settings.settings_of(method)]
    assert len({one.name for one in tried}) == len(tried)
    for one in tried:
        one.options()
    for method in settings.FACTORS:
        usual = settings.defaults(method)
        assert any(dict(one.values) == usual for one in tried)
        for factor in usual:
            values = benchmark("choice").values_of(method, factor, tried)
            assert len(values) > 1
            assert usual[factor] in [one.value for one in values], "the default is among what is tried"
