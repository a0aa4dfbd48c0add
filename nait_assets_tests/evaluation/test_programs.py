"""Programs in what models write, and pass@k of those that pass."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from nait_assets.conversation import Conversation
from nait_assets.corpora.corpus import read_corpus
from nait_assets.errors import RecipeError
from nait_assets.evaluation.given import GivenTask
from nait_assets.evaluation.harness import code_task, harness_examples
from nait_assets.evaluation.programs import pass_at_k, program_of
from nait_assets.evaluation.prompts import questions
from nait_assets.recipe import CodeTask, Extraction, Recipe
from nait_assets.resources import LanguageModel
from nait_assets_tests.command import nait
from nait_assets_tests.conftest import conversation, write_jsonl
from nait_assets_tests.evaluation.recipes import trained_recipe

SOURCE = {"source": "problems.jsonl", "format": {"user": "{{ prompt }}"}}
TASK = {"kind": "pass@k", **SOURCE, "tests": "{{ test }}\ncheck({{ entry_point }})"}
PROBLEM = {
    "prompt": 'def double(x):\n    """Twice x."""',
    "entry_point": "double",
    "test": "def check(function):\n    assert function(2) == 4\n    assert function(-1) == -2",
}


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
        ("x = 1", "", "x = 1"),
        ("Here:\n```python\nx = 1\n```\nand\n```\ny\n```", "", "x = 1\n"),
        ("```\nx = 1", "", "x = 1"),
        ("    return 1", "def f():", "def f():\n    return 1\n"),
    ],
)
def test_a_program_is_what_is_fenced_or_continues_the_question(said: str, question: str, program: str) -> None:
    """Models wrap programs in prose."""
    assert program_of(said, question) == program


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
