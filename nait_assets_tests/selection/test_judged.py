"""What a ratio is a share of: the whole pool, or the candidates that every method could judge."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from nait_assets.recipe import Recipe
from nait_assets_tests.command import quick_home, run
from nait_assets_tests.conftest import half_with_system, write_jsonl

MakeRecipe = Callable[..., Recipe]


def chosen(home: Path, method: str) -> set[str]:
    return set(pl.read_parquet(home / f"subsets/{method}/all/0.40/train.parquet")["sample_id"].to_list())


def test_of_judged_gives_every_method_the_same_candidates(
    make_recipe: MakeRecipe, tmp_path: Path, strict_model: Path
) -> None:
    """A control that chooses from twice as many rows, among them those nobody else could, is none."""
    write_jsonl(tmp_path / "pool.jsonl", half_with_system())
    model, methods = {"source": str(strict_model), "dtype": "float32"}, ["nait_standardized", "random"]
    recipe, home = make_recipe(model=model, methods=methods, ratios=[0.4]), quick_home(tmp_path / "home")
    run(recipe, home)
    of_pool = {method: chosen(home, method) for method in methods}
    assert [len(of_pool[method]) for method in methods] == [8, 8]

    made = run(make_recipe(model=model, methods=methods, ratios=[0.4], selection={"of": "judged"}), home)

    assert made >= {f"selection/{method}_subset[all|0.40]" for method in methods}
    assert not any(name.startswith(("scoring/", "extraction/", "corpora/")) for name in made)
    of_judged = {method: chosen(home, method) for method in methods}
    assert [len(of_judged[method]) for method in methods] == [4, 4]
    assert of_judged["nait_standardized"] < of_pool["nait_standardized"]
    card = (home / "subsets/random/all/0.40/README.md").read_text(encoding="utf-8")
    assert "0.40 of the candidates that every method has judged, which the strategy `round_robin_targets`" in card
    assert run(make_recipe(model=model, methods=methods, ratios=[0.4], selection={"of": "judged"}), home) == set()


def test_the_default_keeps_the_versions_of_subsets(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Else every subset of every home would be made anew."""
    from nait_assets.definitions import build_definitions

    versions = [
        {spec.key: spec.code_version for spec in build_definitions(recipe, tmp_path).resolve_all_asset_specs()}
        for recipe in (make_recipe(), make_recipe(selection={"of": "pool"}), make_recipe(selection={"of": "judged"}))
    ]
    assert versions[0] == versions[1]
    changed = {key.path[0] for key, version in versions[2].items() if version != versions[0][key]}
    assert changed == {"selection"}
