"""Commands that print JSON: the same facts as the text, and the same exit code."""

import json
from pathlib import Path
from typing import Any

from nait_assets.recipe import Recipe
from nait_assets_tests.command import Answer, nait, quick_home

SUBSET = "nait_standardized/math/0.30"


def asked(command: str, recipe: Recipe, home: Path, *arguments: str) -> tuple[Answer, Any]:
    """A command's answer, and its JSON."""
    answer = nait(command, *arguments, "--json", "--recipe", recipe.path, "--home", home)
    return answer, json.loads(answer.out)


def test_status_of_an_empty_home(recipe: Recipe, tmp_path: Path) -> None:
    home = quick_home(tmp_path / "empty")
    answer, said = asked("status", recipe, home)
    assert answer.code == nait("status", "--recipe", recipe.path, "--home", home).code == 3
    first = said["outputs"][0]
    assert first == {
        "output": "corpora/candidate_pool",
        "n_partitions": 1,
        "n_current": 0,
        "out_of_date": [{"partition": "", "reasons": ["missing"]}],
        "may_change_after": [],
    }
    assert said["leftovers"] == []
    assert said["damage"] == ""


def test_status_says_what_changed_and_what_rests_on_it(recipe: Recipe, home: Path) -> None:
    assert asked("status", recipe, home)[0].code == 0
    with (recipe.path.parent / "pool.jsonl").open("a") as pool:
        pool.write("\n")
    answer, said = asked("status", recipe, home)
    outputs = {one["output"]: one for one in said["outputs"]}
    (pool_is,) = outputs["corpora/candidate_pool"]["out_of_date"]
    assert answer.code == 3
    assert [reason.endswith(" changed") for reason in pool_is["reasons"]] == [True]
    assert "corpora/candidate_pool" in outputs["scoring/random_scores"]["may_change_after"]


def test_status_of_a_damaged_file(recipe: Recipe, home: Path) -> None:
    (home / "dagster" / "history" / "runs.db").write_bytes(b"no database")
    answer, said = asked("status", recipe, home)
    assert answer.code == 4
    assert "runs.db" in said["damage"]


def test_audit_has_every_link(recipe: Recipe, home: Path) -> None:
    answer, said = asked("audit", recipe, home)
    names = {chain["name"] for chain in said["chains"]}
    assert answer.code == 0
    assert said["holds"] is True
    assert {SUBSET, "home"} <= names
    chain = next(chain for chain in said["chains"] if chain["name"] == SUBSET)
    assert {"output", "what", "holds", "says"} == set(chain["links"][0])
    assert all(link["holds"] for link in chain["links"])


def test_audit_of_a_tampered_subset(recipe: Recipe, home: Path) -> None:
    (home / "subsets" / SUBSET / "train.jsonl").write_text("{}\n")
    answer, said = asked("audit", recipe, home, SUBSET)
    (chain,) = said["chains"]
    broken = [link for link in chain["links"] if link["holds"] is False]
    assert answer.code == 4
    assert said["holds"] is chain["holds"] is False
    assert "train.jsonl changed" in broken[0]["says"]


def test_audit_against_a_manifest(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    answer, _ = asked("audit", recipe, home, "--sign", str(tmp_path / "signed.json"))
    assert "signed.json states" in answer.err  # beside the JSON
    _, said = asked("audit", recipe, home, "--against", str(tmp_path / "signed.json"))
    assert said["differences"] == []


def test_diff_has_every_row(recipe: Recipe, home: Path) -> None:
    answer, said = asked("diff", recipe, home, SUBSET, "random/math/0.30")
    assert answer.code == 0
    assert said["before"]["n_rows"] == len(said["removed"]) + len(said["kept"]) == 6
    assert said["after"]["version"].startswith("random/math/0.30@")
    assert any("random_scores[math] is new" in cause for cause in said["causes"])


def test_a_row_has_no_json_of_its_own(recipe: Recipe, home: Path) -> None:
    answer = nait("audit", "--row", "0", "--json", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    assert "nait explain --json" in answer.err
