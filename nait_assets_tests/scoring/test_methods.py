"""Methods: each is one file, here or in another package, and says all of itself there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nait_assets.recipe import PROJECT_ROOT, Recipe, declared_methods
from nait_assets.resources import Warehouse
from nait_assets.scoring.methods import declared, methods_of, modules, published
from nait_assets.scoring.methods_page import HEADINGS, page, sections_of
from nait_assets.tables import scores_table

MakeRecipe = Callable[..., Recipe]
GUIDE = (PROJECT_ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")


def test_every_file_declares_a_method_and_is_found() -> None:
    """A file that is not found would be dead code; lists of published rows are methods once a recipe names them."""
    for module in modules():
        assert methods_of(module) or module is published, module.__name__
    assert {method.name for module in modules() for method in methods_of(module)} == set(declared_methods())


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_method_has_its_formula_departures_limits_and_cost(module: object) -> None:
    """They are what a reader compares methods by."""
    sections = sections_of(module)  # type: ignore[arg-type]
    assert [*sections] == ["", *HEADINGS]
    assert all(sections.values())
    assert "\n" not in sections[""], "the first line says what it is"


def test_the_page_of_methods_is_what_they_declare() -> None:
    """`python -m nait_assets.scoring.methods_page > docs/methods.md` makes it again."""
    assert (PROJECT_ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page()


def test_scores_that_differ_by_target_are_declared_so() -> None:
    """A check compares subsets of targets where they should differ, and only there."""
    for method in declared().values():
        reads_examples = any("in_domain" in key or "directions" in key or "centroids" in key for key in method.reads)
        assert method.by_target == (reads_examples or method.seeded), method.name


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder in which a package with the method of the guide is installed, as pip would leave it."""
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (entry,) = re.findall(r"```toml\n.*?\n(.*?)```", GUIDE, flags=re.DOTALL)
    site = tmp_path / "site"
    (site / "your_package").mkdir(parents=True)
    (site / "your_package" / "__init__.py").touch()
    (site / "your_package" / "loud_and_sure.py").write_text(source, encoding="utf-8")
    metadata = site / "your_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[nait_assets.methods]\n{entry.replace(chr(34), '')}", encoding="utf-8")
    return site


def with_package(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `nait` where the package is installed."""
    path = os.pathsep.join([str(site), str(PROJECT_ROOT)])
    command = [sys.executable, "-m", "nait_assets.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_another_package_brings_a_method_that_reads_activations_and_losses(
    make_recipe: MakeRecipe, causal_folder: Path, package: Path, tmp_path: Path
) -> None:
    """The whole way, by the file of the guide: from a recipe to scores, subsets and reasons, and nothing twice."""
    recipe = make_recipe(model={"source": str(causal_folder), "dtype": "float32"}, methods=["random"], ratios=[0.3])
    fields = yaml.safe_load(recipe.path.read_text(encoding="utf-8"))
    fields |= {"methods": ["loud_and_sure"], "options": {"loud_and_sure": {"weight": 2}}}
    recipe.path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    arguments = ("--recipe", recipe.path, "--home", tmp_path / "home")

    first, again = (with_package(package, "run", *arguments) for _ in range(2))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "nothing" in again.stdout.lower(), again.stdout + again.stderr
    with Warehouse(home=str(tmp_path / "home")).tables.snapshot() as snapshot:
        scores = snapshot.rows(scores_table("loud_and_sure"), target="all").sort("rank")
    assert len(scores) == 20
    assert scores["score"].is_finite().all()
    lines = (tmp_path / "home" / "subsets" / "loud_and_sure" / "all" / "0.30" / "train.jsonl").read_text().splitlines()
    assert {json.loads(line)["sample_id"] for line in lines} == set(scores["sample_id"].head(6).to_list())

    best = scores["sample_id"][0]
    explained = with_package(package, "explain", best, "--target", "math", "--method", "loud_and_sure", *arguments)
    assert explained.returncode == 0, explained.stderr
    assert re.search(r"  answer_loss +[\d.]+: as large as or larger than that of \d+% of the pool", explained.stdout)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ImportError('no torch')", "cannot be loaded: ImportError: no torch. Fix or uninstall it."),
        ("METHOD = 3", "(your_package.loud_and_sure) is neither a Method nor a module that declares one"),
        (
            "import copy\nfrom nait_assets.scoring.methods import random\nMETHOD = copy.copy(random.METHOD)",
            "there is another method called 'random'; rename one of them",
        ),
    ],
    ids=["broken", "no method", "a name that is taken"],
)
def test_a_package_with_a_method_that_cannot_be_used_is_named(
    make_recipe: MakeRecipe, package: Path, source: str, said: str
) -> None:
    """One sentence with the package that has to be mended, and no traceback."""
    (package / "your_package" / "loud_and_sure.py").write_text(source, encoding="utf-8")
    answer = with_package(package, "status", "--recipe", make_recipe(methods=["random"]).path)
    assert answer.returncode == 2
    assert f"entry point 'loud_and_sure' of your-package {said}".replace(" there is", ": there is") in answer.stderr
    assert "Traceback" not in answer.stderr
