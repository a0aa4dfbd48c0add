"""The manifest of a home, kept elsewhere: what a forger changes together with the records is named all the same."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nait_assets.audit.manifest import Stated, differences, root_of
from nait_assets.catalogue import Output
from nait_assets.lineage import canonical
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.files import sha256
from nait_assets_tests.audit.test_chain import audit, edit
from nait_assets_tests.test_docs import everything

PAGE = "report/selection_report"


@pytest.fixture
def signed(recipe: Recipe, home: Path, tmp_path: Path) -> Path:
    """The manifest of a finished home."""
    answer = audit(recipe, home, "--sign", tmp_path / "manifest.json")
    assert answer.code == 0, answer.out
    return tmp_path / "manifest.json"


def stated(*names: str) -> list[Stated]:
    """Outputs of these names."""
    return [Stated(name, "1", "2", "3") for name in names]


def forge_page(home: Path) -> None:
    """Another page, and a record that says so and has its hash: what an insider with the code would do."""
    page = home / "report" / "index.html"
    page.write_text(page.read_text(encoding="utf-8").replace("random", "modnar"), encoding="utf-8")
    with Warehouse(home=str(home)).tables.transaction() as transaction:
        known = transaction.records()[PAGE]
        transaction.put_record(replace(known, data_version=sha256(page)[:16]))


def test_a_forger_who_rewrites_the_records_is_found_by_the_manifest_alone(
    recipe: Recipe, home: Path, signed: Path
) -> None:
    """All that lies in a home can be made to agree; what lies elsewhere cannot."""
    same = audit(recipe, home, "--against", signed)
    assert (same.code, same.out.splitlines()[-1]) == (0, f"every output is as in {signed}")
    forge_page(home)
    assert audit(recipe, home).code == 0
    answer = audit(recipe, home, "--against", signed)
    assert answer.code == 4
    changed, count = answer.out.splitlines()[-2:]
    assert changed == f"changed  {PAGE}: data_version, content, record"
    assert count == f"1 outputs differ from {signed}"


def test_an_altered_output_is_named_by_its_bytes(recipe: Recipe, home: Path, signed: Path) -> None:
    """Its record still says what it said, and the hashes are taken from what there is."""
    edit(home / "warehouse.duckdb", "UPDATE scoring.random_scores SET score = 2 WHERE target = 'code' AND rank = 3")
    answer = audit(recipe, home, "--against", signed)
    assert answer.code == 4
    assert "changed  scoring/random_scores[code]: content" in answer.out.splitlines()


def test_the_same_home_is_the_same_bytes_and_every_output_is_in_it(recipe: Recipe, home: Path, signed: Path) -> None:
    """A signature would else be of a moment and not of a home."""
    before = signed.read_bytes()
    assert audit(recipe, home, "--sign", signed).code == 0
    assert signed.read_bytes() == before
    names = [entry["output"] for entry in json.loads(before)["outputs"]]
    assert names == sorted(Warehouse(home=str(home)).records())


def test_a_broken_home_is_not_signed(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """The manifest would vouch for what nobody made."""
    (home / "notes.txt").write_text("x")
    answer = audit(recipe, home, "--sign", tmp_path / "manifest.json")
    assert answer.code == 4
    assert not (tmp_path / "manifest.json").exists()


def test_what_makes_no_sense_is_refused_before_the_audit(recipe: Recipe, home: Path, tmp_path: Path) -> None:
    """In one sentence each."""
    (tmp_path / "other.json").write_text("[]")
    for arguments, said in {
        ("--sign", home / "manifest.json"): "lies in the home itself",
        ("nait/math/0.30", "--sign", tmp_path / "x.json"): "leave out SUBSET and --row",
        ("--against", tmp_path / "absent.json"): "is no manifest that `nait audit --sign` wrote",
        ("--against", tmp_path / "other.json"): "is no manifest that `nait audit --sign` wrote",
    }.items():
        answer = audit(recipe, home, *map(str, arguments))
        assert (answer.code, answer.out) == (2, ""), arguments
        assert said in answer.err


def test_an_altered_manifest_is_damaged(recipe: Recipe, home: Path, signed: Path) -> None:
    """Who can write to the copy must know the format, too, or the root tells."""
    signed.write_text(signed.read_text().replace('"content": "', '"content": "0', 1))
    answer = audit(recipe, home, "--against", signed)
    assert answer.code == 4
    assert "its root is not that of the outputs" in answer.err


def test_differences_name_what_changed_appeared_and_went() -> None:
    """Each a different reason to look."""
    before, now = stated("a", "b", "c"), stated("b", "c", "d")
    now[0] = replace(now[0], record="4")
    assert differences(before, now) == ["gone     a", "changed  b: record", "new      d"]
    assert differences(before, before) == []


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8, 9])
def test_the_root_is_that_of_rfc_6962(n: int) -> None:
    """Built from below instead of from above: neighbours are paired, and one that is left over goes up as it is."""
    outputs = stated(*(f"output {number}" for number in range(n)))
    level = [hashlib.sha256(b"\0" + canonical(vars(output))).digest() for output in outputs]
    while len(level) > 1:
        pairs = [level[place : place + 2] for place in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    assert root_of(outputs) == (level[0] if level else hashlib.sha256(b"").digest()).hex()


def test_every_output_says_what_it_consists_of(make_recipe: Callable[..., Recipe]) -> None:
    """One that did not would be in the manifest with a hash of nothing, and nobody would see it."""
    silent = {
        name
        for recipe in everything(make_recipe)
        for name, output in recipe.outputs.items()
        if output.table is None and type(output).content is Output.content
    }
    assert silent == set()
