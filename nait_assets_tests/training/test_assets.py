"""The training as assets: made once, shared where rows are the same, made again where they change, and verified."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from nait_assets.errors import RecipeError, WarehouseError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.training.catalogue import models_output
from nait_assets.training.models import Model, release, trained_models
from nait_assets.training.runs import base_of
from nait_assets.training.storing import restore
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import in_domain_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
TRAINING: dict[str, Any] = {
    "runs": {"targets": ["code", "math"]},
    "batch_size": 4,
    "epochs": 1,
    "learning_rate": 0.01,
    "reference": {"full": False, "random": 2, "random_matched": 1},
    "probes": {"number": 4, "rows": 5, "uniform": 1, "batch_size": 2},
}
EVERYTHING = {
    *(
        f"training/{method}_{what}[{target}|0.30]"
        for method in ("bm25", "length_long")
        for what in ("model", "random_matched")
        for target in ("code", "math")
    ),
    "training/random_reference[0.30]",
    "training/probe_subsets",
    "training/probe_models",
}


@pytest.fixture
def recipe_of(make_recipe: MakeRecipe, causal_folder: Path) -> MakeRecipe:
    """A recipe of two cheap methods, one with a target and one without, that trains the tiny model."""

    def of(**fields: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        given = {"methods": ["bm25", "length_long"], "ratios": [0.3], "training": TRAINING, "model": model}
        return make_recipe(**{**given, **fields})

    return of


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "home"


@pytest.fixture
def trained(recipe_of: MakeRecipe, _kept: Path, tmp_path: Path) -> tuple[Recipe, Path]:
    """A home in which everything was trained: a copy, which the test may break."""
    recipe = recipe_of()
    if not _kept.exists():
        made = run(recipe, quick_home(_kept))
        assert {name for name in made if name.startswith("training/")} == EVERYTHING
    return recipe, Path(shutil.copytree(_kept, tmp_path / "home"))


def models_of(recipe: Recipe, home: Path, method: str, target: str) -> list[Model]:
    """The models of a cell."""
    warehouse, base = Warehouse(home=str(home)), base_of(recipe, LanguageModel.of(recipe, home))
    with warehouse.tables.snapshot() as tables:
        return trained_models(warehouse, tables, models_output(method), f"{target}|0.30", base)


def test_a_recipe_without_the_section_has_none_of_it(make_recipe: MakeRecipe) -> None:
    """Nothing is trained that nobody asked for."""
    assert not [key for key in make_recipe().outputs if key.startswith("training/")]


def test_everything_is_made_once_and_shared(trained: tuple[Recipe, Path]) -> None:
    """A method without a target has one model for all targets; and there is nothing more to do."""
    recipe, home = trained
    by_length = [models_of(recipe, home, "length_long", target)[0] for target in ("code", "math")]
    by_words = [models_of(recipe, home, "bm25", target)[0] for target in ("code", "math")]
    assert by_length[0].key == by_length[1].key
    assert len({model.key for model in [*by_length, *by_words]}) == 3
    assert all(model.is_present for model in [*by_length, *by_words])
    assert run(recipe, home) == set()
    shown = metadata_of(home, "training/length_long_model[math|0.30]")
    assert (shown["n_trained"], shown["n_shared"], shown["dagster/row_count"]) == (0, 1, 1)
    assert "svg" in str(shown["loss_curve"])
    folders = {path.name for path in (home / "training").iterdir() if path.is_dir()}
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        keys = {key for (key,) in tables.connection.sql("SELECT key FROM training.models").fetchall()}
        curves = {key for (key,) in tables.connection.sql("SELECT DISTINCT key FROM training.loss_curves").fetchall()}
    assert folders == keys == curves


@pytest.mark.slow
def test_a_changed_capability_trains_its_own_cells_again(trained: tuple[Recipe, Path]) -> None:
    """Two lines of one capability: its subset changes, and nothing else that was trained is touched."""
    recipe, home = trained
    kept = models_of(recipe, home, "bm25", "math")[0].key
    old = models_of(recipe, home, "bm25", "code")[0]
    rows = in_domain_rows("code")
    rows[0]["messages"][0]["content"] = rows[1]["messages"][0]["content"] = "the cat sat on a mat while two dogs?"
    write_jsonl(recipe.path.parent / "code.jsonl", rows)
    made = {name for name in run(recipe, home) if name.startswith("training/")}
    assert made == {"training/bm25_model[code|0.30]", "training/bm25_random_matched[code|0.30]"}
    assert models_of(recipe, home, "bm25", "math")[0].key == kept
    assert models_of(recipe, home, "bm25", "code")[0].key != old.key
    assert old.folder is not None
    assert not old.folder.exists()  # no output has it any more


@pytest.mark.slow
def test_settings_that_weights_depend_on_train_again_and_others_do_not(
    trained: tuple[Recipe, Path], recipe_of: MakeRecipe
) -> None:
    """A model for each seed, those that are there among them; what is kept or shown trains nothing."""
    _, home = trained
    assert run(recipe_of(training={**TRAINING, "gradient_checkpointing": True, "keep": "none"}), home) == set()
    recipe = recipe_of(training={**TRAINING, "seeds": [0, 1], "reference": {"full": False, "random": 0}})
    made = {name for name in run(recipe, home) if name.startswith("training/")}
    assert "training/bm25_model[code|0.30]" in made
    shown = metadata_of(home, "training/bm25_model[code|0.30]")
    assert (shown["n_trained"], shown["n_shared"]) == (1, 1)
    assert [model.number for model in models_of(recipe, home, "bm25", "code")] == [0, 1]


@pytest.mark.slow
def test_what_a_home_holds_of_a_training_is_audited(trained: tuple[Recipe, Path]) -> None:
    """Weights, manifests, curves and rows: each is named where it is not as it was written."""
    recipe, home = trained
    audit = ("audit", "--recipe", recipe.path, "--home", home)
    assert nait(*audit).code == 0, nait(*audit).out
    model = models_of(recipe, home, "bm25", "code")[0]
    assert model.folder is not None
    spoilt: dict[str, Callable[[], object]] = {
        "model.safetensors changed": lambda: (model.folder / "model.safetensors").open("ab").write(b"x"),  # type: ignore[operator]
        "training.json is not as its record states": lambda: (model.folder / "training.json").open("a").write(" "),  # type: ignore[operator]
        "training.loss_curves of": lambda: change(home, "UPDATE training.loss_curves SET loss = 0.5"),
        "training.models is not as its record states": lambda: change(home, "UPDATE training.models SET loss = 0.5"),
        "training.probe_subsets": lambda: change(home, "UPDATE training.probe_subsets SET kind = 'uniform'"),
        "is no file that nait_assets wrote": lambda: (
            (home / "training" / "abc").mkdir() or (home / "training/abc/x").touch()
        ),
    }
    whole = home.with_name("whole")
    shutil.copytree(home, whole)
    for said, spoil in spoilt.items():
        spoil()
        answer = nait(*audit)
        assert (answer.code, said in answer.out) == (4, True), (said, answer.out)
        shutil.rmtree(home)
        shutil.copytree(whole, home)


def change(home: Path, statement: str) -> None:
    """Tamper with a table."""
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute(statement)


@pytest.mark.slow
def test_released_models_are_trained_again_where_they_are_wanted(trained: tuple[Recipe, Path]) -> None:
    """After `keep: none` nothing is out of date, nothing is broken, and what was removed can be had again."""
    recipe, home = trained
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)
    (one,) = models_of(recipe, home, "bm25", "code")
    assert one.folder is not None
    release(one.folder)
    with pytest.raises(WarehouseError, match="were removed after their evaluation"):
        one.load()
    assert run(recipe, home) == set()
    assert nait("audit", "--recipe", recipe.path, "--home", home).code == 0
    restore([one], models_output("bm25"), "code|0.30", recipe, warehouse, model, lambda _: None)
    assert one.is_present
    assert one.load().network is not None
    answer = nait("audit", "--recipe", recipe.path, "--home", home)
    assert answer.code == 0, answer.out


def test_models_that_the_recipe_no_longer_has_are_removed(trained: tuple[Recipe, Path], recipe_of: MakeRecipe) -> None:
    """Weights are the largest thing in a home; one that another output shares stays."""
    _, home = trained
    left = {
        **TRAINING,
        "runs": {"methods": ["length_long"], "targets": ["math"]},
        "probes": None,
        "reference": {"full": False, "random": 0},
    }
    recipe = recipe_of(training=left)
    assert "training/bm25_model" in nait("status", "--recipe", recipe.path, "--home", home).out
    assert nait("clean", "--yes", "--recipe", recipe.path, "--home", home).code == 0
    (kept,) = models_of(recipe, home, "length_long", "math")
    assert kept.folder is not None
    assert {path.name for path in (home / "training").iterdir() if path.is_dir()} == {kept.folder.name}
    assert run(recipe, home) <= {"report/selection_report"}


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"runs": {"methods": ["nait"]}}, "training.runs.methods: 'nait' is not among the recipe's bm25, length_long"),
        ({"runs": {"ratios": [0.5]}}, "training.runs.ratios: '0.50' is not among the recipe's 0.30"),
        ({"kind": "full", "lora": {"rank": 4}}, "`lora` is of `kind: lora`"),
        ({"keep": "adapter"}, "`keep: adapter` is of `kind: lora`"),
        ({"kind": "lora", "keep": "weights"}, "`keep: weights` is of `kind: full`"),
        ({"seeds": [1, 1]}, "must be distinct"),
        ({"betas": [0.9, 1.0]}, r"must lie in \[0, 1\)"),
        ({"probes": {"number": 4, "uniform": 5}}, "uniform: 5 is more than the 4 subsets"),
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(
    recipe_of: MakeRecipe, training: dict[str, Any], said: str
) -> None:
    """When the recipe is read."""
    with pytest.raises(RecipeError, match=said):
        recipe_of(training=training)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 100_000}, "training.max_tokens: 100000 is more than the base's context of 512 tokens"),
        ({"report_to": ["no_such_tracker"]}, "training.report_to: no_such_tracker is not installed"),
        ({"accelerate": "none.yaml"}, "none.yaml does not exist"),
        ({"base": {"source": "no-such-folder"}}, "training.base.source: folder .* does not exist"),
        ({"base": {"source": "HEADLESS"}}, "have no language-model head"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_made(
    recipe_of: MakeRecipe, model_folder: Path, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    """Exit code 2, one sentence, and an empty home."""
    if fields.get("base") == {"source": "HEADLESS"}:
        fields = {"base": {"source": str(model_folder)}}
    recipe, home = recipe_of(training={**TRAINING, **fields}), quick_home(tmp_path / "home")
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    assert re.search(said, answer.err), answer.err
    assert not (home / "warehouse.duckdb").exists()
