"""RDS+: cosines against loops, and how the examples of several capabilities take turns."""

import math

import numpy as np
import polars as pl
import pytest

from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods import rds_plus
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.scoring.given import for_capabilities

RANDOM = np.random.default_rng(0)
CANDIDATES = RANDOM.normal(size=(9, 5)).astype(np.float32)
EXAMPLES = {
    "code": RANDOM.normal(size=(2, 5)).astype(np.float32),
    "math": RANDOM.normal(size=(3, 5)).astype(np.float32),
}
NAMES = [f"s{place}" for place in range(len(CANDIDATES))]


def vectors(rows: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": [f"s{place}" for place in range(len(rows))], "vector": rows.tolist()})


def inputs(targets: dict[str, list[str]], candidates: np.ndarray = CANDIDATES) -> ScoringInputs:
    features = {target: {name: vectors(EXAMPLES[name]) for name in names} for target, names in targets.items()}
    return for_capabilities(NAMES, rds_plus.EXAMPLES, features, frames={rds_plus.OUTPUTS: vectors(candidates)})


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """By loops, in float64."""
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))


ALL = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}


def test_score_is_the_largest_cosine_over_the_examples_of_the_target() -> None:
    """Against the formula, number by number."""
    found = rds_plus.METHOD.scores(inputs(ALL))

    for column, (target, names) in enumerate(ALL.items()):
        examples = [row for name in names for row in EXAMPLES[name]]
        for place, candidate in enumerate(CANDIDATES):
            cosines = [cosine(candidate, example) for example in examples]
            assert found.values[place, column] == pytest.approx(max(cosines), abs=1e-12)
            assert sorted(found.by_example[target].matrix()[place]) == pytest.approx(sorted(cosines), abs=1e-12)


def test_length_of_a_vector_does_not_count() -> None:
    """Later layers' norms grow with all sorts of things."""
    scaled = CANDIDATES * np.arange(1, 10, dtype=np.float32)[:, None]

    np.testing.assert_allclose(
        rds_plus.METHOD.scores(inputs(ALL, scaled)).values, rds_plus.METHOD.scores(inputs(ALL)).values, rtol=1e-6
    )


def test_a_vector_of_zeros_is_like_nothing() -> None:
    """Instead of NaN."""
    found = rds_plus.METHOD.scores(inputs(ALL, np.zeros_like(CANDIDATES)))

    assert (found.values == 0).all()


def test_scores_and_turns_of_a_target_do_not_depend_on_the_others() -> None:
    """To the last bit: one run of all targets and one of each have to agree."""
    along = rds_plus.METHOD.scores(inputs(ALL))

    for column, (target, names) in enumerate(ALL.items()):
        alone = rds_plus.METHOD.scores(inputs({target: names}))
        np.testing.assert_array_equal(alone.values[:, 0], along.values[:, column])
        np.testing.assert_array_equal(alone.by_example[target].matrix(), along.by_example[target].matrix())


def test_capabilities_take_turns_one_example_each() -> None:
    """With the examples one capability after the other, a small subset would have rows of the first alone."""
    found = rds_plus.METHOD.scores(inputs(ALL))

    order = [("code", 0), ("math", 0), ("code", 1), ("math", 1), ("math", 2)]
    for place, (name, row) in enumerate(order):
        wanted = [cosine(candidate, EXAMPLES[name][row]) for candidate in CANDIDATES]
        np.testing.assert_allclose(found.by_example["all"].matrix()[:, place], wanted, atol=1e-12)


def test_turns_are_a_round_robin_over_the_examples() -> None:
    """As published: each example takes its best candidate still there."""
    found = rds_plus.METHOD.scores(inputs(ALL))
    frame = ranked(NAMES, found.values[:, 1], {}, found.by_example["math"]).sort("turn")

    left, wanted = dict(zip(NAMES, CANDIDATES, strict=True)), []
    for turn in range(len(NAMES)):
        example = EXAMPLES["math"][turn % 3]
        best = max(left, key=lambda name: cosine(left[name], example))
        wanted.append(best)
        del left[best]
    assert frame["sample_id"].to_list() == wanted
