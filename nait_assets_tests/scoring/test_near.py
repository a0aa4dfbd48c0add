"""The nearest in-domain examples by activations, against cosines in float64."""

import numpy as np
import pytest

from nait_assets.scoring.method import ExampleActivations, ScoringInputs
from nait_assets.scoring.near import nearest_by_activations, nearest_others

RANDOM = np.random.default_rng(0)
OWN = {layer: RANDOM.normal(size=(1, 3)).astype(np.float32) for layer in (0, 5)}
EXAMPLES = {
    name: ExampleActivations(
        [f"{name}{number}" for number in range(4)],
        {layer: RANDOM.normal(size=(4, 3)).astype(np.float32) for layer in (0, 5)},
    )
    for name in ("code", "math")
}


def side_by_side(rows: dict[int, np.ndarray]) -> np.ndarray:
    """All layers in one vector."""
    return np.concatenate([rows[layer] for layer in sorted(rows)], axis=1)


def inputs(**examples: ExampleActivations) -> ScoringInputs:
    """One candidate, and two capabilities of which some have examples."""
    targets = {"math": ["math"], "all": ["code", "math"]}
    blocks = [(layer, np.array([0]), rows) for layer, rows in OWN.items()]
    return ScoringInputs(["s0"], targets, blocks=blocks, examples=examples)


def literal(name: str) -> list[tuple[float, str]]:
    """Cosines in float64 with the examples of a capability, the largest first."""
    own = side_by_side(OWN)[0].astype(np.float64)
    rows = side_by_side(dict(EXAMPLES[name].by_layer)).astype(np.float64)
    cosines = [float(row @ own / np.linalg.norm(row) / np.linalg.norm(own)) for row in rows]
    return sorted(zip(cosines, EXAMPLES[name].sample_ids, strict=True), reverse=True)


@pytest.mark.parametrize(("target", "names"), [("math", ["math"]), ("all", ["code", "math"])])
def test_the_examples_with_the_largest_cosines_come_first(target: str, names: list[str]) -> None:
    """Of all capabilities of the target together, each with the capability that it is an example of."""
    near, nearness, usual = nearest_by_activations(inputs(**EXAMPLES), "s0", target, 3, side_by_side, "cosine").values()
    expected = sorted((pair for name in names for pair in literal(name)), reverse=True)
    assert [one.sample_id for one in near] == [name for _, name in expected[:3]]
    assert [one.value for one in near] == pytest.approx([cosine for cosine, _ in expected[:3]], abs=1e-6)
    assert all(one.sample_id.startswith(one.capability) for one in near)
    assert nearness == "cosine"
    mean = np.mean([cosine for cosine, _ in expected])
    assert f"{mean:+.3f} on average to all {len(expected)} examples" in usual


def test_a_capability_from_a_feature_file_has_no_examples() -> None:
    """What is not there is not near: of the other capability all are, and of it alone nothing is said."""
    given = inputs(code=EXAMPLES["code"])
    near, _, usual = nearest_by_activations(given, "s0", "all", 9, side_by_side, "cosine").values()
    assert {one.capability for one in near} == {"code"}
    assert "all 4 examples" in usual
    assert nearest_by_activations(given, "s0", "math", 9, side_by_side, "cosine") == {}


def test_how_near_examples_are_to_each_other_leaves_each_out_of_its_own_neighbours() -> None:
    """An example is nearest to itself, which says nothing; a single one has no other."""
    rows = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert nearest_others(rows) == pytest.approx([0.6, 0.8, 0.8])
    assert len(nearest_others(rows[:1])) == 0
