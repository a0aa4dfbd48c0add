"""The command line: exit codes, what is said, and what is left after a failure."""

import errno
import importlib.resources
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from nait_assets.cli.messages import user_errors
from nait_assets.corpora import assets as corpora_assets
from nait_assets.recipe import Recipe
from nait_assets_tests.command import nait, quick_home, run

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    """A recipe that needs no model: a pool, two sets of examples, scores and subsets of three targets."""
    return make_recipe(methods=["random"], ratios=[0.3])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home."""
    return quick_home(tmp_path / "home")


def lines(text: str) -> list[str]:
    """Lines with single spaces, without those at their ends."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_status_tells_what_is_missing_in_one_line_an_asset_and_run_makes_it(recipe: Recipe, home: Path) -> None:
    """The loop that a person is in: look, run, look; and that a script is in, by exit codes 3, 0, 0."""
    before = nait("status", "--recipe", recipe.path, "--home", home)
    assert before.code == 3
    assert lines(before.out) == [
        "corpora/candidate_pool 0 of 1 current",
        "missing",
        "corpora/in_domain_set 0 of 2 current",
        "every partition: missing",
        "corpora/contaminated_candidates 0 of 1 current",
        "missing",
        "scoring/random_scores 0 of 3 current",
        "every partition: missing",
        "selection/random_subset 0 of 3 current",
        "every partition: missing",
        "report/method_comparison 0 of 1 current",
        "missing",
        "report/selection_report 0 of 1 current",
        "missing",
        "`nait run` brings it up to date.",
    ]
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.err) == (0, "")
    assert "12 outputs made in 12 runs" in answer.out
    after = nait("status", "--recipe", recipe.path, "--home", home)
    assert after.code == 0
    wanted = [f"{n} of {n} current" for n in (1, 2, 1, 3, 3, 1, 1)]
    assert [line.split(" ", 1)[1] for line in lines(after.out)] == wanted

    with (recipe.path.parent / "pool.jsonl").open("a") as pool:
        pool.write("\n")
    changed = nait("status", "--recipe", recipe.path, "--home", home)
    assert changed.code == 3
    assert lines(changed.out)[:2] == ["corpora/candidate_pool 0 of 1 current", "source:0:pool.jsonl changed"]
    below = "scoring/random_scores 3 of 3 current, may change once corpora/candidate_pool is made"
    assert below in lines(changed.out)


def test_select_makes_the_selected_assets_alone(recipe: Recipe, home: Path) -> None:
    """A person who works on the corpora does not wait for the rest."""
    made = run(recipe, home, "--select", "group:corpora")
    sets = {f"corpora/in_domain_set[{name}]" for name in ("code", "math")}
    assert made == {"corpora/candidate_pool", "corpora/contaminated_candidates"} | sets
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool")
    assert (answer.code, "nothing was computed" in answer.out) == (0, True)


@pytest.mark.parametrize("selection", ["group:corpora and", "key:corpora/no_such_asset"])
def test_a_selection_of_nothing_is_refused(recipe: Recipe, home: Path, selection: str) -> None:
    """A misspelt selection must not pass for one that is up to date."""
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", selection)
    assert (answer.code, answer.out) == (2, "")
    assert repr(selection) in answer.err


def test_a_failing_step_keeps_what_was_made_and_the_next_run_goes_on_from_there(recipe: Recipe, home: Path) -> None:
    """Hours of extraction must survive a full disk at the end. Here a file stands where a folder has to be."""
    (home / "subsets").touch()
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 1
    assert lines(answer.out)[-1].startswith("FAILED")
    named = [f"selection/random_subset [{target}|0.30]" for target in ("all", "code", "math")]
    assert all(name in answer.err for name in named)
    assert str(home / "subsets") in answer.err

    (home / "subsets").unlink()
    made = run(recipe, home)
    assert made == {
        *(f"selection/random_subset[{target}|0.30]" for target in ("all", "code", "math")),
        "report/method_comparison",
        "report/selection_report",
    }


