"""What scores are held against: by literal leave-one-out, and on pools in which it is known what chance is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.resources import Warehouse
from nait_assets.scoring.catalogue import THRESHOLDS, put_thresholds, thresholds_of
from nait_assets.scoring.chance import OF_EXAMPLES, Thresholds, thresholds
from nait_assets.scoring.method import Rows, ScoringInputs
from nait_assets.scoring.methods import method_named
from nait_assets.scoring.methods.nait_neighbours import NaitNeighboursOptions, reference_places
from nait_assets.scoring.stand_ins import CENTROIDS, EXAMPLES, by_centroid

LAYERS, WIDTH, N = (0, 3), 24, 600
TARGETS = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}
N_OWN = {"code": 8, "math": 12}


def vectors(n: int, seed: int, along: int | None = None) -> dict[int, np.ndarray]:
    """By layer `(n, width)` without structure; rows of a kind lie along one of the axes."""
    random = np.random.default_rng(seed)
    rows = {layer: random.normal(2.0, 1.0, (n, WIDTH)).astype(np.float32) for layer in LAYERS}
    if along is not None:
        for matrix in rows.values():
            matrix[:, along] += 6
    return rows


def activations_frame(ids: list[str], rows: dict[int, np.ndarray]) -> pl.DataFrame:
    """As the activation table has a capability's examples."""
    return pl.DataFrame(
        {
            "sample_id": ids * len(LAYERS),
            "layer": [layer for layer in LAYERS for _ in ids],
            "activation": pl.Series([row for layer in LAYERS for row in rows[layer]], dtype=pl.List(pl.Float32)),
        }
    )


def activation_inputs(
    targets: dict[str, list[str]] = TARGETS, n_own: dict[str, int] = N_OWN, with_examples: bool = True, **options: Any
) -> ScoringInputs:
    """A pool without structure in which the last ten rows are of the kind of math."""
    pool = vectors(N, 0)
    for matrix in pool.values():
        matrix[-10:, 1] += 6
    ids = [f"c{number:04}" for number in range(N)]
    blocks = [(layer, np.arange(N), pool[layer]) for layer in LAYERS]
    statistics = by_layer(neuron_statistics(blocks))
    own = {name: vectors(n, 10 + place, place) for place, (name, n) in enumerate(n_own.items())}
    frames = {
        name: activations_frame([f"{name}{number}" for number in range(n_own[name])], rows)
        for name, rows in own.items()
    }
    centroids = {}
    inputs = ScoringInputs(ids, targets, blocks=blocks, statistics=statistics, **options)
    for name, rows in own.items():
        frame = by_centroid().capability(Rows([""] * n_own[name], rows, {}), inputs)
        centroids[name] = frame.with_columns(n_samples=pl.lit(n_own[name]))
    by_capability = {CENTROIDS: centroids, **({EXAMPLES: frames} if with_examples else {})}
    return ScoringInputs(ids, targets, by_capability=by_capability, blocks=blocks, statistics=statistics, **options)


def standardized(inputs: ScoringInputs, name: str) -> np.ndarray:
    """`(n_examples, layers x width)`: a capability's examples in deviations of the pool."""
    frame = inputs.by_capability[EXAMPLES][name]
    parts = []
    for layer in LAYERS:
        rows = np.asarray(frame.filter(layer=layer)["activation"].to_list())
        parts.append(inputs.statistics[layer].standardize(rows))
    return np.concatenate(parts, axis=1)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_each_example_is_scored_against_the_others_of_its_target() -> None:
    """With itself among them it would be found for being itself."""
    inputs = activation_inputs()
    rows = {name: standardized(inputs, name) for name in N_OWN}
    scores: dict[str, list[float]] = {target: [] for target in TARGETS}
    for name, own in rows.items():
        (other,) = set(rows) - {name}
        for place in range(len(own)):
            left = unit(np.delete(own, place, axis=0).mean(axis=0))
            scores[name].append(float(unit(own[place]) @ left))
            both = unit((left + unit(rows[other].mean(axis=0))) / 2)
            scores["all"].append(float(unit(own[place]) @ both))
    found = thresholds(method_named("nait_standardized"), inputs)
    for target, expected in scores.items():
        assert found[target].of_examples == pytest.approx(np.quantile(expected, 1 - OF_EXAMPLES), abs=1e-5)
        assert found[target].n_examples == len(expected)


@pytest.mark.parametrize("method", ["nait_standardized", "nait_whitened"])
def test_chance_is_reached_by_few_rows_of_a_pool_without_structure_and_by_all_of_the_kind(method: str) -> None:
    """5 % by definition of rows that have nothing to do with the examples; the planted ones are not among those."""
    declared = method_named(method)
    assert declared.options is not None
    inputs = declared.prepared(activation_inputs(options=declared.options()))
    found = thresholds(declared, inputs)
    values = declared.scores(inputs).values
    for column, target in enumerate(TARGETS):
        by_chance = found[target].by_chance
        assert by_chance is not None
        assert found[target].n_judged > N
        share = float((values[:-10, column] >= by_chance).mean())
        assert 0.01 < share < 0.12, target
    assert (values[-10:, 1] > (found["math"].by_chance or 0)).all()
    assert (values[-10:, 1] > (found["math"].of_examples or 0)).mean() > 0.5


