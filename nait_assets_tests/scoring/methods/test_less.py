"""LESS, from vectors to scores and from a recipe to subsets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.measurements.engine import rows_of
from nait_assets.measurements.gradients import MEASUREMENT
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods.less import EXAMPLES, GRADIENTS, METHOD, LessOptions
from nait_assets.tables import VECTOR, scores_table
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import conversation, less_sections, pool_rows, write_jsonl
from nait_assets_tests.scoring.given import for_capabilities

WIDTH = 6
SUBSETS = "+key:selection/less_subset"
OPTIONS = {"share": 0.3, "epochs": 2, "rank": 2, "alpha": 4, "learning_rate": 0.01, "batch_size": 3, "dimensions": 64}


def frame(n: int, seed: int) -> pl.DataFrame:
    """Unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((n, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{seed}{place}" for place in range(n)]
    return pl.DataFrame({"sample_id": names, "vector": vectors.tolist()}, {"sample_id": pl.String, "vector": VECTOR})


def inputs(targets: dict[str, list[str]], over: Any = "mean") -> ScoringInputs:
    """Five candidates, and capabilities of three and two examples."""
    of = {"code": frame(3, 1), "math": frame(2, 2)}
    features = {target: {name: of[name] for name in names} for target, names in targets.items()}
    candidates = {GRADIENTS: frame(5, 0)}
    names = candidates[GRADIENTS]["sample_id"].to_list()
    return for_capabilities(names, EXAMPLES, features, frames=candidates, options=LessOptions(over=over))


ALL = {"code": ["code"], "math": ["math"], "all": ["code", "math"]}


@pytest.mark.parametrize("over", ["mean", "max"])
def test_score_is_that_of_the_best_capability_over_its_examples(over: Any) -> None:
    """Against loops in float64: a subtask's examples are combined first, and then the best subtask counts."""
    given = inputs(ALL, over)
    found = METHOD.scores(given)
    candidates = [np.asarray(vector, np.float64) for vector in given.of(GRADIENTS)["vector"].to_list()]
    for column, (target, names) in enumerate(ALL.items()):
        for place, candidate in enumerate(candidates):
            subtasks, by_example = [], []
            for name in names:
                examples = [
                    np.asarray(one, np.float64) for one in given.of_capabilities(EXAMPLES)[name]["vector"].to_list()
                ]
                products = [sum(a * b for a, b in zip(candidate, one, strict=True)) for one in examples]
                subtasks.append(sum(products) / len(products) if over == "mean" else max(products))
                by_example.append(products)
            assert found.values[place, column] == pytest.approx(max(subtasks), abs=1e-6)
            most = max(map(len, by_example))
            turns = [products[turn] for turn in range(most) for products in by_example if turn < len(products)]
            assert found.by_example[target].matrix()[place] == pytest.approx(turns, abs=1e-6)


def test_targets_score_does_not_depend_on_the_targets_beside_it() -> None:
    """One pass scores what is there, and what is there depends on what was run before."""
    together = METHOD.scores(inputs(ALL))
    alone = METHOD.scores(inputs({"math": ["math"]}))
    assert np.array_equal(alone.values[:, 0], together.values[:, 1])
    assert np.array_equal(alone.by_example["math"].matrix(), together.by_example["math"].matrix())


@pytest.fixture
def recipe_of(make_recipe: Callable[..., Recipe], tmp_path: Path, causal_folder: Path) -> Callable[..., Recipe]:
    """A recipe of LESS on a model with a head; one candidate is a question whose answer is cut off."""
    rows = [*pool_rows(11), conversation("the cat sat " * 60, "no")]
    write_jsonl(tmp_path / "pool.jsonl", rows)

    def of(**options: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        return make_recipe(
            methods=["less"],
            model=model,
            candidates={"source": "pool.jsonl"},
            capabilities={"math": {"source": "math.jsonl"}},
            ratios=[0.25],
            extraction={"max_tokens": 64, "truncate": "answer"},
            measurements=less_sections(**{**OPTIONS, **options}),
        )

    return of


def test_run_makes_scores_and_subsets_once(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    """From files to subsets: the sample without a response has a reason, and scores are the vectors' products.

    Vectors of two warm-ups have no common inner product: after another one, all gradients are read again.
    """
    recipe, home = recipe_of(), quick_home(tmp_path / "home")
    made = run(recipe, home, "--select", SUBSETS)
    assert {"measurements/less_checkpoints", "measurements/candidate_gradients", "scoring/less_scores[math]"} <= made
    assert not [name for name in made if "activations" in name]
    warehouse = Warehouse(home=str(home))
    with warehouse.tables.snapshot() as tables:
        scores = tables.rows(scores_table("less"), target="math")
    scored = scores.filter(pl.col("reason").is_null()).sort("rank")
    assert (len(scores), len(scored)) == (12, 11)
    assert scores.filter(pl.col("score").is_null())["reason"].to_list()[0].startswith("its response is cut off: ")
    assert sorted(scored["turn"].to_list()) == list(range(1, 12))
    candidates, _ = rows_of(warehouse, MEASUREMENT, "candidates")
    examples, _ = rows_of(warehouse, MEASUREMENT, "math")
    assert candidates["vector"].list.len().unique().to_list() == [2 * 64]
    best = candidates.filter(sample_id=scored["sample_id"][0])["vector"].to_list()[0]
    wanted = np.mean([np.dot(best, one) for one in examples["vector"].to_list()])
    assert scored["score"][0] == pytest.approx(wanted, abs=1e-6)
    chosen = pl.read_parquet(next((home / "subsets" / "less").rglob("math/0.25/train.parquet")))
    assert chosen["sample_id"].to_list() == scored["sample_id"].to_list()[:3]
    assert run(recipe, home, "--select", SUBSETS) == set()
    answer = nait("audit", "less/math", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.out + answer.err
    made = run(recipe_of(rank=1, epochs=1), home, "--select", "+key:measurements/candidate_gradients")
    assert made == {"measurements/less_checkpoints", "measurements/candidate_gradients"}
    candidates, _ = rows_of(warehouse, MEASUREMENT, "candidates")
    assert candidates["vector"].list.len().unique().to_list() == [64]
    assert sorted(path.name for path in (home / "trained" / "less_checkpoints").glob("epoch_*")) == ["epoch_1"]


def test_model_without_a_head_stops_the_run_before_anything_is_made(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The fixtures' own model is a base model: it predicts nothing that a loss could be taken of."""
    recipe = make_recipe(methods=["less"])
    answer = nait("run", "--recipe", recipe.path, "--home", quick_home(tmp_path / "home"))
    assert answer.code != 0
    assert "no language-model head" in answer.err + answer.out
    assert not (tmp_path / "home" / "warehouse.duckdb").exists()
