"""Instruction Mining against its formula, written out with loops in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import DataError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods.instruction_mining import EMBEDDINGS, METHOD, REWARDS, neighbour_distances
from nait_assets.tables import VECTOR, scores_table
from nait_assets_tests.command import metadata_of, quick_home, run
from nait_assets_tests.measurements.test_embeddings import encoder_folder
from nait_assets_tests.measurements.test_rewards import reward_folder
from nait_assets_tests.scoring.given import without_capabilities

__all__ = ["encoder_folder", "reward_folder"]

RANDOM = np.random.default_rng(0)
N = 23
NAMES = [f"s{number:02}" for number in range(N)]
VECTORS = RANDOM.normal(size=(N, 5))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
VECTORS[3:11] = VECTORS[3]  # eight alike: the sixth neighbour of each is at no distance
RATED = RANDOM.normal(size=N).tolist()
LENGTHS = RANDOM.integers(1, 900, size=N).tolist()


def literal_distances(vectors: np.ndarray) -> list[float]:
    """Of each row to every other one, number by number, in ascending order: the sixth."""
    found = []
    for place, row in enumerate(vectors):
        others = [other for number, other in enumerate(vectors) if number != place]
        distances = sorted(
            math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(row, other, strict=True))) for other in others
        )
        found.append(distances[5])
    return found


def inputs_of(n: int, *targets: str) -> ScoringInputs:
    """What the method reads of the first n candidates."""
    embeddings = pl.DataFrame(
        {"sample_id": NAMES[:n], "vector": VECTORS[:n].tolist()}, schema={"sample_id": pl.String, "vector": VECTOR}
    )
    rewards = pl.DataFrame({"sample_id": NAMES[:n], "reward": RATED[:n], "n_response_tokens": LENGTHS[:n]})
    return without_capabilities(NAMES[:n], targets or ("code",), frames={EMBEDDINGS: embeddings, REWARDS: rewards})


@pytest.mark.parametrize("n", [7, N])
def test_a_score_is_the_negative_of_the_expected_loss(n: int) -> None:
    """With the coefficients of the paper's first version, from the smallest pool that has a sixth neighbour."""
    vectors = VECTORS[:n].astype(np.float32).astype(np.float64)  # as they are stored
    expected = []
    for reward, length, distance in zip(RATED[:n], LENGTHS[:n], literal_distances(vectors), strict=True):
        expected.append(-(1.0694 - 0.1498 * reward + 8.257e-5 * length - 0.9350 * distance))
    found = METHOD.scores(inputs_of(n, "code", "math", "all"))
    assert found.reasons == {}
    for column in range(3):
        np.testing.assert_allclose(found.values[:, column], expected, atol=1e-6)


def test_scores_do_not_depend_on_the_other_targets() -> None:
    """The same for each: the method knows nothing of targets."""
    together, alone = (METHOD.scores(inputs_of(N, *targets)).values for targets in (("code", "math", "all"), ("math",)))
    np.testing.assert_array_equal(together[:, 1], alone[:, 0])


@pytest.mark.parametrize("block", [1, 3 * N, 2**24])
def test_blocks_do_not_show_in_distances(block: int) -> None:
    """Not even where a block ends in the middle of rows that are alike."""
    np.testing.assert_allclose(neighbour_distances(VECTORS, block=block), literal_distances(VECTORS), atol=1e-7)


def test_a_pool_without_a_sixth_neighbour_is_refused() -> None:
    """Any number in its place would rank rows of small pools by an accident."""
    with pytest.raises(DataError, match="6 have a reward and an embedding: it needs at least 7"):
        METHOD.scores(inputs_of(6))


def test_a_run_scores_every_candidate_and_a_second_one_makes_nothing(
    make_recipe: Callable[..., Recipe], tmp_path: Path, encoder_folder: Path, reward_folder: Path
) -> None:
    """From texts to subsets, without the recipe's language model and without reading an example."""
    home = quick_home(tmp_path / "home")
    measurements = {
        "rewards": {"source": str(reward_folder), "max_tokens": 16},
        "embeddings": {"source": str(encoder_folder)},
    }
    one = {"math": {"source": "math.jsonl"}}
    recipe = make_recipe(methods=["instruction_mining"], ratios=[0.3], capabilities=one, measurements=measurements)
    made = run(recipe, home)
    assert {"measurements/candidate_embeddings", "measurements/candidate_rewards"} <= made
    assert not any("activations" in output or "extraction/in_domain" in output for output in made)
    cut = metadata_of(home, "measurements/candidate_rewards")["n_truncated"]
    assert isinstance(cut, int)
    assert 0 < cut <= 20
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        found = snapshot.read(scores_table(METHOD.name), target="math").sort("rank")
    assert len(found) == 20
    assert found["score"].is_finite().all()
    assert found["score"].n_unique() > 10
    subset = pl.read_parquet(next(home.rglob("train.parquet")))
    assert set(subset["sample_id"].to_list()) == set(found["sample_id"].head(6).to_list())
    assert run(recipe, home) == set()
