"""The pages: what the README says that there is, is what there is, and what pages point to exists."""

import itertools
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from nait_assets.definitions import build_definitions
from nait_assets.recipe import PROJECT_ROOT, Recipe, declared_methods, load_recipe
from nait_assets.resources import Warehouse
from nait_assets.tables import scores_table

MakeRecipe = Callable[..., Recipe]
README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    [PROJECT_ROOT / name for name in ("README.md", "CONTRIBUTING.md", "recipes/README.md", "benchmarks/README.md")]
    + list((PROJECT_ROOT / "docs").glob("*.md"))
)


def table_under(header: str) -> list[list[str]]:
    """Cells of the README's table with this header line, row by row."""
    lines = README[README.index(header) :].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def everything(make_recipe: MakeRecipe) -> list[Recipe]:
    """Recipes that have, together, every asset that there is."""
    methods = [*declared_methods(), "cherry"]
    measurements = {
        "judgements": {"endpoint": "http://localhost:1/v1", "model": "judge"},
        "rewards": {"source": "a-folder"},
    }
    training = {"reference": {"random_matched": 1}, "probes": {}, "runs": {"targets": ["math", "math@2"]}}
    source = {"source": "candidates.jsonl"}
    capabilities = {"code": {"source": "code.jsonl"}, "math": {"source": "math.jsonl", "sizes": [2]}}
    extra = {
        "capabilities": capabilities,
        "published": {"cherry": {"source": "candidates.jsonl"}},
        "prices": {"gpu_hour": 2.0},
        "filters": {"near_duplicates": {}},
        "evaluation": {"held_out": {"exam": source}, "tasks": {"math": source}},
    }
    return [
        make_recipe(methods=methods, measurements=measurements, training=training, **extra),
        make_recipe(methods=["nait_standardized"], extraction={"projection": 16}),
    ]


def test_the_room_table_names_every_asset(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A reader looks an asset up here; one that is missing, or no longer there, misleads."""
    named, room = set(), ""
    for cells in table_under("| room | assets |"):
        room = cells[0] or room
        named |= {f"{room}/{name}" for name in re.findall(r"`([a-z_<>]+)(?:\[[^`]*\])?`", cells[1])}
    keys: set[str] = set()
    for recipe in everything(make_recipe):
        keys |= {"/".join(spec.key.path) for spec in build_definitions(recipe, tmp_path).resolve_all_asset_specs()}
    keys = {re.sub(r"(scoring|selection)/\w+_", r"\1/<method>_", key) for key in keys}
    keys = {re.sub(r"training/\w+_(model|random_matched)$", r"training/<method>_\1", key) for key in keys}
    keys = {
        re.sub(
            r"evaluation/(?!base|full_|random_reference|probe)\w+?((_random_matched)?_results)$",
            r"evaluation/<method>\1",
            key,
        )
        for key in keys
    }
    assert named == {re.sub(r"published_\w+", "published_<name>", key) for key in keys}


def test_the_method_table_names_methods_that_there_are() -> None:
    """All of them are in `docs/methods.md`, which is made from their declarations."""
    named = {name for cells in table_under("| method | a candidate") for name in re.findall(r"`(\w+)`", cells[0])}
    assert named - {"published"} <= set(declared_methods())


def test_the_recipe_of_the_readme_loads(tmp_path: Path) -> None:
    """It is what a newcomer copies."""
    (text,) = re.findall(r"```yaml\n(# recipes/mine.yaml.*?)```", README, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.yaml").capability_names == ["support"]


def test_the_first_screen_is_enough_for_ones_own_data() -> None:
    """Sixty lines are what a newcomer reads: the words, the demo, a recipe, and where the chosen rows are."""
    screen = "\n".join(README.splitlines()[:60])
    for word in ("**capability**", "**target**", "**subset**", "make demo", "nait run --recipe", "train.jsonl"):
        assert word in screen, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A file that was moved leaves links behind; so does a heading that was reworded."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            known = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in known, f"{page.name}: {link}; headings: {sorted(known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    """The pages give reasons with their place in the code; the code moves."""
    folders = [PROJECT_ROOT / name for name in ("nait_assets", "nait_assets_tests", "benchmarks")]
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text(encoding="utf-8")):
        there = (PROJECT_ROOT / name).exists() or any(any(folder.rglob(name)) for folder in folders)
        assert there, f"{page.name}: {name}"


def test_the_walkthrough_arrives_at_the_stored_score(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It computes every step again, from the text to the rank: else the page would explain something else."""
    arguments = ["walkthrough.py", "--recipe", str(recipe.path), "--home", str(home), "--target", "math"]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(PROJECT_ROOT / "benchmarks" / "walkthrough.py"), run_name="__main__")
    told = capsys.readouterr().out
    computed, stored = re.findall(r"sample_id: (\w+); stored: (\w+)", told)[0]
    assert computed == stored
    cosine, score = re.findall(r"= ([\d.]+)\n8. stored score ([\d.]+), rank 1 of", told)[0]
    assert float(cosine) == pytest.approx(float(score), abs=2e-6)
    assert "9. math|0.30: the 6 best" in told


def test_the_walkthrough_replays_a_score(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines that a person with a doubt copies: they give what is stored, for a method and target of one's own."""
    page = (PROJECT_ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        stored = snapshot.read(scores_table("nait_standardized"), target="math").sort("rank").row(0, named=True)
    lines = lines.replace("recipes/demo.yaml", str(recipe.path)).replace("1c0c7583d2ac2cd6", stored["sample_id"])
    monkeypatch.setenv("NAIT_HOME", str(home))
    exec(lines, {})
    assert float(capsys.readouterr().out) == stored["score"]
