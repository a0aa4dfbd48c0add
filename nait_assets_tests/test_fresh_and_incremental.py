"""An incremental home against a fresh one: whatever is refused or taken back, both have the same scores and subsets."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.checks import check_scores
from nait_assets.tables import SUBSETS, scores_table
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import CHAT_TEMPLATE, REFUSES_SYSTEM, conversation, pool_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
METHODS = ["rds_plus", "nait_standardized", "random"]
REFUSED = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *conversation(f"question {n}?", f"answer {n}")["messages"],
        ]
    }
    for n in range(7)
]
REJECTED = [{"messages": [{"role": "user", "content": f"nobody answers question {n}"}]} for n in range(3)]


@pytest.fixture
def recipe(make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path) -> Recipe:
    """Methods on activations, on readings and on texts, with a template that refuses system messages."""
    folder = Path(shutil.copytree(causal_folder, tmp_path / "strict"))
    (folder / "chat_template.jinja").write_text(REFUSES_SYSTEM + CHAT_TEMPLATE, encoding="utf-8")
    model, capabilities = {"source": str(folder), "dtype": "float32"}, {"math": {"source": "math.jsonl"}}
    return make_recipe(model=model, capabilities=capabilities, methods=METHODS, ratios=[0.3])


def scores_of(home: Path, recipe: Recipe) -> dict[tuple[str, str], pl.DataFrame]:
    """The scores of every method and target, by `sample_id`."""
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        return {
            (method, target): tables.read(scores_table(method), target=target).sort("sample_id")
            for method in recipe.methods
            for target in recipe.targets
        }


def require_equal(home: Path, other: Path, recipe: Recipe) -> None:
    """Both homes have the same scores but for rounding, the same reasons, and subsets of the same rows."""
    scores, of_other = scores_of(home, recipe), scores_of(other, recipe)
    for key, frame in scores.items():
        exact = ["target", "sample_id", "rank", "reason"]
        assert frame.select(exact).equals(of_other[key].select(exact)), key
        np.testing.assert_allclose(frame["score"].to_numpy(), of_other[key]["score"].to_numpy(), rtol=1e-4, atol=1e-6)
    chosen = []
    for folder in (home, other):
        with Warehouse(home=str(folder)).tables.snapshot() as tables:
            chosen.append(tables.rows(SUBSETS).sort("method", "target", "ratio", "rank"))
    columns = ["method", "target", "ratio", "rank", "sample_id"]
    assert chosen[0].select(columns).equals(chosen[1].select(columns))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (REFUSED[:1], REFUSED),
        (REFUSED, []),
        pytest.param([*REFUSED[:2], *REJECTED[:1]], [*REJECTED[1:], *REFUSED[1:3]], marks=pytest.mark.slow),
    ],
    ids=["added", "removed", "exchanged"],
)
def test_rows_that_are_refused_change_an_incremental_home_as_a_fresh_one(
    recipe: Recipe, tmp_path: Path, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    """What a model refuses is in the scores with its reason, and counts in ceil(ratio x N): subsets follow it."""
    write_jsonl(tmp_path / "pool.jsonl", [*pool_rows(), *before])
    home, fresh = quick_home(tmp_path / "home"), quick_home(tmp_path / "fresh")
    run(recipe, home)
    write_jsonl(tmp_path / "pool.jsonl", [*pool_rows(), *after])
    run(recipe, home)
    run(recipe, fresh)

    require_equal(home, fresh, recipe)
    warehouse = Warehouse(home=str(home))
    n_refused = sum(row in REFUSED for row in after)
    for (method, target), frame in scores_of(home, recipe).items():
        assert len(frame) == 20 + n_refused
        assert frame["reason"].count() == (0 if method == "random" else n_refused)
        checks = check_scores(warehouse, method, target, method == "nait_standardized")
        assert checks["ids_are_the_candidates"].passed, checks
    for command in ("status", "audit"):
        answer = nait(command, "--recipe", recipe.path, "--home", home)
        assert answer.code == 0, answer.out


def test_the_version_of_every_output_covers_what_it_records_as_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Whatever stores reasons beside its rows, in one test: a reason that is edited is a fault, and named."""
    write_jsonl(tmp_path / "pool.jsonl", [*pool_rows(), *REFUSED[:1], *REJECTED[:1]])
    home = quick_home(tmp_path / "home")
    run(recipe, home)
    warehouse, found = Warehouse(home=str(home)), []
    for record in warehouse.records().values():
        output = recipe.outputs[record.asset]
        losses = output.losses(warehouse, record.partition)
        if losses is None or not losses.n_rejected:
            continue
        assert output.faults(warehouse, record) == []
        with output.store(warehouse, record.partition).transaction() as transaction:
            schema = "corpora" if record.asset.startswith("corpora/") else "extraction"
            transaction.connection.execute(f"UPDATE {schema}.rejected SET reason = 'another'")
        assert len(output.faults(warehouse, record)) == 1, record.reference
        found.append(record.asset)
    of_candidates = ["corpora/candidate_pool", "extraction/candidate_activations", "measurements/candidate_outputs"]
    assert sorted(found) == of_candidates
