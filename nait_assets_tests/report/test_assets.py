"""The report as an asset: every kind of recipe has its page, made by `nait run` and known to `nait status`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.command import metadata_of, nait, quick_home, run
from nait_assets_tests.report.test_page import data_of

MakeRecipe = Callable[..., Recipe]
pytestmark = pytest.mark.slow
REPORT = "report/selection_report"
STANDARDIZED = {"methods": ["nait_standardized"], "ratios": [0.3]}


def page_of(home: Path) -> str:
    """The page of a home."""
    return (home / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "sections", "gives_reasons"),
    [
        (
            {"methods": ["random"]},
            {"read", "scores", "targets", "core", "cost", "comparison", "duplicates", "extremes"},
            False,
        ),
        (
            {"methods": ["nait"]},
            {"read", "scores", "targets", "core", "cost", "comparison", "duplicates", "map", "extremes"},
            True,
        ),
        (
            {"capabilities": {"math": {"source": "math.jsonl"}}},
            {"read", "scores", "cost", "comparison", "duplicates", "map", "extremes"},
            True,
        ),
        (
            {"extraction": {"projection": 16}},
            {"read", "scores", "targets", "core", "cost", "comparison", "duplicates", "map", "extremes"},
            True,
        ),
    ],
    ids=["without a model", "without neurons' statistics", "one capability", "projection"],
)
def test_every_recipe_has_a_page_of_what_it_made(
    make_recipe: MakeRecipe, tmp_path: Path, fields: dict[str, Any], sections: set[str], gives_reasons: bool
) -> None:
    """The page reads tables that some recipes do not have; what is not there is left out, and nothing is invented."""
    recipe, home = make_recipe(**{**STANDARDIZED, **fields}), quick_home(tmp_path / "home")
    assert REPORT in run(recipe, home)
    html = page_of(home)
    assert set(re.findall(r'<section id="(\w+)">', html)) == {*sections, "table"}
    assert bool(data_of(html)["table"]["reasons"]) == gives_reasons
    status = nait("status", "--recipe", recipe.path, "--home", home)
    assert status.code == 0, status.out
    assert run(recipe, home) == set()


def test_a_capability_from_a_feature_file_has_its_place_on_the_map(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """It has no examples to show, but its mean activation is in the file."""
    run(make_recipe(**STANDARDIZED), quick_home(tmp_path / "first"))
    library = {"math": {"features": str(tmp_path / "first" / "features" / "math")}}
    recipe, home = make_recipe(**STANDARDIZED, capabilities=library), quick_home(tmp_path / "second")
    run(recipe, home)
    points = next(spec for spec in data_of(page_of(home))["charts"] if "usermeta" in spec)["data"]["values"]
    assert [point["target"] for point in points if point["kind"] == "centroid"] == ["math"]
    assert [point for point in points if point["kind"] == "example"] == []


def test_the_page_is_made_again_when_something_on_it_changed_or_it_is_gone(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """A page of last week's subsets is worse than none; one that somebody deleted must come back."""
    recipe, home = make_recipe(methods=["random"], ratios=[0.3]), quick_home(tmp_path / "home")
    run(recipe, home)
    before = metadata_of(home, REPORT)
    assert before["path"] == str(home / "report" / "index.html")
    assert before["size_bytes"] == (home / "report" / "index.html").stat().st_size
    assert before["n_chosen_candidates"] == before["n_candidates_in_table"]
    (home / "report" / "index.html").unlink()
    assert run(recipe, home) == {REPORT}
    assert REPORT in run(make_recipe(methods=["random"], ratios=[0.3], seed=1), home)


def test_the_record_names_every_input_that_the_page_rests_on(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """An input that is read and not recorded could change unseen."""
    recipe, home = make_recipe(methods=["random"], ratios=[0.3]), quick_home(tmp_path / "home")
    run(recipe, home)
    subsets = {f"selection/random_subset[{target}|0.30]" for target in recipe.targets}
    scores = {f"scoring/random_scores[{target}]" for target in recipe.targets}
    assert set(Warehouse(home=str(home)).records()[REPORT].inputs) == {
        "corpora/candidate_pool",
        *(f"corpora/in_domain_set[{name}]" for name in recipe.capabilities),  # it prints what of them was refused
        "report/method_comparison",
        *subsets,
        *scores,
    }
