"""The benchmarks run: each at a size that takes seconds. What they measure is not judged here."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from nait_assets.recipe import PROJECT_ROOT, Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.conftest import benchmark

SCRIPTS = (
    "choice",
    "corpora",
    "extraction",
    "extraction_gpu",
    "extraction_ray",
    "nait_variants",
    "one_pass",
    "orchestration",
    "pool_size",
    "scoring",
    "training",
)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmark_runs_and_writes_its_figures(script: str, tmp_path: Path) -> None:
    """A benchmark that has rotted is found out when somebody doubts a number, which is too late."""
    file = tmp_path / "figures.json"
    command = [sys.executable, f"benchmarks/{script}.py", "--smoke", "--work", str(tmp_path / "work")]

    ended = subprocess.run(
        [*command, "--json", str(file)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, timeout=300
    )

    assert ended.returncode == 0, ended.stderr[-3000:]
    figures = json.loads(file.read_text())
    assert figures["rows"]
    assert figures["commit"]
    assert "|---|" in ended.stdout


def test_retrieval_tells_what_each_method_finds(
    small_recipe: Recipe,
    small_home: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It needs a home, so that the trial of all scripts passes it by; its figures have commit and machine as theirs."""
    file = tmp_path / "figures.json"
    options = ["--recipe", small_recipe.path, "--home", small_home.folder, "--json", file]
    monkeypatch.setattr(sys, "argv", ["retrieval.py", *map(str, options)])
    benchmark("retrieval").main()
    figures = json.loads(file.read_text())
    assert {"commit", "cpu", "rows"} <= set(figures)
    assert figures["n_candidates"] == 10
    assert set(figures["methods"]["nait_standardized"]) == {"code", "math"}
    own = figures["methods"]["random"]["math"]
    assert f"{own['auc']:.3f} / {own['precision']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("script", sorted(file.stem for file in (PROJECT_ROOT / "benchmarks").glob("*.py")))
def test_what_a_benchmark_imports_is_there(script: str) -> None:
    """One imported a function that had moved away; those that need a home are run by no test."""
    file = PROJECT_ROOT / "benchmarks" / f"{script}.py"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            sibling = file.with_name(f"{node.module}.py")
            if sibling.exists():
                known = {name for one in ast.parse(sibling.read_text()).body for name in _names(one)}
            elif node.module.startswith("nait_assets"):
                found = importlib.import_module(node.module)
                below = {one.name for one in pkgutil.iter_modules(getattr(found, "__path__", []))}
                known = {*dir(found), *below}
            else:
                continue
            assert {alias.name for alias in node.names} <= known, node.module


def _names(node: ast.stmt) -> set[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom | ast.Import):
        return {alias.asname or alias.name for alias in node.names}
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}
