"""Scores by sentence embeddings against their formulas, written out with loops in float64."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from nait_assets.errors import RecipeError
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.method import Scores, ScoringInputs
from nait_assets.scoring.methods.sentence_embedding import EMBEDDINGS, METHOD, SentenceEmbeddingOptions
from nait_assets.tables import VECTOR, scores_table
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.measurements.test_embeddings import encoder_folder
from nait_assets_tests.scoring.given import for_capabilities

__all__ = ["encoder_folder"]

RANDOM = np.random.default_rng(0)


def units(n: int) -> list[list[float]]:
    """Random vectors of unit norm."""
    rows = RANDOM.normal(size=(n, 5))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).tolist()


POOL, EXAMPLES = units(6), {"code": units(2), "math": units(3)}


def frame(rows: list[list[float]]) -> pl.DataFrame:
    """Rows of the reading."""
    return pl.DataFrame(
        {"sample_id": [f"s{number}" for number in range(len(rows))], "vector": rows},
        schema={"sample_id": pl.String, "vector": VECTOR},
    )


def inputs(to: Literal["best", "centroid"], *targets: str) -> ScoringInputs:
    """What the method reads for some targets."""
    features = {
        target: {name: frame(EXAMPLES[name]) for name in (EXAMPLES if target == "all" else [target])}
        for target in targets
    }
    names = [f"s{number}" for number in range(len(POOL))]
    options = SentenceEmbeddingOptions(to=to)
    return for_capabilities(
        names, "measurements/in_domain_embeddings", features, frames={EMBEDDINGS: frame(POOL)}, options=options
    )


def scores(to: Literal["best", "centroid"], *targets: str) -> Scores:
    """The method's scores for some targets."""
    return METHOD.scores(inputs(to, *targets))


def dot(left: list[float], right: list[float]) -> float:
    """Number by number."""
    return sum(one * other for one, other in zip(left, right, strict=True))


def unit(vector: list[float]) -> list[float]:
    """Over its norm."""
    norm = math.sqrt(dot(vector, vector))
    return [value / norm for value in vector]


def mean(rows: list[list[float]]) -> list[float]:
    """Number by number."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_best_is_the_largest_cosine() -> None:
    """Of `all` that over the examples of every capability."""
    every = [*EXAMPLES["code"], *EXAMPLES["math"]]
    expected = [
        [max(dot(row, example) for example in rows) for rows in (EXAMPLES["code"], EXAMPLES["math"], every)]
        for row in POOL
    ]
    np.testing.assert_allclose(scores("best", "code", "math", "all").values, expected, atol=1e-6)


def test_centroid_is_the_cosine_to_the_mean_example() -> None:
    """Of `all` the mean of the capabilities' centroids at unit norm: more examples have no more say."""
    code, math_ = (unit(mean(EXAMPLES[name])) for name in ("code", "math"))
    expected = [[dot(row, centroid) for centroid in (code, math_, unit(mean([code, math_])))] for row in POOL]
    np.testing.assert_allclose(scores("centroid", "code", "math", "all").values, expected, atol=1e-6)


def test_by_example_lets_capabilities_take_turns() -> None:
    """The first example of each, then the second of each: a small subset for `all` has of every capability."""
    found = scores("best", "all").by_example["all"].matrix()
    (code, math_) = EXAMPLES["code"], EXAMPLES["math"]
    turns = [code[0], math_[0], code[1], math_[1], math_[2]]
    np.testing.assert_allclose(found, [[dot(row, example) for example in turns] for row in POOL], atol=1e-6)


@pytest.mark.parametrize("to", ["best", "centroid"])
def test_scores_do_not_depend_on_the_other_targets(to: Literal["best", "centroid"]) -> None:
    """To the bit: a capability more leaves the others' scores current."""
    together, alone = scores(to, "code", "math", "all"), scores(to, "math")
    np.testing.assert_array_equal(together.values[:, 1], alone.values[:, 0])
    np.testing.assert_array_equal(together.by_example["math"].matrix(), alone.by_example["math"].matrix())


def test_an_unknown_comparison_is_refused_with_the_recipe(make_recipe: Callable[..., Recipe]) -> None:
    """Before anything is embedded."""
    with pytest.raises(RecipeError, match=r"sentence_embedding\.to: .*'best' or 'centroid'"):
        make_recipe(options={"sentence_embedding": {"to": "mean"}})


def test_a_run_scores_every_candidate_and_another_comparison_embeds_nothing_again(
    make_recipe: Callable[..., Recipe],
    tmp_path: Path,
    encoder_folder: Path,
) -> None:
    """From texts to subsets, without the recipe's language model."""
    home = quick_home(tmp_path / "home")

    def recipe(to: str) -> Recipe:
        return make_recipe(
            methods=["sentence_embedding"],
            ratios=[0.3],
            options={"sentence_embedding": {"to": to}},
            measurements={"embeddings": {"source": str(encoder_folder)}},
        )

    made = run(recipe("best"), home)
    assert {"measurements/candidate_embeddings", "measurements/in_domain_embeddings[math]"} <= made
    assert not any("activations" in output for output in made)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        found = snapshot.read(scores_table(METHOD.name), target="math")
    assert len(found) == 20
    assert sorted(found["turn"].to_list()) == list(range(1, 21))
    assert found["score"].n_unique() > 10
    assert run(recipe("best"), home) == set()
    again = run(recipe("centroid"), home)
    assert "scoring/sentence_embedding_scores[math]" in again
    assert not any(output.startswith("extraction/") for output in again)
