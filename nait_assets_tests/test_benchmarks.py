"""The benchmarks run: each at a size that takes seconds. What they measure is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nait_assets.recipe import PROJECT_ROOT

SCRIPTS = (
    "corpora",
    "extraction",
    "extraction_gpu",
    "extraction_ray",
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
