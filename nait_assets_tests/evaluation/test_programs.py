"""Programs that models write: what isolation keeps in, and pass@k of those that pass."""

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from nait_assets.conversation import Conversation
from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import RecipeError, SetupError
from nait_assets.evaluation import isolation
from nait_assets.evaluation.given import GivenTask
from nait_assets.evaluation.harness import code_task, harness_examples
from nait_assets.evaluation.isolation import PASSED, outcome, outcomes, require_isolation
from nait_assets.evaluation.programs import pass_at_k, program_of
from nait_assets.evaluation.prompts import questions
from nait_assets.recipe import CodeTask, Extraction, Recipe
from nait_assets.resources import LanguageModel
from nait_assets_tests.command import nait
from nait_assets_tests.conftest import conversation, write_jsonl
from nait_assets_tests.evaluation.recipes import trained_recipe

SECONDS, LONGER = 3.0, 20.0
"""Of programs that run until they are ended, and of others, to which a busy machine must leave their time."""
SOURCE = {"source": "problems.jsonl", "format": {"user": "{{ prompt }}"}}
TASK = {"kind": "pass@k", **SOURCE, "tests": "{{ test }}\ncheck({{ entry_point }})"}
PROBLEM = {
    "prompt": 'def double(x):\n    """Twice x."""',
    "entry_point": "double",
    "test": "def check(function):\n    assert function(2) == 4\n    assert function(-1) == -2",
}
FORK_BOMB = "import os\nwhile True:\n    os.fork()"
MANY = """
import os
for _ in range(3):
    os.fork()
held = bytearray(2**29)
for place in range(0, len(held), 4096):
    held[place] = 1
while True:
    pass
"""


@pytest.fixture(scope="module")
def isolating() -> None:
    """Skip where nothing can be isolated, as in some containers; a program is run nowhere else."""
    try:
        require_isolation()
    except SetupError as error:
        pytest.skip(str(error))


def isolated(program: str, seconds: float = SECONDS) -> str:
    """How a program ended, and that it ended in time."""
    began = time.monotonic()
    found = outcome(program, seconds)
    assert time.monotonic() - began < seconds + isolation.GRACE_SECONDS
    return found


@pytest.mark.usefixtures("isolating")
def test_a_correct_program_passes() -> None:
    """It may use the libraries that are installed, processes and files of its own folder."""
    program = (
        "import json, subprocess, tempfile, numpy\nassert json.loads('[1]') == [1]\nassert numpy.ones(3).sum() == 3\n"
    )
    program += "assert subprocess.run(['echo', '1'], capture_output=True).stdout == b'1\\n'\n"
    program += "with tempfile.NamedTemporaryFile('w+') as file:\n    file.write('x')\nopen('own', 'w').write('x')"
    assert isolated(program, 20) == PASSED
    assert outcomes(["assert True", "assert False, 'no'"], 20) == [PASSED, "AssertionError: no"]
    require_isolation()


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended without a word"),
        ("import os\nif os.fork(): assert False", "AssertionError"),  # the child comes to the end
        ("while True: pass", "timed out"),
        ("import time; time.sleep(1000)", "timed out"),
        ("held = []\nwhile True: held.append(bytearray(10**8))", "MemoryError"),
        (MANY, "memory"),
        (FORK_BOMB, "BlockingIOError"),
        ("open('large', 'wb').write(bytes(10**8))", "File too large"),
        ("for n in range(99): open(str(n), 'wb').write(bytes(10**6))", "No space left"),
        ("held = [open('/dev/null') for _ in range(1000)]", "Too many open files"),
        ("print('x' * 10**8)\nassert False, 'y' * 10**7", "AssertionError"),
        ("import os, signal; os.kill(1, signal.SIGKILL); os.kill(0, signal.SIGKILL)", "without a word"),
    ],
)
def test_a_program_that_does_harm_fails_in_time(program: str, said: str) -> None:
    """And says why."""
    found = isolated(program, SECONDS if said == "timed out" else LONGER)
    assert found != PASSED
    assert said in found


@pytest.mark.usefixtures("isolating")
def test_there_is_no_network() -> None:
    """Neither to this machine nor beyond, also where something listens, by address and by path."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()  # it does listen
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert "unreachable" in isolated(program)
    named = f"\0nait-{os.getpid()}"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(named)
        server.listen()
        found = isolated(f"import socket; socket.socket(socket.AF_UNIX).connect({named!r})")
        assert "refused" in found


@pytest.mark.usefixtures("isolating")
def test_there_is_no_environment_and_no_file_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, not that of the process that started it either; nothing outside its folder is written."""
    monkeypatch.setenv("NAIT_SECRET", "secret")
    (tmp_path / "key").write_text("secret")
    assert isolated("import os; assert 'NAIT_SECRET' not in os.environ") == PASSED
    for pid in (os.getpid(), 1):
        assert "Error" in isolated(
            f"assert b'secret' not in open('/proc/{pid}/environ', 'rb').read(); assert {pid} != 1"
        )
    assert "FileNotFoundError" in isolated(f"open({str(tmp_path / 'key')!r})")
    for place in ("/outside", "/usr/outside", str(Path(sys.prefix) / "outside"), str(tmp_path / "outside")):
        assert "Error" in isolated(f"open({place!r}, 'w')")
        assert not Path(place).exists()
    assert isolated("import os; assert os.listdir('.') == []") == PASSED
    assert "Error" in isolated("import os; os.setuid(0)")


@pytest.mark.usefixtures("isolating")
def test_no_process_is_left_behind() -> None:
    """Not one that has left its group either."""
    name = f"nait-left-{os.getpid()}"
    program = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.execv('/bin/sleep', [{name!r}, '60'])"
    assert isolated(program) == PASSED
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(line.startswith(name.encode()) for line in lines)


