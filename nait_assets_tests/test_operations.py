"""What a machine does to a home: two commands at once, kills, a full disk, a read-only one.."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nait_assets.recipe import Recipe, load_recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.files import sha256
from nait_assets.selection.subset import SUBSET_FILES
from nait_assets_tests.command import Answer, nait, quick_home
from nait_assets_tests.conftest import in_domain_rows, pool_rows, write_jsonl

pytestmark = pytest.mark.slow
N_POOL, N_CHOSEN = 20, 6
SELECTED = ("--select", "not group:report")  # whose charts take as long as all the rest
ROOT_ALONE = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, Recipe]:
    """One that needs no model, and one that does; two targets and one ratio each."""
    folder = tmp_path_factory.mktemp("recipes")
    write_jsonl(folder / "pool.jsonl", pool_rows(N_POOL))
    write_jsonl(folder / "math.jsonl", in_domain_rows("math"))
    found = {}
    for method in ("random", "nait_standardized"):
        recipe: dict[str, Any] = {
            "name": "tiny",
            "model": {"source": str(model_folder), "dtype": "float32"},
            "extraction": {"max_tokens": 64},
            "candidates": {"source": "pool.jsonl"},
            "capabilities": {"math": {"source": "math.jsonl"}},
            "methods": [method],
            "ratios": [0.3],
        }
        (folder / f"{method}.yaml").write_text(yaml.safe_dump(recipe))
        found[method] = load_recipe(folder / f"{method}.yaml")
    return found


@pytest.fixture(scope="module")
def recipe(recipes: dict[str, Recipe]) -> Recipe:
    """The one without a model."""
    return recipes["random"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """A home with nothing but the corpora."""
    home = quick_home(tmp_path_factory.mktemp("corpora") / "home")
    assert nait("run", "--recipe", recipe.path, "--home", home, "--select", "group:corpora").code == 0
    return home


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, corpora: Path) -> Path:
    """A home with scores and without subsets."""
    home = Path(shutil.copytree(corpora, tmp_path_factory.mktemp("scored") / "home"))
    assert nait("run", "--recipe", recipe.path, "--home", home, "--select", "group:scoring").code == 0
    return home


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, scored: Path) -> Path:
    """A home in which everything has been made."""
    home = Path(shutil.copytree(scored, tmp_path_factory.mktemp("finished") / "home"))
    assert nait("run", "--recipe", recipe.path, "--home", home).code == 0
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def start(recipe: Recipe, home: Path) -> "subprocess.Popen[str]":
    """`nait run` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nait_assets.cli", "run", "--recipe", recipe.path, "--home", home, *SELECTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> Answer:
    """What a process said, once it is through."""
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def has_begun(process: "subprocess.Popen[str]", home: Path) -> None:
    """Wait until the process has the home."""
    lock = home / "dagster" / "nait_run.lock"
    while process.poll() is None and not (lock.exists() and f"process {process.pid} " in lock.read_text()):
        time.sleep(0.01)


def whole_outputs(home: Path) -> int:
    """How many scores and subsets a home has, each of which has to be whole."""
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        names = set(snapshot.records())
        counts = {}
        for table, n_rows in (("scoring.random_scores", N_POOL), ("selection.subsets", N_CHOSEN)):
            if snapshot.has_table(table):
                query = f"SELECT target, count(*) FROM {table} GROUP BY target"
                found = dict(snapshot.connection.execute(query).fetchall())
                assert set(found.values()) <= {n_rows}
                counts[table] = len(found)
        n_records = sum(name.startswith(("scoring/", "selection/")) for name in names)
    assert sum(counts.values()) == n_records
    return n_records


def check_folders(home: Path) -> None:
    """No subset's folder is there in part."""
    for folder in (home / "subsets").glob("*/*/[!.]*"):
        assert {file.name for file in folder.iterdir()} == set(SUBSET_FILES)
        for name, entry in json.loads((folder / "manifest.json").read_text())["files"].items():
            assert sha256(folder / name) == entry["sha256"]


def mended(recipe: Recipe, home: Path) -> None:
    """The next command makes what is missing, and then all is well."""
    again = ended(start(recipe, home))
    assert again.code == 0, again.out + again.err
    assert "nothing was computed" in nait("run", "--recipe", recipe.path, "--home", home, *SELECTED).out
    check_folders(home)


def test_a_second_run_on_a_home_is_refused_and_readers_see_whole_tables(
    recipe: Recipe, corpora: Path, tmp_path: Path
) -> None:
    """A cron job that overtakes itself must not do the work twice; a person who looks meanwhile must not disturb it."""
    home = Path(shutil.copytree(corpora, tmp_path / "home"))
    first = start(recipe, home)
    has_begun(first, home)
    second = start(recipe, home)
    n_looks, told = 0, []
    while first.poll() is None:
        whole_outputs(home)
        told.append(nait("status", "--recipe", recipe.path, "--home", home))
        n_looks += 1
    (one, two) = ended(first), ended(second)
    assert one.code == 0, one.err
    assert two.code == 5
    assert f"another `nait run` is using {home} (process {first.pid} on " in two.err
    assert len(two.err.splitlines()) == 1
    assert n_looks > 0
    assert {answer.code for answer in told} <= {0, 3}, [answer.err for answer in told]
    assert "nothing was computed" in nait("run", "--recipe", recipe.path, "--home", home, *SELECTED).out


