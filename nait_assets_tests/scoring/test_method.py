"""Ranks, and the agreement between recipes and methods."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.scoring.by_example import in_turns
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods import declared
from nait_assets.scoring.methods.nait_standardized import CENTROIDS
from nait_assets.scoring.ranking import ranked, round_robin
from nait_assets_tests.scoring.given import for_capabilities


def test_rank_1_has_the_highest_score() -> None:
    """Higher is better for every method."""
    frame = ranked(["a", "b", "c"], np.array([0.5, 2.0, -1.0]))
    assert frame.select("sample_id", "score", "rank").rows() == [("b", 2.0, 1), ("a", 0.5, 2), ("c", -1.0, 3)]
    assert list(frame.schema.items()) == [
        ("sample_id", pl.String),
        ("score", pl.Float64),
        ("rank", pl.Int64),
        ("turn", pl.Int64),
        ("target_turn", pl.Int64),
        ("whose_turn", pl.String),
        ("best_rank", pl.Int64),
        ("reason", pl.String),
    ]


def test_a_candidate_without_a_score_stands_behind_all_others_with_its_reason() -> None:
    """It must never be chosen, and nobody shall have to wonder where it went."""
    frame = ranked(["a", "b", "c"], np.array([0.5, np.nan, 2.0]), {"b": "no answer", "z": "the model cannot read it"})
    assert frame.select("sample_id", "score", "rank", "reason").rows() == [
        ("c", 2.0, 1, None),
        ("a", 0.5, 2, None),
        ("b", None, None, "no answer"),
        ("z", None, None, "the model cannot read it"),
    ]


def test_examples_take_turns_in_choosing() -> None:
    """Each takes the best candidate that is still there; the maximum over examples would give one of them all."""
    by_example = np.array([[9.0, 5.0], [8.0, 1.0], [7.0, 4.0], [6.0, 3.0]])
    assert round_robin(["a", "b", "c", "d"], by_example).tolist() == [1, 3, 2, 4]
    frame = ranked(["a", "b", "c", "d"], by_example.max(axis=1), by_example=by_example)
    assert frame.select("sample_id", "turn").rows() == [("a", 1), ("b", 3), ("c", 2), ("d", 4)]


def test_capabilities_take_turns_with_their_examples() -> None:
    """Side by side, the examples of the first capability would choose before any other had a turn."""
    order = in_turns(["bbh", "code", "math"], {"math": 2, "code": 1, "bbh": 3})
    assert order == [("bbh", 0), ("code", 0), ("math", 0), ("bbh", 1), ("math", 1), ("bbh", 2)]


def test_turns_are_those_of_a_literal_round_robin() -> None:
    """Against lists that are searched again in every turn; ties go to the smaller sample_id."""
    random = np.random.default_rng(0)
    names = [f"s{number:02}" for number in random.permutation(30)]
    by_example = random.integers(0, 5, (30, 4)).astype(float)
    left, wanted = dict(zip(names, by_example, strict=True)), {}
    for turn in range(30):
        best = min(left, key=lambda name: (-left[name][turn % 4], name))
        wanted[best] = turn + 1
        del left[best]
    assert dict(zip(names, round_robin(names, by_example).tolist(), strict=True)) == wanted


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["ascending", "shuffled"])
def test_ties_go_to_the_smaller_sample_id(order: list[int]) -> None:
    """The order of the input must not decide which of two equal rows is chosen; -0.0 equals 0.0."""
    names, scores = ["a", "b", "c", "d"], [0.0, -0.0, 0.0, 1.0]
    frame = ranked([names[place] for place in order], np.array([scores[place] for place in order]))
    assert frame["sample_id"].to_list() == ["d", "a", "b", "c"]
    assert frame["rank"].to_list() == [1, 2, 3, 4]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(broken: float) -> None:
    """NaN sorts above every number: the broken sample would be chosen first."""
    with pytest.raises(ValueError, match=r"NaN or infinite for sample\(s\) b$"):
        ranked(["a", "b"], np.array([1.0, broken]))


def inputs_for(targets: dict[str, list[str]], width: int) -> ScoringInputs:
    """Twelve candidates in two layers, and for each target the features of its capabilities."""
    random = np.random.default_rng(width)
    layers, ids = (0, 1), [f"s{number:02}" for number in range(12)]
    pool = {layer: random.normal(1, 3, (12, width)).astype(np.float32) for layer in layers}
    blocks = [(layer, part, pool[layer][part]) for part in np.split(np.arange(12), [5, 6]) for layer in layers]
    frames = {}
    for name in ("a", "b", "c", "d", "e"):
        vectors = [random.normal(size=width).astype(np.float32).tolist() for _ in layers]
        frames[name] = pl.DataFrame({"layer": layers, "direction": vectors, "centroid": vectors})
    statistics = {layer: NeuronStatistics(pool[layer].mean(axis=0), pool[layer].std(axis=0)) for layer in layers}
    features = {target: {name: frames[name] for name in names} for target, names in targets.items()}
    given = for_capabilities(ids, "features/nait_directions", features, blocks=blocks, statistics=statistics)
    return replace(given, by_capability=dict.fromkeys(("features/nait_directions", CENTROIDS), frames))


@pytest.mark.parametrize("width", [7, 48, 1536])
@pytest.mark.parametrize("name", ["nait", "nait_standardized", "nait_whitened", "random"])
def test_scores_of_a_target_do_not_depend_on_which_others_are_scored_with_it(name: str, width: int) -> None:
    """To the last bit: a run that makes one target again must not move ranks, and find a change where there is none."""
    targets = {**{name: [name] for name in "abcde"}, "all": list("abcde")}
    method = declared()[name]
    options = method.options() if method.options else None

    def scores(targets: dict[str, list[str]]) -> np.ndarray:
        return method.scores(replace(inputs_for(targets, width), options=options)).values

    together = scores(targets)
    assert together.shape == (12, 6)
    assert together.dtype == np.float64
    for column, (target, names) in zip(together.T, targets.items(), strict=True):
        np.testing.assert_array_equal(scores({target: names}), column[:, None])


def test_what_is_made_once_of_inputs_is_made_anew_of_others() -> None:
    """What explanations share must not outlive what it was made from."""
    inputs = ScoringInputs(["a"], {"math": ["math"]}, seed=1)
    made: list[int] = []

    def centroid(of: ScoringInputs) -> int:
        made.append(of.seed)
        return of.seed

    assert [inputs.once("centroid", lambda: centroid(inputs)) for _ in range(2)] == [1, 1]
    others = replace(inputs, seed=2)
    assert others.once("centroid", lambda: centroid(others)) == 2
    assert made == [1, 2]