def test_where_nothing_can_be_isolated_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence instead."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SetupError, match="cannot isolate it: it runs darwin"):
        require_isolation()
    monkeypatch.setattr(sys, "platform", "linux")
    refusing = tmp_path / "refusing.py"
    own = isolation.RUNNER.read_text(encoding="utf-8")
    refusing.write_text(own.replace("NEW_NAMESPACES = ", "NEW_NAMESPACES = 1 | "), encoding="utf-8")
    monkeypatch.setattr(isolation, "RUNNER", refusing)
    with pytest.raises(SetupError, match=r"cannot isolate it: \w+: "):
        outcome("raise RuntimeError", SECONDS)


@settings(max_examples=30, deadline=None)
@drawn(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_count_of_all_draws(numbers: tuple[int, int, int]) -> None:
    """Of all sets of k programs the share that has one that passes."""
    n, n_passed, k = numbers
    sets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, n_passed, k) == pytest.approx(sum(min(one) < n_passed for one in sets) / len(sets))


@pytest.mark.parametrize(
    ("said", "question", "program"),
    [
        ("x = 1", "", "x = 1\n\nassert x\n"),
        ("Here:\n```python\nx = 1\n```\nand\n```\ny\n```", "", "x = 1\n\n\nassert x\n"),
        ("```\nx = 1", "", "x = 1\n\nassert x\n"),
        ("    return 1", "def f():", "def f():\n    return 1\n\nassert x\n"),
    ],
)
def test_a_program_is_what_is_fenced_or_continues_the_question(said: str, question: str, program: str) -> None:
    """Models wrap programs in prose."""
    assert program_of(said, question, "assert x") == program


@pytest.mark.usefixtures("isolating")
@pytest.mark.parametrize("continues", [True, False])
def test_programs_are_run_with_the_problems_tests(continues: bool, tokenizer: object) -> None:
    """The share that passes becomes pass@k, for each k."""
    task = CodeTask.model_validate({**TASK, "k": [1, 2], "samples": 3, "temperature": 0.8, "continues": continues})
    row = conversation(PROBLEM["prompt"], f"{PROBLEM['test']}\ncheck({PROBLEM['entry_point']})")
    one = Conversation.of(row["messages"])
    asked = questions([(one.sample_id, one)], tokenizer, Extraction(), 0)
    made = code_task(task, asked, tokenizer)
    (document,) = made["custom_dataset"]()["test"]
    assert document["prompt"].endswith(f"{PROBLEM['prompt']}\n" if continues else "<|assistant|>\n")
    head = "" if continues else f"{PROBLEM['prompt']}\n"
    bodies = ["    return 2 * x", "    return 4", "    return x + x + 1"]
    found = made["process_results"](document, [[f"{head}{body}" for body in bodies]])
    assert found == {"pass@1": pytest.approx(1 / 3), "pass@2": pytest.approx(2 / 3)}


@pytest.mark.usefixtures("isolating")
def test_a_model_writes_several_programs(causal_folder: Path, tmp_path: Path) -> None:
    """Whose results a seed repeats."""
    model = LanguageModel(source=str(causal_folder), dtype="float32", home=str(tmp_path))
    fields = {**TASK, "samples": 3, "k": [1, 3], "temperature": 0.8, "max_new_tokens": 4, "timeout": 5}
    row = conversation("print the sum", "assert True")
    one = Conversation.of(row["messages"])
    task = GivenTask("exam", CodeTask.model_validate(fields), [(one.sample_id, one)], "1", Extraction(max_tokens=64))
    loaded, tokenizer = model.load_causal(), model.tokenizer()
    found = harness_examples(task, loaded, tokenizer)
    assert dict(found.select("metric", "sample_id").rows()) == {"pass@1": one.sample_id, "pass@3": one.sample_id}
    assert found.equals(harness_examples(task, loaded, tokenizer))


def test_tests_are_read_from_the_source(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """They stand where an example's answer stands."""
    write_jsonl(tmp_path / "problems.jsonl", [PROBLEM])
    recipe = make_recipe(evaluation={"tasks": {"code": TASK}, "allow_code_execution": True})
    ((messages,),) = read_corpus(recipe, "tasks/code").examples.select("messages").rows()
    assert messages[0]["content"] == PROBLEM["prompt"]
    assert messages[1]["content"] == f"{PROBLEM['test']}\ncheck(double)"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({**TASK, "k": [5]}, "5 programs cannot be drawn of `samples: 1`"),
        ({**TASK, "samples": 5}, "temperature: 0 writes the same program 5 times"),
        ({**TASK, "format": {"user": "{{ prompt }}", "assistant": "x"}}, "`tests` stands in the answer's place"),
        ({"kind": "pass@k", **SOURCE}, "tests: this field is required"),
    ],
)
def test_a_task_that_cannot_be_is_refused(
    make_recipe: Callable[..., Recipe], task: dict[str, object], said: str
) -> None:
    """When the recipe is read."""
    with pytest.raises(RecipeError, match=said):
        make_recipe(evaluation={"tasks": {"code": task}, "allow_code_execution": True})


def test_programs_are_not_run_unless_the_recipe_allows_it(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """One sentence, before anything is made."""
    with pytest.raises(RecipeError, match=r"tasks\.code: `kind: pass@k` runs what a model writes; allow it by"):
        trained_recipe(make_recipe, causal_folder, tmp_path, evaluation={"tasks": {"code": TASK}})
    answer = nait("run", "--recipe", tmp_path / "recipe.yaml", "--home", tmp_path / "home")
    assert answer.code == 2
    assert not (tmp_path / "home" / "warehouse.duckdb").exists()
