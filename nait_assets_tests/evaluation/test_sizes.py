"""Smaller in-domain sets as targets of their own: nested, read once, no capability of their own, and their curve."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.audit.chain import subsets_of
from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import DataError, NotFoundError, RecipeError
from nait_assets.evaluation.comparison import OWN, means_of, transferred
from nait_assets.evaluation.foreseen import tasks_by_target
from nait_assets.evaluation.foresight import ANSWER_RANK, ANSWER_TOKENS, Predictor, controls, foresight
from nait_assets.evaluation.measured import Cell, Measure, Measured, own_targets
from nait_assets.evaluation.sizes import InDomainSet, by_in_domain_size
from nait_assets.evaluation.tables import COMPARISON, IN_DOMAIN_SIZE_CURVE
from nait_assets.extraction import activation_table
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import IN_DOMAIN_SET
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.conftest import in_domain_rows, write_jsonl
from nait_assets_tests.evaluation.recipes import TRAINING, trained_recipe

MakeRecipe = Callable[..., Recipe]
SIZED = {"code": {"source": "code.jsonl"}, "math": {"source": "math.jsonl", "seed": 3, "sizes": [4, 2]}}
N = 40
N_MATH = 8


@pytest.fixture(autouse=True)
def _enough_examples(tmp_path: Path) -> None:
    """More than the others' recipes have."""
    write_jsonl(tmp_path / "math.jsonl", in_domain_rows("math", N_MATH))


EXAM, QUIZ = Measure("exam", "loss"), Measure("quiz", "loss")


def test_smaller_sets_are_the_first_of_the_seeded_order(make_recipe: MakeRecipe) -> None:
    """Nested, and the same rows that a `limit` of so many would take."""
    recipe = make_recipe(capabilities=SIZED)
    two, four, whole = (set(read_corpus(recipe, name).examples["sample_id"]) for name in ("math@2", "math@4", "math"))
    assert (len(two), len(four)) == (2, 4)
    assert two < four < whole
    corpus = read_corpus(recipe, "math@4")
    assert len(corpus.examples) + corpus.n_unsampled == corpus.n_rows
    limited = make_recipe(capabilities={**SIZED, "math": {"source": "math.jsonl", "seed": 3, "limit": 4}})
    assert set(read_corpus(limited, "math").examples["sample_id"]) == four


def test_a_smaller_set_is_a_target_and_no_capability(make_recipe: MakeRecipe) -> None:
    """`all` combines capabilities alone, and training takes smaller sets only where they are named."""
    recipe = make_recipe(capabilities=SIZED, training={})
    assert recipe.targets == ["code", "math", "math@2", "math@4", "all"]
    assert recipe.capabilities_of("all") == recipe.capability_names == ["code", "math"]
    assert recipe.training is not None
    assert recipe.training.targets_of(recipe) == ["code", "math", "all"]
    partitions = Partitions.of(recipe)
    assert {"math@2|0.10", "math@4|0.30"} <= {str(key) for key in partitions.cell.get_partition_keys()}
    named = make_recipe(capabilities=SIZED, training={"runs": {"targets": ["math@2"]}})
    assert named.training is not None
    assert named.training.targets_of(named) == ["math@2"]


def test_of_one_capability_there_is_no_target_of_all(make_recipe: MakeRecipe) -> None:
    """With smaller sets of it or without, in no partition and no mapping of any; whoever names it is told."""
    for sizes, targets in (([], ["math"]), ([2], ["math", "math@2"])):
        alone = {"math": {"source": "math.jsonl", "sizes": sizes}}
        recipe = make_recipe(capabilities=alone, training={}, evaluation={"tasks": {"math": [{"source": "x.jsonl"}]}})
        assert recipe.targets == targets
        assert recipe.broadest_target == "math"
        assert recipe.training is not None
        assert recipe.training.targets_of(recipe) == ["math"]
        assert tasks_by_target(recipe) == {"math": ["math"]}
        partitions = Partitions.of(recipe)
        assert {key.split("|")[0] for key in partitions.cell.get_partition_keys()} == set(targets)
        said = "'all' is of several capabilities together, and the recipe has one: say 'math'"
        with pytest.raises(RecipeError, match=f"training.runs.targets: {said}"):
            make_recipe(capabilities=alone, training={"runs": {"targets": ["all"]}})
        with pytest.raises(RecipeError, match=f"evaluation.tasks.exam.targets: {said}"):
            make_recipe(capabilities=alone, evaluation={"tasks": {"exam": {"source": "x", "targets": ["all"]}}})
        with pytest.raises(NotFoundError, match=said):
            subsets_of(recipe, "nait/all/0.10")


