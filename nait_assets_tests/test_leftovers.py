"""What the recipe no longer has: `nait status` names it, `nait clean` removes it, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.leftovers import leftovers
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.conftest import in_domain_rows, write_jsonl

MakeRecipe = Callable[..., Recipe]
METHODS = ["nait_standardized", "rds_plus", "length_long", "random"]


@pytest.fixture
def held_out(tmp_path: Path) -> dict[str, Any]:
    """Two held-out sets."""
    for name in ("one", "two"):
        write_jsonl(tmp_path / f"{name}.jsonl", in_domain_rows(name))
    return {name: {"source": f"{name}.jsonl"} for name in ("one", "two")}


def everything(home: Path) -> set[str]:
    """Every file of a home but Dagster's, and every row of its tables that says whose it is."""
    files = {str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()}
    found = {file for file in files if not file.startswith(("dagster/", "hashes.json", "warehouse.duckdb"))}
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        columns = snapshot.connection.execute(
            "SELECT schema_name || '.' || table_name, column_name FROM duckdb_columns() WHERE database_name = 'store' "
            "AND column_name IN ('method', 'target', 'ratio', 'capability', 'corpus', 'evaluation', 'partition')"
        ).fetchall()
        for table, column in columns:
            if table not in ("selection.history", "lineage.costs"):
                values = snapshot.connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
                found |= {f"{table}.{column}={value}" for (value,) in values}
    return found


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        (
            {
                "capabilities": {"algebra": {"source": "math.jsonl"}, "code": {"source": "code.jsonl"}},
                "ratios": [0.3],
                "evaluation": {"held_out": {"one": {"source": "one.jsonl"}}},
            },
            ("math", "|0.10", "evaluation_set: two"),
        ),
        (
            {"evaluation": {}, "methods": ["length_long"]},
            ("rds_plus_scores", "evaluation_set: one, two"),
        ),
    ],
    ids=["renamed capability, removed ratio and held-out set", "removed methods and all held-out sets"],
)
def test_what_the_recipe_no_longer_has_is_named_and_removed(
    make_recipe: MakeRecipe,
    tmp_path: Path,
    held_out: dict[str, Any],
    changed: dict[str, Any],
    gone: tuple[str, ...],
    causal_folder: Path,
) -> None:
    """A training script would go on with a subset that nobody makes any more; a home of its own is the judge."""
    fields = {
        "methods": METHODS,
        "evaluation": {"held_out": held_out},
        "model": {"source": str(causal_folder), "dtype": "float32"},
    }
    recipe, home = make_recipe(**fields), quick_home(tmp_path / "home")
    run(recipe, home)
    recipe = make_recipe(**{**fields, **changed})
    run(recipe, home)

    answer = nait("status", "--recipe", recipe.path, "--home", home)

    assert answer.code == 0, answer.out
    assert "outputs that the recipe no longer has; `nait clean` removes them:" in answer.out
    assert all(name in answer.out for name in gone), answer.out
    audited = nait("audit", "--recipe", recipe.path, "--home", home)
    assert audited.code == 0, audited.out
    warehouse = Warehouse(home=str(home))
    with warehouse.tables.snapshot() as snapshot:
        shown = snapshot.connection.execute("SELECT DISTINCT method, target FROM scoring.scores").fetchall()
    assert set(shown) == {(method, target) for method in recipe.methods for target in recipe.targets}
    answer = nait("clean", "--recipe", recipe.path, "--home", home, "--yes")
    assert answer.code == 0, answer.err
    fresh = quick_home(tmp_path / "fresh")
    run(recipe, fresh)
    assert everything(home) == everything(fresh)
    for command in ("status", "audit", "summary"):
        answer = nait(command, "--recipe", recipe.path, "--home", home)
        assert answer.code == 0, answer.out + answer.err
        assert "no longer has" not in answer.out
    assert run(recipe, home) == set()
    assert nait("clean", "--recipe", recipe.path, "--home", home).out.endswith(f"that {recipe.path} does not.\n")


def test_clean_asks_and_leaves_everything_where_the_answer_is_no(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations may have taken days."""
    from nait_assets.definitions import build_definitions

    home = quick_home(tmp_path / "home")
    run(make_recipe(methods=["random", "length_long"], ratios=[0.1]), home)
    recipe = make_recipe(methods=["random"], ratios=[0.1])
    before = everything(home)
    monkeypatch.setattr("click.confirm", lambda question: False)

    answer = nait("clean", "--recipe", recipe.path, "--home", home)

    assert (answer.code, everything(home)) == (0, before)
    assert answer.out.endswith("Nothing was removed.\n")
    left = leftovers(recipe, build_definitions(recipe, home), Warehouse(home=str(home)))
    targets = ("all", "code", "math")
    assert [each.reference for each in left] == [
        *(f"scoring/length_long_scores[{target}]" for target in targets),
        *(f"selection/length_long_subset[{target}|0.10]" for target in targets),
    ]
