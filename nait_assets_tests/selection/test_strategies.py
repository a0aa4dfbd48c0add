"""Strategies in a whole run: what is chosen, what says so, what is made again, and what the audit finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.selection.checks import build_checks
from nait_assets.tables import SUBSETS, scores_table
from nait_assets_tests.command import metadata_of, nait, quick_home, run

MakeRecipe = Callable[..., Recipe]
METHODS = ["bm25", "random"]
"""Which need no model."""
FIELDS: dict[str, Any] = {
    "methods": METHODS,
    "ratios": [0.1, 0.3],
    "selection": {
        "strategy": "union",
        "by_method": {
            "random": {"strategy": "diverse", "similarity_limit": 0.3},
        },
    },
}


def chosen(home: Path, method: str, target: str, ratio: str = "0.30") -> set[str]:
    """Ids of a subset's rows."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        return set(snapshot.rows(SUBSETS, method=method, target=target, ratio=ratio)["sample_id"].to_list())


def best(home: Path, method: str, target: str, n: int) -> set[str]:
    """Ids of the n rows of the best ranks."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        scores = snapshot.rows(scores_table(method), target=target)
    return set(scores.filter(pl.col("rank") <= n)["sample_id"].to_list())


def manifest(home: Path, subset: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "subsets" / subset / "manifest.json").read_text())
    return found


def test_strategies_from_recipe_to_audit(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """One home, as its runs are what costs: each step is what a user does next.

    Two strategies choose, say so everywhere, and hold in the audit; a second run makes nothing; another strategy
    makes the subsets anew and not one score, although the ratios that are made first stand beside old ones meanwhile.
    """
    recipe, home = make_recipe(**FIELDS), quick_home(tmp_path / "home")
    run(recipe, home)
    assert chosen(home, "bm25", "math") == best(home, "bm25", "math", 6)
    tops = [best(home, "bm25", name, 6) for name in ("code", "math")]
    union = chosen(home, "bm25", "all")
    assert len(union) == 6
    assert union <= tops[0] | tops[1]
    assert all(len(union & top) >= 3 for top in tops)
    assert chosen(home, "random", "math") != best(home, "random", "math", 6), "the pool repeats itself"

    stated = {"strategy": "diverse", "similarity_limit": 0.3, "by": "text"}
    assert manifest(home, "random/math/0.30")["selection"] == stated
    shown = metadata_of(home, "selection/random_subset[math|0.30]")
    assert (shown["selection"], shown["n_wanted"]) == (stated, 6)
    card = (home / "subsets" / "random" / "math" / "0.30" / "README.md").read_text()
    assert "the strategy `diverse` (similarity_limit 0.3, by text) took from the ranking" in card

    assert run(recipe, home) == set()
    audit = nait("audit", "--recipe", recipe.path, "--home", home)
    assert audit.code == 0, audit.out + audit.err

    by_method = {"random": {"strategy": "facility_location", "pool_factor": 2}}
    changed = make_recipe(**{**FIELDS, "selection": {"strategy": "round_robin_targets", "by_method": by_method}})
    targets = [f"{target}|{ratio}" for target in ("code", "math", "all") for ratio in ("0.10", "0.30")]
    again = {f"selection/{method}_subset[{cell}]" for method in METHODS for cell in targets}
    assert {name for name in run(changed, home) if not name.startswith("report/")} == again
    assert chosen(home, "random", "math") <= best(home, "random", "math", 12)

    statement = f"UPDATE {SUBSETS.name} SET score = 0 WHERE method = 'random' AND target = 'math' AND ratio = '0.30'"
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        assert connection.execute(statement).fetchall() == [(6,)]
    audit = nait("audit", "random/math", "--recipe", changed.path, "--home", home)
    assert audit.code == 4
    assert "selection/random_subset[math|0.30]" in audit.out + audit.err


def test_capabilities_take_turns_for_all_and_everything_says_whose_rows_they_are(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """By default, of the methods that look at the target; another choice for `all` makes their subsets anew alone."""
    methods = ["bm25", "length_long"]
    recipe, home = make_recipe(methods=methods, ratios=[0.3]), quick_home(tmp_path / "home")
    run(recipe, home)
    rows = chosen(home, "bm25", "all")
    turns = {"code": 3, "math": 3}
    assert all(len(rows & best(home, "bm25", name, 6)) >= 3 for name in turns)
    shown = metadata_of(home, "selection/bm25_subset[all|0.30]")
    assert (shown["rows_by_turn"], shown["selection"]) == (turns, {"strategy": "round_robin_targets"})
    assert "lowest_score" in shown
    assert "threshold" not in shown
    assert manifest(home, "bm25/all/0.30")["rows_by_turn"] == turns
    said = "3 (50%) in the turn of code, 3 (50%) in the turn of math"
    assert said in (home / "subsets" / "bm25" / "all" / "0.30" / "README.md").read_text()
    assert f"  0.30: {said}" in nait("summary", "--recipe", recipe.path, "--home", home).out.splitlines()
    page = (home / "report" / "index.html").read_text()
    assert "Share of each capability in all" in page
    for target, method in (("math", "bm25"), ("all", "length_long")):
        shown = metadata_of(home, f"selection/{method}_subset[{target}|0.30]")
        assert (shown["selection"], "rows_by_turn" in shown, "threshold" in shown) == ({"strategy": "top"}, False, True)

    changed = make_recipe(methods=methods, ratios=[0.3], selection={"all": "top"})
    assert {name for name in run(changed, home) if not name.startswith("report/")} == {
        f"selection/bm25_subset[{target}|0.30]" for target in ("code", "math", "all")
    }
    assert chosen(home, "bm25", "all") == best(home, "bm25", "all", 6)
    assert "in the turn of" not in nait("summary", "--recipe", changed.path, "--home", home).out


def test_a_reading_s_vectors_say_who_is_alike(make_recipe: MakeRecipe, causal_folder: Path, tmp_path: Path) -> None:
    """Made for the candidates though no method reads it, not for examples; the subset and the audit rest on it."""
    selection: dict[str, Any] = {"strategy": "facility_location", "by": "outputs"}
    model = {"source": str(causal_folder), "dtype": "float32"}
    selection["by_method"] = {"bm25": {**selection, "all": "turns"}}  # which rests on the vectors and reads none
    recipe, home = make_recipe(model=model, methods=METHODS[::-1], ratios=[0.3], selection=selection), tmp_path / "home"
    made = run(recipe, quick_home(home))
    assert {name for name in made if name.startswith("measurements/")} == {"measurements/candidate_outputs"}
    assert "measurements/candidate_outputs" in manifest(home, "random/math/0.30")["inputs"]
    assert run(recipe, home) == set()
    audit = nait("audit", "random/math", "--recipe", recipe.path, "--home", home)
    assert audit.code == 0, audit.out + audit.err
    assert "measurements/candidate_outputs" in audit.out


def test_an_unknown_reading_stops_before_anything_is_made(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A typing error must not cost the hours of extraction in front of it."""
    recipe = make_recipe(selection={"strategy": "diverse", "by": "embedings"})
    answer = nait("run", "--recipe", recipe.path, "--home", tmp_path / "home")
    assert answer.code != 0
    assert "'embedings' names no measurement with vectors; there are text" in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "home" / "warehouse.duckdb").exists()


def test_containment_is_claimed_where_it_holds(make_recipe: MakeRecipe) -> None:
    """A blocking check of what a strategy does not promise would stop runs that are right."""
    recipe = make_recipe(methods=METHODS, selection={"by_method": {"random": {"strategy": "facility_location"}}})
    claims = {
        checks.asset: {check.name for check in checks.checks} for checks in build_checks(recipe, Partitions.of(recipe))
    }
    assert "smaller_ratios_are_contained" in claims["selection/bm25_subset"]
    assert "smaller_ratios_are_contained" not in claims["selection/random_subset"]
