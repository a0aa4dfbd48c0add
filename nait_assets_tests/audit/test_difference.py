"""What changed between two versions of a subset."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nait_assets.audit.difference import Version, changed_inputs, difference
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.selection import history
from nait_assets_tests.command import Answer, nait, run
from nait_assets_tests.conftest import in_domain_rows, pool_rows, write_jsonl

SUBSET = "nait_standardized/math/0.30"


def diff(recipe: Recipe, home: Path, *arguments: str) -> Answer:
    """`nait diff` on a home."""
    return nait("diff", *arguments, "--recipe", recipe.path, "--home", home)


def entry(data_version: str, code_version: str = "1", **inputs: str) -> dict[str, object]:
    """One output of a lineage."""
    return {"data_version": data_version, "code_version": code_version, "inputs": inputs}


def test_rows_are_added_removed_and_kept_in_the_order_of_their_version() -> None:
    """Sets alone would show the rows in another order each time."""
    before, after = Version("a", "", ("1", "2", "3"), {}), Version("b", "", ("4", "3", "1", "5"), {})
    found = difference(before, after)
    assert (found.added, found.removed, found.kept) == (("4", "5"), ("2",), ("3", "1"))


@pytest.mark.parametrize(
    ("after", "causes"),
    [
        ({"pool": entry("p", source="1"), "scores": entry("s", pool="p")}, []),
        (
            {"pool": entry("q", source="2"), "scores": entry("t", pool="q")},
            ["pool: source changed (1 -> 2)"],
        ),
        (
            {"pool": entry("p", source="1"), "scores": entry("t", "2", pool="p")},
            ["scores: the recipe or the code changed (1 -> 2)"],
        ),
        (
            {"pool": entry("p", source="1"), "scores": entry("t", pool="p")},
            ["scores came out otherwise from the same inputs"],
        ),
        (
            {"pool": entry("p", source="1"), "scores": entry("t", pool="p", extra="e"), "extra": entry("e")},
            ["extra is new"],
        ),
        (
            {"pool": entry("p", source="1", another="3"), "scores": entry("s", pool="p")},
            ["pool: another changed (absent -> 3)"],
        ),
    ],
)
def test_only_the_change_that_explains_the_others_is_named(
    after: dict[str, dict[str, object]], causes: list[str]
) -> None:
    """A changed source changes every version behind it; a list of all of them would hide it."""
    before = {"pool": entry("p", source="1"), "scores": entry("s", pool="p")}
    assert changed_inputs(before, after) == causes


def test_what_chooses_otherwise_from_the_same_scores_is_named() -> None:
    """A lowest score, a budget, another strategy: nothing that is recorded, it was said, of half the rows gone."""

    def of(code_version: str, **settings: object) -> dict[str, dict[str, object]]:
        named = {name.replace("_", ".", 1): value for name, value in settings.items()}
        return {"pool": entry("p"), history.OWN: {"code_version": code_version, "settings": named}}

    low = of("4:b", selection_strategy="top", selection_min_score=0.5)
    assert changed_inputs(of("4:a", selection_strategy="top"), low) == ["selection.min_score: absent -> 0.5"]
    assert changed_inputs(low, low) == []
    assert changed_inputs(of("4:a"), of("5:a")) == ["the code that chooses changed (4:a -> 5:a)"]
    assert changed_inputs({"pool": entry("p")}, low) == [], "an earlier version did not record it"


def test_a_changed_selection_is_named_as_the_cause(
    make_recipe: Callable[..., Recipe], recipe: Recipe, home: Path
) -> None:
    """The whole way, of a subset that loses rows and of one that keeps them."""
    run(make_recipe(ratios=[0.3], selection={"min_score": 0.1, "all": "top"}), home)
    for subset in (SUBSET, "nait_standardized/all/0.30"):
        causes = diff(recipe, home, subset).out.partition("what changed:\n")[2]
        assert "  selection.min_score: absent -> 0.1\n" in causes
        assert ("selection.strategy: round_robin_targets -> top" in causes) == ("/all/" in subset)


def test_new_examples_are_named_as_the_cause(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """The whole way: a source changes, the subset follows, and the difference says which and why."""
    rows = [*in_domain_rows("math", 3), *pool_rows()[:3]]
    write_jsonl(tmp_path / "math.jsonl", rows)
    run(recipe, home)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        known = history.versions(snapshot, *SUBSET.split("/"))
    assert known["number"].to_list() == [1, 2]
    old, new = (set(ids) for ids in known["sample_ids"].to_list())
    answer = diff(recipe, home, SUBSET)
    assert answer.code == 0, answer.err
    assert f"rows: {len(new - old)} added, {len(old - new)} removed, {len(old & new)} kept" in answer.out
    causes = answer.out.partition("what changed:\n")[2].splitlines()
    assert len(causes) == 1
    assert causes[0].startswith("  corpora/in_domain_set[math]: source:0:math.jsonl changed (")
    for name in (f"{SUBSET}@{known['data_version'][0]}", f"{SUBSET}@~1"):
        assert diff(recipe, home, name, SUBSET).out == answer.out


def test_the_history_grows_by_changes_alone(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """A run that finds nothing new adds nothing; a change that is taken back adds a version, not a gap."""
    pool = (tmp_path / "pool.jsonl").read_text()
    run(recipe, home)
    write_jsonl(tmp_path / "pool.jsonl", pool_rows(24))
    run(recipe, home)
    (tmp_path / "pool.jsonl").write_text(pool)
    run(recipe, home)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        known = history.versions(snapshot, "random", "math", "0.30")
    assert known["number"].to_list() == [1, 2, 3]
    assert known["data_version"][0] == known["data_version"][2] != known["data_version"][1]
    assert [len(ids) for ids in known["sample_ids"].to_list()] == [6, 8, 6]
    assert all(json.loads(text)["corpora/candidate_pool"]["inputs"] for text in known["lineage"].to_list())


def test_different_subsets_can_be_compared(recipe: Recipe, home: Path) -> None:
    """How much do two methods agree, row by row?"""
    answer = diff(recipe, home, SUBSET, "random/math/0.30")
    assert answer.code == 0
    assert "scoring/random_scores[math] is new" in answer.out
    assert "scoring/nait_standardized_scores[math] is gone" in answer.out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (SUBSET, "is not one version of"),
        (f"{SUBSET}@feed", "is not one version of"),
        (f"{SUBSET}@~9", "is not one version of"),
        ("nait/math", "names 1 subsets|is not one version of"),
        ("poetry", "has no subset"),
    ],
)
def test_a_version_that_there_is_not_is_bad_input(recipe: Recipe, home: Path, name: str, message: str) -> None:
    """The message lists the versions that there are."""
    answer = diff(recipe, home, name)
    assert answer.code == 2
    assert any(part in answer.err for part in message.split("|")), answer.err


def test_nothing_to_compare_makes_no_cause(make_recipe: Callable[..., Recipe], recipe: Recipe, home: Path) -> None:
    """A version is equal to itself."""
    answer = diff(recipe, home, SUBSET, SUBSET)
    assert "0 added, 0 removed, 6 kept" in answer.out
    assert answer.out.rstrip().endswith("nothing that is recorded")
