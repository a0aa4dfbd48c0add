"""Rooms: one that is a folder and a line is planned, made, checked, verified and announced; bodies are thin."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import nait_assets
from nait_assets import definitions
from nait_assets.audit.chain import Auditor, first_broken
from nait_assets.definitions import ROOMS, build_definitions, catalogue_of
from nait_assets.lineage import asset_path
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets_tests.command import nait, quick_home, run
from nait_assets_tests.toy_room.catalogue import COUNTS, WORD_FILE
from nait_assets_tests.toy_room.room import ROOM

MakeRecipe = Callable[..., Recipe]
MOST_LINES = 15


@pytest.fixture
def recipe(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe that needs no model, in a project that has one room more."""
    monkeypatch.setattr(definitions, "ROOMS", (*ROOMS, ROOM))
    found = make_recipe(methods=["random"], ratios=[0.3])
    found.resolve(WORD_FILE).write_text("cat\n")
    return found


def test_a_room_more_is_a_folder_and_a_line(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds a stage writes what it makes, once; nothing else of the project has to hear of it."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "events.jsonl"))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    home = quick_home(tmp_path / "home")
    assert COUNTS.key in run(recipe, home)
    assert run(recipe, home) == set()

    event = next(
        event
        for event in map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
        if event["outputs"][0]["name"] == COUNTS.key
    )
    assert {one["name"] for one in event["inputs"]} == {"corpora/candidate_pool", str(recipe.resolve(WORD_FILE))}

    recipe.resolve(WORD_FILE).write_text("zebra\n")
    status = nait("status", "--recipe", recipe.path, "--home", home)
    assert f"source:0:{WORD_FILE} changed" in status.out
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert "it occurs 0 times" in answer.out
    recipe.resolve(WORD_FILE).unlink()
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    assert "it names the word that is counted" in answer.err


def test_a_room_more_is_verified(recipe: Recipe, tmp_path: Path) -> None:
    """A number that somebody edited, and a file that is another now."""
    home = quick_home(tmp_path / "home")
    run(recipe, home, "--select", f"+key:{COUNTS.key}")
    specs = build_definitions(recipe, home).resolve_all_asset_specs()
    versions = {asset_path(spec.key): spec.code_version for spec in specs}
    warehouse, model = Warehouse(home=str(home)), LanguageModel.of(recipe, home)

    def first_fault() -> str:
        broken = first_broken(Auditor(recipe, warehouse, model, catalogue_of(recipe), versions).links(COUNTS.key))
        return f"{broken.what}: {broken.says}" if broken else ""

    assert first_fault() == ""
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("UPDATE toys.word_counts SET n_times = 7")
    assert "the 20 rows in toys.word_counts have the hash" in first_fault()
    recipe.resolve(WORD_FILE).write_text("dog\n")
    assert first_fault().startswith(f"source:0:{WORD_FILE}: is ")


def test_every_asset_makes_an_output_of_its_room(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """An asset without one would be planned by nobody, and verified by nobody."""
    lists = {"best": {"source": "pool.jsonl"}}
    held_out = {"exam": {"source": "math.jsonl"}}
    methods = ["nait_standardized", "mona", "less", "ifd_pre_experienced", "rds_plus", "best"]
    made = make_recipe(
        methods=methods,
        published=lists,
        evaluation={"held_out": held_out, "tasks": {"math": {"source": "math.jsonl"}}},
        prices={},
        extraction={"projection": 16},
        training={"reference": {"random_matched": 1}, "probes": {}},
    )
    catalogue = catalogue_of(made)
    for spec in build_definitions(made, tmp_path).resolve_all_asset_specs():
        if asset_path(spec.key) != "audit/lineage_audit":  # which looks at outputs, and makes none
            output = catalogue[asset_path(spec.key)]
            assert spec.group_name == output.room
            assert (spec.partitions_def is None) == (output.partitions is None)


def test_keys_are_put_together_in_one_place() -> None:
    """A key that is taken apart elsewhere is a fact about an output that stands in its name."""
    package = Path(nait_assets.__file__).parent
    files = {str(file.relative_to(package)) for file in package.rglob("*.py") if "AssetKey(" in file.read_text("utf-8")}
    assert files == {"lineage.py"}


def bodies() -> dict[str, int]:
    """Lines of the body of every asset, its docstring excepted."""
    found = {}
    for file in sorted(Path(nait_assets.__file__).parent.glob("*/assets.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("dg.asset" in ast.unparse(one) for one in node.decorator_list):
                first = node.body[1 if ast.get_docstring(node) is not None else 0]
                found[f"{file.parent.name}/{node.name}"] = (node.end_lineno or 0) - first.lineno + 1
    return found


def test_bodies_of_assets_are_thin() -> None:
    """A body reads, calls one function, writes and returns what people look at; the rest is tested without Dagster."""
    found = bodies()
    assert len(found) >= 12
    assert {name: lines for name, lines in found.items() if lines > MOST_LINES} == {}
