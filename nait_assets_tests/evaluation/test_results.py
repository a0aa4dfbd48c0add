"""Results as assets: every model on every task, found out once, and made again where something changed."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from nait_assets.audit.chain import Auditor, first_broken
from nait_assets.definitions import build_definitions, catalogue_of
from nait_assets.evaluation.catalogue import BASE_RESULTS, FORESIGHT_OUTPUT, PROBE_RESULTS, conclusions
from nait_assets.evaluation.tables import EXAMPLES, FORESIGHT, RESULTS
from nait_assets.lineage import asset_path
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import conversation, write_jsonl
from nait_assets_tests.evaluation.recipes import N_EXAMPLES, TRAINING, trained_recipe

MakeRecipe = Callable[..., Recipe]


def results(home: Path) -> pl.DataFrame:
    """All results of a home."""
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        return tables.rows(RESULTS)


def broken(recipe: Recipe, home: Path, output: str) -> str:
    """What the audit finds of an output, "" where it is intact."""
    specs = build_definitions(recipe, home).resolve_all_asset_specs()
    versions = {asset_path(spec.key): spec.code_version for spec in specs}
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    found = first_broken(Auditor(recipe, warehouse, model, catalogue_of(recipe), versions).links(output))
    return found.says if found else ""


@pytest.mark.slow
def test_every_model_has_results_and_a_changed_task_makes_its_own_again(
    make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path
) -> None:
    """And what was found out of other tasks stays, also where the weights are gone."""
    fields = {"training": {**TRAINING, "keep": "none"}}
    recipe, home = trained_recipe(make_recipe, causal_folder, tmp_path, **fields), quick_home(tmp_path / "home")
    run(recipe, home)
    found = results(home)
    per_output = dict(found.group_by("asset").len().rows())
    assert per_output == {
        "evaluation/base_results": 2,
        "evaluation/length_long_results": 4,  # two targets, two tasks
        "evaluation/probe_results": 12,
        "evaluation/random_reference_results": 4,
    }
    assert set(found["n_examples"]) == {N_EXAMPLES}
    of_long = found.filter(pl.col("asset") == "evaluation/length_long_results")
    assert of_long["evaluation_key"].n_unique() == 2  # both targets share a model
    assert run(recipe, home) == set()
    assert broken(recipe, home, PROBE_RESULTS.key) == broken(recipe, home, FORESIGHT_OUTPUT.key) == ""
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        foretold = tables.rows(FORESIGHT)
    assert set(foretold["target"]) == {"", "all", "code", "math"}  # "" is the mean
    assert set(foretold.filter(target="all")["task"]) == {"", "code", "math"}
    lengths = {"characters", "tokens", "answer_tokens", "answer_rank"}
    assert set(foretold["predictor"]) == {"random", "length_long", *lengths}
    summary = nait("summary", "--recipe", recipe.path, "--home", home).out
    assert summary.startswith("What scores foretell of training, over 6 probes")
    assert "Models after training, loss [95 %]:" in summary
    page = (home / "report" / "index.html").read_text(encoding="utf-8")
    assert "What scores foretell" in page
    assert "Models after training" in page
    weights = list((home / "training").glob("*/*.safetensors"))
    assert not weights

    write_jsonl(tmp_path / "math_exam.jsonl", [conversation("math again?", "the sum of x and y")])
    made = run(recipe, home)
    assert {name for name in made if name.startswith("training/")} == set()
    n_models = found.filter(asset=PROBE_RESULTS.key)["model"].n_unique()
    assert metadata_of(home, PROBE_RESULTS.key)["n_evaluated"] == n_models
    changed = results(home)
    of_code = pl.col("task") == "code"
    assert (
        changed.filter(of_code)
        .sort("asset", "partition", "number")
        .equals(found.filter(of_code).sort("asset", "partition", "number"))
    )
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        assert set(tables.rows(EXAMPLES)["evaluation_key"]) == set(changed["evaluation_key"])


def test_probes_foretell_nothing_without_a_loss(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """Foresight compares losses; of accuracies alone it would be a table without rows, which nothing can show."""
    trained_recipe(make_recipe, causal_folder, tmp_path)
    exam = {"kind": "exact_match", "source": "math_exam.jsonl"}
    for kinds, told in (({}, False), ({"kind": "loss"}, True)):
        evaluation = {"tasks": {"math": {**exam, **kinds}}}
        recipe = trained_recipe(make_recipe, causal_folder, tmp_path, evaluation=evaluation)
        assert (FORESIGHT_OUTPUT in conclusions(recipe)) == told


def test_without_training_the_base_alone_is_evaluated(
    make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path
) -> None:
    """A model can be measured before anything is trained, and an edited number is found."""
    recipe, home = trained_recipe(make_recipe, causal_folder, tmp_path, training=None), quick_home(tmp_path / "home")
    run(recipe, home, "--select", f"+key:{BASE_RESULTS.key}")
    assert set(results(home)["asset"]) == {BASE_RESULTS.key}
    with Warehouse(home=str(home)).tables.transaction() as tables:
        tables.connection.execute(f"UPDATE {EXAMPLES.name} SET value = value + 1")
    assert "evaluation.results, or their examples, are not as recorded" in broken(recipe, home, BASE_RESULTS.key)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"max_tokens": 4096}, "evaluation.max_tokens: 4096 is more than the base's context of 512 tokens"),
        ({"max_tokens": 128, "tasks": {"math": {"source": "nowhere.jsonl"}}}, "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_trained(
    make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path, evaluation: dict[str, object], said: str
) -> None:
    """A sentence, and no model is loaded."""
    tasks = {"math": {"source": "math_exam.jsonl"}}
    recipe = trained_recipe(make_recipe, causal_folder, tmp_path, evaluation={"tasks": tasks, **evaluation})
    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "home")
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "home" / "training").exists()