def test_a_reader_between_the_writes_of_a_run_waits_and_is_served(
    recipe: Recipe, finished: Path, tmp_path: Path
) -> None:
    """`nait explain` and a notebook have no business to fail because a subset is being written."""
    home = Path(shutil.copytree(finished, tmp_path / "home"))
    shutil.rmtree(home / "subsets")
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        ((sample_id,),) = snapshot.connection.execute("SELECT sample_id FROM selection.subsets LIMIT 1").fetchall()
    process = start(recipe, home)
    has_begun(process, home)
    answers = []
    while process.poll() is None or not answers:
        answers.append(nait("explain", sample_id, "--target", "math", "--recipe", recipe.path, "--home", home))
    assert ended(process).code == 0
    assert {answer.code for answer in answers} == {0}, answers[-1].err


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_while_it_scores_and_selects_leaves_nothing_in_part(
    recipe: Recipe, corpora: Path, tmp_path: Path, seed: int
) -> None:
    """Machines go away; what they leave is either an output with its record, or none."""
    home = Path(shutil.copytree(corpora, tmp_path / "home"))
    dice, n_before = random.Random(seed), 0
    for _ in range(2):
        process = start(recipe, home)
        has_begun(process, home)
        time.sleep(dice.uniform(0.2, 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_now = whole_outputs(home)
        assert n_now >= n_before
        check_folders(home)
        n_before = n_now
    mended(recipe, home)
    assert not list((home / "subsets").glob("*/*/.*"))


KILLED = """
import os, signal
from {module} import {name}
import {module} as module
module.{name} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from nait_assets import cli
cli.main()
"""


@pytest.mark.parametrize(
    ("method", "module", "name"),
    [
        ("nait_standardized", "nait_assets.extraction.assets", "extract"),
        ("random", "nait_assets.resources.files", "put_in_place"),
    ],
)
def test_killed_at_this_point_the_next_run_goes_on(
    recipes: dict[str, Recipe], tmp_path: Path, method: str, module: str, name: str
) -> None:
    """A run that died in the extraction kept the model's place in Dagster's pool, and the next waited for ever."""
    recipe, home = recipes[method], tmp_path / "home"
    arguments = ["run", "--recipe", recipe.path, "--home", home, *SELECTED]
    code = KILLED.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check_folders(home)
    mended(recipe, home)
    assert not list((home / "subsets").glob("*/*/.*"))


@contextlib.contextmanager
def full(disk: Path, free_kib: int) -> Iterator[None]:
    """A disk that has so little room for the length of a block."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - free_kib * 1024)))
    yield
    ballast.unlink()


@ROOT_ALONE
@pytest.mark.parametrize(
    ("before", "method", "free_kib", "dagster_too"),
    [
        ("corpora", "nait_standardized", 4, False),
        ("corpora", "nait_standardized", 200, False),
        ("scored", "random", 8, False),
        ("scored", "random", 60, True),
    ],
    ids=["spool", "activation table", "subset", "Dagster's books"],
)
def test_full_disk_is_told_in_one_sentence_and_nothing_is_lost(
    request: pytest.FixtureRequest,
    recipes: dict[str, Recipe],
    small_disk: Path,
    tmp_path: Path,
    before: str,
    method: str,
    free_kib: int,
    dagster_too: bool,
) -> None:
    """The commonest end of a long run. Dagster's own part of the home is elsewhere where ours is to be met."""
    recipe, home = recipes[method], small_disk / "home"
    shutil.copytree(request.getfixturevalue(before), home)
    if not dagster_too:
        shutil.move(home / "dagster", tmp_path / "dagster")
        (home / "dagster").symlink_to(tmp_path / "dagster")
    tables = sha256(home / "warehouse.duckdb")
    with full(small_disk, free_kib):
        answer = ended(start(recipe, home))
        assert answer.code == 1, answer.out + answer.err
        assert f"the disk that {home} lies on is full" in answer.err
        assert "Make room and run this again" in answer.err
        assert "Traceback" not in answer.err
        assert sha256(home / "warehouse.duckdb") == tables
        check_folders(home)
    mended(recipe, home)


@ROOT_ALONE
def test_read_only_home_can_be_looked_at_and_a_run_is_refused(recipe: Recipe, finished: Path, small_disk: Path) -> None:
    """A snapshot, a backup, a share for auditors: to look at it needs no right to write."""
    home = Path(shutil.copytree(finished, small_disk / "home"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Warehouse(home=str(home)).tables.snapshot() as snapshot:
        ((sample_id,),) = snapshot.connection.execute("SELECT sample_id FROM selection.subsets LIMIT 1").fetchall()
    options = ("--recipe", recipe.path, "--home", home)
    for command in (["status"], ["audit"], ["summary"], ["explain", sample_id, "--target", "math"]):
        answer = nait(*command, *options)
        assert (answer.code, answer.err) == (0, ""), (command, answer.out)
    answer = ended(start(recipe, home))
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(f"Error: {home} cannot be written: it is read-only")
