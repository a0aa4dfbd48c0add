"""Explanations: the parts add up to the score, and the text says what was asked for."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import NotFoundError, WarehouseError
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.explanation import explain, shared_strength
from nait_assets.scoring.methods.nait_standardized import contributions, cosines
from nait_assets_tests.small_home import UNREAD, build_home, small_recipe

LAYERS, WIDTH = (2, 7), 5
RANDOM = np.random.default_rng(0)
SAMPLE = {layer: RANDOM.normal(4, 2, WIDTH).astype(np.float32) for layer in LAYERS}
STATISTICS = {
    layer: NeuronStatistics(np.full(WIDTH, 3, np.float32), RANDOM.uniform(1, 2, WIDTH).astype(np.float32))
    for layer in LAYERS
}
CENTROIDS = {layer: RANDOM.normal(size=WIDTH) for layer in LAYERS}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Capabilities code and math, the methods that the small home holds."""
    return small_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def warehouse(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The small home."""
    return build_home(recipe, tmp_path_factory.mktemp("home"))


def test_contributions_of_all_neurons_add_up_to_the_score() -> None:
    """Else the explanation would be of something other than what ranked the sample."""
    shares = contributions(SAMPLE, STATISTICS, CENTROIDS, len(LAYERS) * WIDTH)
    blocks = [(layer, np.arange(1), SAMPLE[layer][None]) for layer in LAYERS]
    score = cosines(blocks, STATISTICS, {layer: CENTROIDS[layer][None] for layer in LAYERS}, 1)[0, 0]
    assert len(shares) == len(LAYERS) * WIDTH
    assert shares["contribution"].sum() == pytest.approx(score, abs=1e-6)


def test_each_contribution_names_its_layer_and_neuron() -> None:
    """The index is what a person looks up in the model: layers have their own numbers, not their places."""
    for row in contributions(SAMPLE, STATISTICS, CENTROIDS, len(LAYERS) * WIDTH).iter_rows(named=True):
        layer, neuron = row["layer"], row["neuron"]
        z = (SAMPLE[layer][neuron] - STATISTICS[layer].mean[neuron]) / STATISTICS[layer].standard_deviation[neuron]
        assert row["standardized_activation"] == pytest.approx(float(z), rel=1e-5)
        assert row["centroid"] == pytest.approx(CENTROIDS[layer][neuron])
        assert np.sign(row["contribution"]) == np.sign(z * CENTROIDS[layer][neuron])


def test_the_largest_contributions_come_first() -> None:
    """Those that speak for the sample; a neuron far below the mean on a target far above it speaks against."""
    everything = contributions(SAMPLE, STATISTICS, CENTROIDS, 100)
    assert everything["contribution"].is_sorted(descending=True)
    assert everything["contribution"][-1] < 0
    assert contributions(SAMPLE, STATISTICS, CENTROIDS, 3).equals(everything.head(3))


def test_a_sample_at_the_pools_mean_has_no_contributions() -> None:
    """Its score is 0, so each neuron's part is 0 and not NaN."""
    mean = {layer: STATISTICS[layer].mean for layer in LAYERS}
    assert contributions(mean, STATISTICS, CENTROIDS, 3)["contribution"].to_list() == [0, 0, 0]


@pytest.mark.parametrize("target", ["math", "all"])
def test_explanation_has_scores_ranks_neurons_and_text(recipe: Recipe, warehouse: Warehouse, target: str) -> None:
    """What the command promises, with the very numbers of the tables."""
    text = explain(recipe, warehouse, "c4", target, n=2)
    with warehouse.tables.snapshot() as snapshot:
        query = "SELECT method, score, rank FROM scoring.scores WHERE sample_id = 'c4' AND target = ?"
        rows = snapshot.connection.execute(query, [target]).fetchall()
    assert len(rows) == 2
    for method, score, rank in rows:
        assert f"  {method:<20} score {score:>12.5f}   rank {rank:>6,} of 10" in text.splitlines()
    assert len(re.findall(r"^  \d+:\d+ ", text, flags=re.MULTILINE)) == 2
    assert "sample c4, row 4 of pool.jsonl, topic code" in text
    assert text.endswith("[user] question 4\n[assistant] answer")


def test_explained_neurons_add_up_to_the_score_in_the_table(recipe: Recipe, warehouse: Warehouse) -> None:
    """From the tables to the text, nothing is lost: two layers of three neurons."""
    text = explain(recipe, warehouse, "c4", "all", n=6)
    shares = [float(line.rpartition("share")[2]) for line in text.splitlines() if "share" in line]
    (score_line,) = [line for line in text.splitlines() if "nait_standardized  " in line]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(float(score_line.split()[2]), abs=6e-5)


def test_a_sample_that_was_not_read_is_said_to_have_no_neurons(recipe: Recipe, warehouse: Warehouse) -> None:
    """It is in the pool and has no score: the reader should learn why."""
    text = explain(recipe, warehouse, UNREAD, "math", n=2)
    assert "nait_standardized: nothing was read of it" in text
    assert "no score: no token" in text


@pytest.mark.parametrize(
    ("sample_id", "found"),
    [("zzz", "'zzz': no candidate has it"), ("c", "'c': 10 samples begin so")],
    ids=["none", "ten"],
)
def test_a_sample_id_must_name_one_candidate(recipe: Recipe, warehouse: Warehouse, sample_id: str, found: str) -> None:
    """A beginning of the id will do if it is unique; the message says where ids are to be found."""
    with pytest.raises(NotFoundError, match=found + r" in .*warehouse\.duckdb\. Ids are in scoring\.scores"):
        explain(recipe, warehouse, sample_id, "math", n=2)


def test_an_unknown_target_is_refused_with_those_there_are(recipe: Recipe, warehouse: Warehouse) -> None:
    """A misspelt capability, with the recipe's path and its targets."""
    with pytest.raises(NotFoundError, match=r"'maths' is not among the recipe's targets, code, math, all") as error:
        explain(recipe, warehouse, "c4", "maths", n=2)
    assert str(recipe.path) in str(error.value)


def test_a_home_without_a_run_is_said_to_be_empty(recipe: Recipe, tmp_path: Path) -> None:
    """The first thing a new user may try."""
    with pytest.raises(WarehouseError, match=r"does not exist.*`nait run`"):
        explain(recipe, Warehouse(home=str(tmp_path / "nothing")), "c4", "math", n=2)


def test_neurons_shared_with_the_examples_come_first_and_opposed_ones_last() -> None:
    """A neuron far above the mean here and far below it there speaks against: its strength alone must not rank it."""
    sample = pl.DataFrame({"layer": [0, 0, 1, 1], "neuron": [5, 6, 5, 7], "value": [9.0, -2.0, 1.0, 8.0]})
    examples = pl.DataFrame(
        {
            "sample_id": ["a", "a", "b", "b", "b"],
            "layer": [0, 1, 0, 1, 1],
            "neuron": [6, 5, 6, 7, 9],
            "value": [-3.0, 4.0, -1.0, -6.0, 50.0],
        }
    )
    # Products with the sums over examples: 8, 4, 0 (in none of them), -48; the 50 is of a neuron that is not its own.
    expected = [(0, 6, -2.0, 2, -2.0), (1, 5, 1.0, 1, 4.0), (0, 5, 9.0, 0, 0.0), (1, 7, 8.0, 1, -6.0)]
    assert shared_strength(sample, examples, 10).rows() == expected
    assert shared_strength(sample, examples, 2).rows() == expected[:2]


def test_without_examples_the_strongest_neurons_come_first() -> None:
    """A capability from a feature file has none; what is left is how far each neuron is from its mean."""
    sample = pl.DataFrame({"layer": [0, 0, 1], "neuron": [5, 6, 5], "value": [1.0, -3.0, 2.0]})
    examples = pl.DataFrame(schema={"sample_id": pl.String, **sample.schema})
    assert shared_strength(sample, examples, 10)["value"].to_list() == [-3, 2, 1]