def test_a_reason_is_told_once_for_all_the_steps_that_it_failed(recipe: Recipe, home: Path) -> None:
    """Scores without a pool fail for every target, and for one reason."""
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "group:scoring")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.count("scoring/random_scores [") == 3
    assert line.count("warehouse.duckdb does not exist: nothing in it has been made yet") == 1
    assert "`nait run` makes it" in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", '{"question": "?", "topic": "code"}', "has no column 'messages'"),
        ("rows.parquet", "question,answer", "rows.parquet is not a readable Parquet file"),
    ],
)
def test_a_source_that_turns_out_unusable_is_bad_input_and_not_a_crash(
    make_recipe: MakeRecipe, tmp_path: Path, home: Path, name: str, content: str, said: str
) -> None:
    """It is found only when the rows are read, by a step; the exit code and the message are those of bad input."""
    (tmp_path / name).write_text(content)
    recipe = make_recipe(methods=["random"], candidates={"source": name})
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool")
    assert answer.code == 2
    assert answer.err.startswith("Error: corpora/candidate_pool: ")
    assert said in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ratio": [0.5]}, "ratio: unknown field"),
        ({"candidates": {"source": "nowhere.jsonl"}}, "there is no file"),
        ({"capabilities": {"math": {"source": "nowhere.jsonl"}}}, "there is no file"),
        ({"model": {"source": "nowhere"}}, "does not exist"),
        ({"extraction": {"layers": [2]}}, "layers: 2 is out of range"),
    ],
    ids=["field", "pool", "examples", "model", "layer"],
)
def test_bad_input_exits_2_with_one_error_and_writes_nothing(
    make_recipe: MakeRecipe, tmp_path: Path, home: Path, fields: dict[str, Any], said: str
) -> None:
    """Nothing is read, extracted or converted for a recipe that cannot be run to its end."""
    recipe = make_recipe()
    if "ratio" in fields:
        recipe.path.write_text(recipe.path.read_text() + "ratio: [0.5]\n")
    else:
        recipe = make_recipe(**fields)
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Error: ")
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert {file.name for file in home.iterdir()} <= {"dagster", "hashes.json"}


def test_the_entry_point_tells_a_missing_recipe_in_one_line(tmp_path: Path) -> None:
    """As a shell sees it: `python -m`, standard error, and the exit code."""
    arguments = [sys.executable, "-m", "nait_assets.cli", "run", "--recipe", str(tmp_path / "nowhere.yaml")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: no recipe at {tmp_path / 'nowhere.yaml'} (from --recipe)")


def test_a_home_gets_a_dagster_instance_of_its_own_and_keeps_the_settings_it_has(
    recipe: Recipe, tmp_path: Path
) -> None:
    """The web server reads the same folder; telemetry is off unless a person turns it on."""
    nait("status", "--recipe", recipe.path, "--home", tmp_path / "new")
    assert not (tmp_path / "new").exists(), "to look at a home makes none"
    nait("summary", "--recipe", recipe.path, "--home", tmp_path / "new")
    settings = tmp_path / "new" / "dagster" / "dagster.yaml"
    assert settings.read_bytes() == importlib.resources.files("nait_assets").joinpath("dagster.yaml").read_bytes()
    assert yaml.safe_load(settings.read_text())["telemetry"] == {"enabled": False}
    settings.write_text("telemetry:\n  enabled: true\n")
    nait("summary", "--recipe", recipe.path, "--home", tmp_path / "new")
    assert settings.read_text() == "telemetry:\n  enabled: true\n"


def test_ctrl_c_ends_the_command_and_not_only_the_step(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster takes the signal for a failure of the step, and the next partition would start."""
    begun = []

    def interrupted(_recipe: Recipe, name: str, _log_line: object, _folder: Path) -> None:
        begun.append(name)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(corpora_assets, "read_corpus", interrupted)
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 130
    assert begun == ["candidates"]
    assert "the next run continues from there" in answer.err


@pytest.mark.parametrize("name", sorted(user_errors()))
def test_an_error_that_a_user_can_fix_is_one_message_and_bad_input_has_an_exit_code_of_its_own(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Dagster stores of an error in a step no more than the name of its class; every class of ours must be known."""
    error_class = user_errors()[name]

    def failing(*_: object) -> None:
        raise error_class("the sky is down; hold it up")

    monkeypatch.setattr(corpora_assets, "read_corpus", failing)
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool")
    assert answer.err == "Error: corpora/candidate_pool: the sky is down; hold it up\n"
    assert answer.code == (1 if name in ("DamagedError", "NumericalError", "WarehouseError", "WorkerError") else 2)


def test_a_fault_of_our_own_comes_with_where_it_was_raised(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reports it has the line at hand."""

    def failing(*_: object) -> None:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(corpora_assets, "read_corpus", failing)
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool")
    assert answer.code == 1
    assert "KeyError: 'nobody thought of this'" in answer.err
    assert "in failing" in answer.err


def test_a_home_that_is_in_use_is_refused_with_who_uses_it(recipe: Recipe, home: Path) -> None:
    """Two commands would do the same work twice; one that waits would look dead."""
    lock = home / "dagster" / "nait_run.lock"
    lock.write_text("process 1 on here, since 2026-01-01 00:00:00\n")
    with filelock.FileLock(lock):
        answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert (answer.code, answer.out) == (5, "")
    (line,) = answer.err.splitlines()
    assert f"another `nait run` is using {home} (process 1 on here, since 2026-01-01 00:00:00). Wait" in line


def test_a_file_system_without_locks_is_no_reason_to_stop(
    recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some network mounts have none; the person is told what to look after."""

    def unsupported(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    answer = nait("run", "--recipe", recipe.path, "--home", home, "--select", "key:corpora/candidate_pool")
    assert answer.code == 0
    assert "cannot be locked" in caplog.text
    assert "run one `nait run` at a time" in caplog.text