@pytest.mark.parametrize("n", [1, 2, 4, 20])
def test_a_pool_of_a_few_rows_has_no_chance(n: int) -> None:
    """Of one row nothing can be drawn beside it; of two scores, a twentieth was said to reach the larger one."""
    whole = activation_inputs()
    blocks = [(layer, np.arange(n), rows[:n]) for layer, _, rows in whole.blocks]
    method = method_named("nait_standardized")
    found = thresholds(method, replace(whole, sample_ids=whole.sample_ids[:n], blocks=blocks))
    assert {one.by_chance is not None for one in found.values()} == {n == 20}
    assert all((one.n_judged >= 20) == (n == 20) for one in found.values())


def test_an_example_is_near_the_nearest_others_and_as_near_to_the_pool_as_it_is() -> None:
    """By `nait_neighbours`: its neighbours in the pool are those of the real pool, not the other examples."""
    method = method_named("nait_neighbours")
    options = NaitNeighboursOptions(best=2, hubness=0.5, neighbours=3, reference=100)
    inputs = activation_inputs(options=options)
    own = standardized(inputs, "math")
    whole = np.concatenate([inputs.statistics[layer].standardize(block) for layer, _, block in inputs.blocks], axis=1)[
        reference_places(inputs.sample_ids, 100)
    ]
    units, pool = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (own, whole))
    near = np.sort(units @ units.T - 2 * np.eye(len(own)), axis=1)[:, -2:].mean(axis=1)
    hubs = np.sort(units @ pool.T, axis=1)[:, -3:].mean(axis=1)
    found = thresholds(method, inputs)["math"]
    assert found.of_examples == pytest.approx(np.quantile(near - hubs / 2, 1 - OF_EXAMPLES), abs=1e-5)
    assert (found.by_chance, found.n_judged) == (None, 0), "rows are nearest to rows of their own pool"


def test_a_target_is_held_against_the_same_alone_and_beside_others() -> None:
    """One pass scores all targets; which of them are there must not show."""
    method = method_named("nait_standardized")
    together, alone = (thresholds(method, activation_inputs(t)) for t in (TARGETS, {"math": ["math"]}))
    assert alone["math"] == together["math"]


def test_what_cannot_be_said_is_absent() -> None:
    """Of a feature file there are no examples; of one example there are no others; of a tiny pool no draw."""
    method = method_named("nait_standardized")
    from_files = thresholds(method, activation_inputs(with_examples=False))["math"]
    assert (from_files.of_examples, from_files.n_examples) == (None, 0)
    assert from_files.by_chance is not None
    single = thresholds(method, activation_inputs(n_own={"code": 1, "math": 5}))
    assert [single[target].of_examples is None for target in TARGETS] == [True, False, True]
    assert thresholds(method_named("nait"), activation_inputs()) == {}
    assert thresholds(method_named("length_long"), activation_inputs()) == {}
    empty = Thresholds().frame()
    assert empty.row(0) == (None, 0, None, 0)
    assert empty.schema == THRESHOLDS.written_columns


def test_a_name_that_stands_for_another_method_leaves_no_thresholds(tmp_path: Path) -> None:
    """They would be no part of the scores that are stored under the name now."""
    tables = Warehouse(home=str(tmp_path)).tables
    row = Thresholds(0.5, 9, None, 0).frame()
    for rows, n_stored in (([row], 1), ([row], 1), ([], 0), ([], 0)):
        with tables.transaction() as transaction:
            put_thresholds(transaction, "nearest", "math", rows)
        with tables.snapshot() as snapshot:
            assert len(thresholds_of(snapshot, "nearest", "math")) == n_stored


def test_a_method_of_one_row_a_sample_has_rows_in_the_place_of_examples() -> None:
    """By the largest cosine, as `rds_plus` scores: an example's is that to the nearest other one."""
    random = np.random.default_rng(0)
    pool, own = random.normal(size=(200, 16)), random.normal(size=(9, 16)) + 1.5 * np.eye(16)[0]

    def frame(ids: list[str], rows: np.ndarray) -> pl.DataFrame:
        return pl.DataFrame({"sample_id": ids, "vector": [row.tolist() for row in rows]})

    ids = [f"c{number:03}" for number in range(len(pool))]
    method = method_named("rds_plus")
    outputs, examples = method.reads
    inputs = ScoringInputs(
        ids,
        {"math": ["math"]},
        frames={outputs: frame(ids, pool)},
        by_capability={examples: {"math": frame([f"e{number}" for number in range(len(own))], own)}},
    )
    units = own / np.linalg.norm(own, axis=1, keepdims=True)
    cosines = units @ units.T - 2 * np.eye(len(own))
    found = thresholds(method, inputs)["math"]
    assert found.of_examples == pytest.approx(np.quantile(cosines.max(axis=1), 1 - OF_EXAMPLES))
    assert found.by_chance is None