def test_a_task_of_a_smaller_set_is_its_capabilitys(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Foresight asks of the smaller set; transfer and curves know capabilities alone."""
    write_jsonl(tmp_path / "exam.jsonl", in_domain_rows("exam", 3))
    tasks = {"exam": {"source": "exam.jsonl", "targets": ["math@2", "code"]}}
    recipe = make_recipe(capabilities=SIZED, evaluation={"tasks": tasks}, training={"runs": {"targets": ["math"]}})
    assert own_targets(recipe) == {"exam": "math"}
    assert tasks_by_target(recipe) == {"code": ["exam"], "math@2": ["exam"], "all": ["exam"]}


def test_the_mean_of_foresight_is_over_capabilities() -> None:
    """One that has smaller sets does not count twice."""
    rng = np.random.default_rng(0)
    fall, *known = rng.normal(size=(4, N))
    values = dict(zip(("code", "math", "math@2"), known, strict=True))
    lengths = {name: rng.normal(size=N) for name in (ANSWER_TOKENS, ANSWER_RANK)}
    predictors = [Predictor("nait", "method", values, {}, {}), *controls(list(values), lengths)]
    found = foresight(predictors, {"exam": fall}, {target: ["exam"] for target in values}).filter(predictor="nait")
    of_target = dict(found.select("target", "correlation").rows())
    assert of_target[""] == pytest.approx((of_target["code"] + of_target["math"]) / 2)
    assert "math@2" in of_target


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        ({"source": "math.jsonl", "limit": 4, "sizes": [2, 4]}, "4 is not smaller than the 4 examples"),
        ({"source": "math.jsonl", "sizes": [2, 2]}, "must be distinct"),
        ({"source": "math.jsonl", "sizes": [0]}, "greater than or equal to 1"),
        ({"source": "math.jsonl", "sizes": 4}, "should be a valid list"),
        ({"features": "a.safetensors", "sizes": [2]}, "a feature file has none"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make_recipe: MakeRecipe, capability: dict[str, object], said: str) -> None:
    """When the recipe is read."""
    with pytest.raises(RecipeError, match=said):
        make_recipe(capabilities={**SIZED, "math": capability})


def test_a_size_beyond_the_examples_is_said_with_their_number(make_recipe: MakeRecipe) -> None:
    """What `limit` does not tell, the rows do."""
    recipe = make_recipe(capabilities={**SIZED, "math": {"source": "math.jsonl", "sizes": [4000]}})
    with pytest.raises(DataError, match="4000 is not smaller than the 8 usable examples of 'math'"):
        read_corpus(recipe, "math@4000")


def test_what_was_read_of_the_whole_set_is_not_read_again(
    make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path
) -> None:
    """Numbers of the smaller set are the whole one's to the bit."""
    model = {"source": str(causal_folder), "dtype": "float32"}
    recipe = make_recipe(capabilities=SIZED, methods=["nait_standardized", "nait", "rds_plus"], model=model)
    home = quick_home(tmp_path / "home")
    run(recipe, home)
    assert metadata_of(home, "extraction/in_domain_activations[math]")["n_extracted"] > 0
    for name in ("math@2", "math@4"):
        assert metadata_of(home, f"extraction/in_domain_activations[{name}]")["n_extracted"] == 0
        assert metadata_of(home, f"measurements/in_domain_outputs[{name}]")["n_forward"] == 0
    warehouse = Warehouse(home=str(home))
    with warehouse.tables.snapshot() as tables:
        ids = tables.rows(IN_DOMAIN_SET, capability="math@4")["sample_id"].sort().to_list()
        corpora = set(tables.connection.sql("SELECT corpus FROM corpora.contaminated_candidates").pl()["corpus"])
    assert not any("@" in corpus for corpus in corpora)
    both = [activation_table.activations_of(warehouse, name) for name in ("math", "math@4")]
    with both[0].snapshot() as whole, both[1].snapshot() as smaller:
        rows = activation_table.rows(smaller)
        assert rows.equals(activation_table.rows(whole).filter(pl.col("sample_id").is_in(ids)))
        assert sorted(rows["sample_id"].unique()) == ids
        assert activation_table.altered_rows(smaller) == ([], [])
    assert run(recipe, home) == set()
    assert nait("audit", "--recipe", recipe.path, "--home", home).code == 0
    for named in ("nait/math@2/0.10", "nait/math@2/0.10@~0", "nait/math@2/0.10@feed"):
        answer = nait("diff", named, named, "--recipe", recipe.path, "--home", home)
        assert answer.code == (2 if named.endswith("feed") else 0), answer.err
        assert "nait/math@2/0.10" in answer.out + answer.err


@pytest.fixture
def measured() -> Measured:
    """A method whose losses fall with the number of examples, for two capabilities of a task each."""
    hard = np.random.default_rng(1).gamma(2, 1, N)
    gains = {"math": 0.5, "math@2": 0.1, "math@4": 0.3, "code": 0.4, "code@2": 0.2}
    values = {
        Cell("nait", name, "0.10"): {EXAM: hard[None] - gain, QUIZ: hard[None] - gain} for name, gain in gains.items()
    }
    for cell in (Cell("base", "", ""), Cell("full_reference", "", ""), Cell("random_reference", "", "0.10")):
        values[cell] = {EXAM: hard[None], QUIZ: hard[None]}
    return Measured(values, {EXAM: np.ones(N), QUIZ: np.ones(N)})


def test_the_curve_is_of_the_capabilitys_own_tasks(measured: Measured) -> None:
    """Figure 3: a value a number of examples, the average of sizes that all have, references without examples."""
    sets = {"math@2": InDomainSet("math", 2), "math@4": InDomainSet("math", 4), "math": InDomainSet("math", 8)}
    sets |= {"code@2": InDomainSet("code", 2), "code": InDomainSet("code", 9)}
    own = {"exam": "math", "quiz": "code"}
    found = by_in_domain_size(means_of(measured), own, sets)
    base = found.filter(model="base", task="exam")["value"].item()
    of_math = found.filter(model="nait", target="math")
    assert set(of_math["task"]) == {"exam"}
    falls = {n: base - value for n, value in of_math.select("n_in_domain", "value").rows()}
    assert falls == pytest.approx({2: 0.1, 4: 0.3, 8: 0.5})
    average = found.filter(model="nait", target=OWN)
    assert average["n_in_domain"].to_list() == [2]
    assert base - average["value"].item() == pytest.approx(0.15)
    references = found.filter(n_in_domain=0)
    assert set(references["model"]) == {"base", "full_reference", "random_reference"}
    assert set(references["task"]) == {"", "exam", "quiz"}
    assert not transferred(means_of(measured), own, measured.n_examples())["target"].str.contains("@").any()


def test_a_capability_without_smaller_sets_is_left_out(measured: Measured) -> None:
    """Of the references, too: a curve compares over the same tasks."""
    sets = {"math@2": InDomainSet("math", 2), "math": InDomainSet("math", 8)}
    found = by_in_domain_size(means_of(measured), {"exam": "math", "quiz": "code"}, sets)
    assert set(found["task"]) == {"exam"}
    assert set(found["target"]) == {"", "math"} | ({OWN} & set(found["target"]))


@pytest.mark.slow
def test_models_of_smaller_sets_are_trained_and_drawn(
    make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path
) -> None:
    """From the recipe to the page."""
    runs = {"methods": ["bm25"], "targets": ["math", "math@2", "math@4"]}
    training = {**TRAINING, "runs": runs, "probes": None}
    fields = {"capabilities": SIZED, "methods": ["bm25"], "training": training}
    recipe, home = trained_recipe(make_recipe, causal_folder, tmp_path, **fields), quick_home(tmp_path / "home")
    made = run(recipe, home)
    assert {"training/bm25_model[math@2|0.30]", IN_DOMAIN_SIZE_CURVE.asset} <= made
    with Warehouse(home=str(home)).tables.snapshot() as tables:
        curve, comparison = tables.rows(IN_DOMAIN_SIZE_CURVE), tables.rows(COMPARISON)
    of_math = curve.filter(model="bm25", target="math")
    assert of_math["n_in_domain"].to_list() == [2, 4, N_MATH]
    against = comparison.filter(model="bm25", target="math@2", task="math", against="")
    assert of_math["value"][0] == against["value"].item()
    assert "By the number of in-domain examples" in (home / "report" / "index.html").read_text(encoding="utf-8")
    assert run(recipe, home) == set()
    assert nait("audit", "--recipe", recipe.path, "--home", home).code == 0
