"""Inputs of methods: any outputs together, aligned, and a reason for each candidate that one of them refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.extraction.activation_table import activations_of
from nait_assets.recipe import Recipe, rounded_up
from nait_assets.resources import Warehouse
from nait_assets.scoring import assets
from nait_assets.scoring.inputs import gathered
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.method import Method, ScoringInputs
from nait_assets.scoring.methods import method_named
from nait_assets.selection.choice import chosen_rows
from nait_assets_tests.small_home import UNREAD, activations, build_home, small_recipe

POOL, ACTIVATIONS = "corpora/candidate_pool", "extraction/candidate_activations"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Capabilities code and math, `nait_standardized` and `random`."""
    return small_recipe(tmp_path)


@pytest.fixture
def warehouse(recipe: Recipe, tmp_path: Path) -> Warehouse:
    """Ten candidates, one of which the model could not read."""
    return build_home(recipe, tmp_path / "home")


def scores(recipe: Recipe, warehouse: Warehouse, method: str) -> pl.DataFrame:
    """A method's scores for `math`, as the asset makes them."""
    return assets.score(method_named(method), recipe, warehouse, "math", Latest())[0]


def test_a_candidate_that_the_model_refused_has_its_reason_in_place_of_a_score(
    recipe: Recipe, warehouse: Warehouse
) -> None:
    """Of 10 candidates, all are in the scores of every method, whichever of its inputs refused one."""
    found = scores(recipe, warehouse, "nait_standardized")
    assert found.filter(pl.col("reason").is_not_null()).select("sample_id", "score", "reason").rows() == [
        (UNREAD, None, "no token")
    ]
    assert set(found["sample_id"].to_list()) == set(scores(recipe, warehouse, "random")["sample_id"].to_list())


def test_subsets_of_all_methods_have_the_same_size(recipe: Recipe, warehouse: Warehouse) -> None:
    """With N the candidates that an input happened to have, 0.81 would be 8 rows here and 9 there."""
    ratio = "0.81"
    sizes = {method: len(chosen_rows(scores(recipe, warehouse, method), ratio).rows) for method in recipe.methods}
    assert sizes == dict.fromkeys(recipe.methods, rounded_up(ratio, 10))
    assert rounded_up(ratio, 10) != rounded_up(ratio, 9)


def test_activations_are_aligned_with_rows_of_other_outputs(
    recipe: Recipe, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method over texts and activations has the candidates that both have, each with its own numbers."""
    both = Method("random", "Reads activations and texts.", (POOL, ACTIVATIONS), lambda inputs: np.zeros(0))
    monkeypatch.setattr("nait_assets.recipe.schema.method_named", lambda _: both)
    with activations_of(warehouse, "candidates").transaction() as transaction:
        transaction.connection.execute("DELETE FROM extraction.sample WHERE sample_id = 'c2'")
        transaction.connection.execute("DELETE FROM extraction.activation WHERE sample_id = 'c2'")
    with warehouse.tables.transaction() as tables:
        tables.connection.execute("DELETE FROM corpora.candidate_pool WHERE sample_id = 'c4'")
    with gathered(recipe, warehouse, "random", "math") as found:
        inputs = found.inputs
        read = {name: inputs.activations_of(name) for name in inputs.sample_ids}
    assert inputs.sample_ids == ["c0", "c1", "c3", "c5", "c6", "c7", "c8"]
    assert inputs.of(POOL)["sample_id"].to_list() == inputs.sample_ids
    assert set(found.versions) == {POOL, ACTIVATIONS}
    for layer, values in activations().items():
        for name in inputs.sample_ids:
            np.testing.assert_array_equal(read[name][layer], values[int(name[1:])])


def test_activations_of_a_few_candidates_count_along_all(recipe: Recipe, warehouse: Warehouse) -> None:
    """For an explanation a few rows of a large table are read, and not taken for the first ones."""
    with gathered(recipe, warehouse, "nait_standardized", "math", stream_only=["c7", "c3", UNREAD]) as found:
        few = {int(index) for _, indices, _ in found.inputs.blocks for index in indices}
        own = found.inputs.activations_of("c7")
    with gathered(recipe, warehouse, "nait_standardized", "math") as found:
        assert {found.inputs.sample_ids[index] for index in few} == {"c3", "c7"}
        for layer, vector in found.inputs.activations_of("c7").items():
            np.testing.assert_array_equal(own[layer], vector)


def test_an_output_that_is_not_declared_is_refused_with_those_that_are() -> None:
    """Read and not declared, it would be no input of the version, and its changes would not be seen."""
    inputs = ScoringInputs(["a"], {"math": ["math"]}, frames={POOL: pl.DataFrame({"sample_id": ["a"]})})
    with pytest.raises(KeyError, match=r"measurements/candidate_outputs.*declares to read: corpora/candidate_pool"):
        inputs.of("measurements/candidate_outputs")
    with pytest.raises(KeyError, match=r"declares to read: nothing"):
        inputs.of_capabilities("features/nait_directions")
