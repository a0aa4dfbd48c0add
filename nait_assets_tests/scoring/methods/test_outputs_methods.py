"""perplexity, ifd and rds_plus, end to end: from a recipe to scores and subsets, and nothing twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.measurements.catalogue import MEASUREMENTS
from nait_assets.measurements.engine import rows_of
from nait_assets.measurements.outputs import PRE_EXPERIENCED_MODEL
from nait_assets.measurements.pre_experience import gain_experience
from nait_assets.models.running import RunOptions
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.tables import CANDIDATE_POOL, scores_table
from nait_assets_tests.command import nait, quick_home, run

METHODS = ["perplexity_low", "ifd", "ifd_pre_experienced", "rds_plus"]


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made") / "home"


@pytest.fixture
def made(_made: Path, make_recipe: Callable[..., Recipe], causal_folder: Path) -> tuple[Recipe, Path, set[str]]:
    """A recipe of all these methods, the home in which it was made, and what the first run made."""
    recipe = make_recipe(
        model={"source": str(causal_folder), "dtype": "float32"},
        methods=METHODS,
        ratios=[0.3],
        capabilities={"math": {"source": "math.jsonl"}},
        measurements={"pre_experienced_model": {"epochs": 4, "learning_rate": 0.01}},
    )
    noted = _made.with_name("made.txt")  # the home itself may hold nothing that `nait` did not write
    if not _made.exists():
        outputs = run(recipe, quick_home(_made))
        noted.write_text("\n".join(sorted(outputs)))
    return recipe, _made, set(noted.read_text().splitlines())


def scores(home: Path, method: str, target: str) -> pl.DataFrame:
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        return snapshot.rows(scores_table(method), target=target)


def outputs(home: Path, name: str, corpus: str = POOL) -> pl.DataFrame:
    reading = next(one for one in MEASUREMENTS if one.name == name)
    return rows_of(Warehouse(home=str(home)), reading, corpus)[0]


def test_every_method_makes_scores_and_subsets_and_a_second_run_makes_nothing(made: Any) -> None:
    """The whole way, by the command that users run."""
    recipe, home, first = made

    assert {f"scoring/{method}_scores[{target}]" for method in METHODS for target in recipe.targets} <= first
    assert {f"selection/{method}_subset[{target}|0.30]" for method in METHODS for target in recipe.targets} <= first
    # What no method reads is not made: in-domain answers, activations.
    extracted = {name.split("[")[0] for name in first if name.startswith(("extraction/", "measurements/"))}
    assert extracted == {
        "measurements/candidate_outputs",
        "measurements/candidate_answers",
        "measurements/in_domain_outputs",
        "measurements/pre_experienced_model",
        "measurements/candidate_experienced_outputs",
        "measurements/candidate_experienced_answers",
    }
    assert run(recipe, home) == set()
    audit = nait("audit", "--recipe", recipe.path, "--home", home)
    assert audit.code == 0, audit.out + audit.err


def test_perplexity_orders_by_the_loss_of_the_text(made: Any) -> None:
    """For every target alike."""
    recipe, home, _ = made
    losses = dict(outputs(home, "outputs").select("sample_id", "text_loss").iter_rows())

    for target in recipe.targets:
        found = scores(home, "perplexity_low", target).sort("rank")
        assert found["sample_id"].to_list() == sorted(losses, key=lambda name: (losses[name], name))


@pytest.mark.parametrize(("method", "prefix"), [("ifd", ""), ("ifd_pre_experienced", "experienced_")])
def test_ifd_is_the_ratio_of_losses_and_drops_what_is_above_one(made: Any, method: str, prefix: str) -> None:
    """A dropped row has its reason, and is in no subset."""
    _, home, _ = made
    both = outputs(home, f"{prefix}outputs").join(outputs(home, f"{prefix}answers"), on="sample_id")
    wanted = {row["sample_id"]: row["answer_loss"] / row["answer_loss_alone"] for row in both.iter_rows(named=True)}

    found = scores(home, method, "math")

    kept = {name: value for name, value in wanted.items() if value <= 1}
    assert 0 < len(kept) < len(wanted)
    ranked = found.filter(pl.col("score").is_not_null()).sort("rank")
    assert ranked["sample_id"].to_list() == sorted(kept, key=lambda name: (-kept[name], name))
    assert ranked["score"].to_list() == pytest.approx([kept[name] for name in ranked["sample_id"]])
    dropped = found.filter(pl.col("score").is_null())
    assert set(dropped["sample_id"]) == set(wanted) - set(kept)
    assert all("above 1" in reason for reason in dropped["reason"])


def test_rds_plus_is_the_best_cosine_and_takes_turns_by_example(made: Any) -> None:
    """Against loops over candidates and examples."""
    recipe, home, _ = made
    candidates = outputs(home, "outputs")
    for target in recipe.targets:
        examples = pl.concat([outputs(home, "outputs", name) for name in recipe.capabilities_of(target)])
        wanted = {}
        for one in candidates.iter_rows(named=True):
            y = np.array(one["vector"], np.float64)
            wanted[one["sample_id"]] = max(
                float(y @ e / np.sqrt(y @ y) / np.sqrt(e @ e))
                for e in (np.array(vector, np.float64) for vector in examples["vector"].to_list())
            )

        found = scores(home, "rds_plus", target)

        assert dict(found.select("sample_id", "score").iter_rows()) == pytest.approx(wanted)
        assert sorted(found["turn"].to_list()) == list(range(1, len(wanted) + 1))


def test_pre_experienced_model_finds_responses_likelier_and_is_the_same_when_made_again(
    made: Any, tmp_path: Path
) -> None:
    """A model that did not learn, or that differs from run to run, is no judge."""
    recipe, home, _ = made
    before, after = outputs(home, "outputs"), outputs(home, "experienced_outputs")
    assert float(after["answer_loss"].mean()) < float(before["answer_loss"].mean()) - 0.01  # type: ignore[arg-type]
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        pool = snapshot.read(CANDIDATE_POOL)

    model = LanguageModel.of(recipe, tmp_path / "home")
    options = recipe.measurements.pre_experienced_model
    gain_experience(
        pool.reverse(), model, recipe.extraction, options, RunOptions(), tmp_path / "again", lambda _line: None
    )

    first = PRE_EXPERIENCED_MODEL.folder(Warehouse(home=str(home)))
    assert folder_version(tmp_path / "again") == folder_version(first)
