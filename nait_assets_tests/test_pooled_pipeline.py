"""All rooms together with two poolings: every method reads its own, and what is made of each has its own place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from nait_assets.extraction import activation_table
from nait_assets.features.directions import principal_direction
from nait_assets.recipe import Pooling, Recipe, pooled
from nait_assets.resources import Warehouse
from nait_assets.tables import NAIT_DIRECTIONS, NEURON_STATISTICS, scores_table
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import conversation, write_jsonl

MakeRecipe = Callable[..., Recipe]
EXTRACTION = {"max_tokens": 64, "pool": ["all", "answer"]}
OPTIONS = {
    "of_answers": {"method": "nait_standardized", "pool": "answer"},
    "direction_of_answers": {"method": "nait", "pool": "answer"},
    "near_answers": {"method": "nait_neighbours", "pool": "answer", "hubness": 0, "best": 1},
    "whitened": {"method": "nait_whitened", "pool": "answer", "components": 4},
}
POOLING_OF: dict[str, Pooling] = {"nait_standardized": "all", "of_answers": "answer"}
LAYERS = (0, 1)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the home of the module is kept once it is made."""
    return {"home": tmp_path_factory.mktemp("pooled") / "home"}


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    """One method by both poolings, and others by the answers."""
    return make_recipe(extraction=EXTRACTION, methods=["nait_standardized", *OPTIONS], options=OPTIONS, ratios=[0.3])


@pytest.fixture
def home(homes: dict[str, Path], recipe: Recipe, tmp_path: Path) -> Path:
    """A home in which everything of the recipe has been made: a copy, which the test may break."""
    if not homes["home"].exists():
        run(recipe, quick_home(homes["home"]))
    return Path(shutil.copytree(homes["home"], tmp_path / "home"))


def vectors(home: Path, corpus: str, column: str) -> tuple[list[str], dict[int, np.ndarray]]:
    """Sample ids of a corpus, and a column of its activations by layer, float64."""
    with activation_table.activations_of(Warehouse(home=str(home)), corpus).snapshot() as snapshot:
        names = activation_table.samples(snapshot)["sample_id"].to_list()
        return names, {layer: activation_table.matrix(snapshot, layer, column).astype(float) for layer in LAYERS}


def standardized(home: Path, corpus: str, pooling: Pooling) -> np.ndarray:
    """`(n_samples, n_neurons)` activations of a corpus in deviations of the pool, both of one pooling."""
    _, pool = vectors(home, "candidates", pooled("activation", pooling))
    _, own = vectors(home, corpus, pooled("activation", pooling))
    parts = [(own[layer] - pool[layer].mean(axis=0)) / pool[layer].std(axis=0) for layer in LAYERS]
    return np.concatenate(parts, axis=1)


def scores(home: Path, method: str, target: str) -> dict[str, float]:
    """Scores by sample id."""
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        return dict(tables.read(scores_table(method), target=target).select("sample_id", "score").iter_rows())


@pytest.mark.parametrize(("method", "pooling"), POOLING_OF.items())
def test_candidate_statistics_and_capability_are_of_the_pooling_that_the_options_name(
    home: Path, method: str, pooling: Pooling
) -> None:
    """A candidate's answer against the mean of whole examples would be a cosine of two different things."""
    names, _ = vectors(home, "candidates", "activation")
    candidates, centroid = standardized(home, "candidates", pooling), standardized(home, "math", pooling).mean(axis=0)
    expected = candidates @ centroid / np.linalg.norm(candidates, axis=1) / np.linalg.norm(centroid)
    found = scores(home, method, "math")
    np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-3, atol=1e-4)


def test_nearest_examples_are_of_the_answers_too(home: Path) -> None:
    """A method that reads the examples one by one gets the same column of theirs."""
    names, _ = vectors(home, "candidates", "activation")
    candidates, examples = standardized(home, "candidates", "answer"), standardized(home, "math", "answer")
    products = candidates @ examples.T / np.linalg.norm(candidates, axis=1)[:, None] / np.linalg.norm(examples, axis=1)
    found = scores(home, "near_answers", "math")
    np.testing.assert_allclose([found[name] for name in names], products.max(axis=1), rtol=1e-3, atol=1e-4)


def test_a_direction_of_answers_goes_from_their_first_token_to_their_last(home: Path) -> None:
    """And is summed with the answers' means."""
    names, means = vectors(home, "candidates", "answer_activation")
    first, last = (vectors(home, "math", f"answer_{end}_token_activation")[1] for end in ("first", "last"))
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        frame = tables.read(NAIT_DIRECTIONS.of_pooling("answer"), capability="math")
        assert not tables.has_table(NAIT_DIRECTIONS.name), "no method reads it, so it is not made"
    expected = np.zeros(len(names))
    for layer, direction in frame.select("layer", "direction").iter_rows():
        np.testing.assert_allclose(direction, principal_direction(last[layer] - first[layer])[0], atol=1e-4)
        expected += means[layer] @ np.asarray(direction)
    found = scores(home, "direction_of_answers", "math")
    np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-3, atol=1e-4)


def test_all_of_it_is_current_audited_and_explained(home: Path, recipe: Recipe) -> None:
    """What is made of a further pooling is an output like any other."""
    named = ("--recipe", recipe.path, "--home", home)
    assert nait("status", *named).code == 0
    audited = nait("audit", *named)
    assert audited.code == 0, audited.out
    for method in recipe.methods:
        sample_id = max(scores(home, method, "math").items(), key=lambda pair: pair[1])[0]
        answer = nait("explain", sample_id, "--target", "math", "--method", method, *named)
        assert answer.code == 0, answer.err
        assert f"\n{method}: " in answer.out
        if method == "whitened":
            assert "neurons that weigh most in its score's direction" in answer.out
    assert {name for name in Warehouse(home=str(home)).records() if name.startswith("features/")} == {
        "features/neuron_statistics",
        "features/answer_neuron_statistics",
        *(f"features/standardized_centroids[{capability}]" for capability in ("code", "math")),
        *(f"features/answer_standardized_centroids[{capability}]" for capability in ("code", "math")),
        *(f"features/answer_nait_directions[{capability}]" for capability in ("code", "math")),
    }


def test_a_feature_file_is_of_its_pooling(home: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A folder has a file for each; the one of the answers is refused for whole conversations."""
    folder = home / "features" / "math"
    found = sorted(path.name for path in folder.iterdir())
    assert found == [
        "answer_nait_directions.safetensors",
        "answer_standardized_centroids.safetensors",
        "standardized_centroids.safetensors",
    ]
    with safe_open(folder / found[1], framework="numpy") as file, safe_open(folder / found[2], "numpy") as of_all:
        assert (file.metadata()["pool"], of_all.metadata().get("pool")) == ("answer", None)
    fields: dict[str, Any] = {"methods": ["nait_standardized"], "ratios": [0.3]}
    for pool, given, refused in (("answer", folder, False), ("all", folder / found[1], True)):
        capabilities = {"math": {"features": str(given)}}
        read = make_recipe(**fields, extraction={"max_tokens": 64, "pool": pool}, capabilities=capabilities)
        rooms = "group:corpora or group:extraction or group:features"
        answer = nait("run", "--recipe", read.path, "--home", quick_home(tmp_path / pool), "--select", rooms)
        assert (answer.code != 0) == refused, answer.err
        if refused:
            assert "was made with pool answer, and the recipe's is all" in answer.err


def test_a_pooling_that_is_given_up_leaves_outputs_that_are_named_and_removed(
    home: Path, make_recipe: MakeRecipe
) -> None:
    """As for every output that a recipe no longer has."""
    only = make_recipe(methods=["nait_standardized"], ratios=[0.3])
    answer = nait("clean", "--recipe", only.path, "--home", home, "--yes")
    assert answer.code == 0, answer.err
    assert "features/answer_neuron_statistics" in answer.out
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        assert tables.rows(NEURON_STATISTICS)["layer"].to_list() == list(LAYERS)
        assert not any(name.startswith("features/answer_") for name in tables.records())


@pytest.mark.parametrize(
    ("examples", "extraction", "said"),
    [
        (["x"] * 8, EXTRACTION, "8 of 8 examples have a single token in the pool 'answer'"),
        (["x"] * 7 + ["the sum of two numbers"], EXTRACTION, "7 of 8 examples have a single token"),
        (["the sum"], {"max_tokens": 64}, "2 are needed for a principal component"),
        (["the sum of x " * 40] * 8, {"max_tokens": 32}, "examples are longer than `extraction.max_tokens` (32)"),
    ],
)
def test_examples_without_a_direction_end_a_run_before_the_model_reads_anything(
    make_recipe: MakeRecipe, tmp_path: Path, examples: list[str], extraction: dict[str, Any], said: str
) -> None:
    """Their tokens tell; the pool's activations would be read for hours first."""
    rows = [conversation(f"question {number}?", answer) for number, answer in enumerate(examples)]
    write_jsonl(tmp_path / "math.jsonl", rows)
    pool = {"pool": "answer"} if "pool" in extraction else {}
    recipe = make_recipe(extraction=extraction, methods=["directed"], options={"directed": {"method": "nait", **pool}})
    answer = nait("run", "--recipe", recipe.path, "--home", quick_home(tmp_path / "home"))
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "home" / "activations").exists()
