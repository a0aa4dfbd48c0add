"""Tasks that lm-eval scores: prompts by the project's own template, and scores that are known."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError, RecipeError, SetupError
from nait_assets.evaluation import preflight
from nait_assets.evaluation.given import GivenTask
from nait_assets.evaluation.harness import _f1, _runner_of, answer_in, harness_examples
from nait_assets.evaluation.prompts import questions
from nait_assets.recipe import AnswerTask, ChoiceTask, Extraction, Recipe, Task
from nait_assets.resources import LanguageModel
from nait_assets.training.models import Model
from nait_assets_tests.command import nait
from nait_assets_tests.conftest import conversation
from nait_assets_tests.evaluation.recipes import trained_recipe

ROWS = [conversation(f"is it {number}?", "x" if number % 2 else "y") for number in range(4)]
EXAMPLES = [{"source": "exam.jsonl"}]
NONE = AnswerTask(kind="f1", examples=EXAMPLES)


@pytest.fixture
def model(causal_folder: Path, tmp_path: Path) -> LanguageModel:
    """The tiny model."""
    return LanguageModel(source=str(causal_folder), dtype="float32", home=str(tmp_path))


def given(task: Task, rows: list[dict[str, Any]], **extraction: Any) -> GivenTask:
    """A task over rows."""
    conversations = [Conversation.of(row["messages"]) for row in rows]
    pairs = [(one.sample_id, one) for one in conversations]
    return GivenTask("exam", task, pairs, "1", Extraction(max_tokens=256, **extraction))


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_the_likeliest_choice_is_by_the_networks_own_logits(model: LanguageModel, template: str) -> None:
    """Of the same prompt as losses are taken on."""
    task = given(ChoiceTask(kind="multiple_choice", choices=["x", "y"], examples=EXAMPLES), ROWS, template=template)
    loaded, tokenizer = model.load_causal(), model.tokenizer()
    found = harness_examples(task, loaded, tokenizer).filter(metric="acc")
    wanted = {}
    for question in questions(task.conversations, tokenizer, task.extraction, 0):
        ids = torch.tensor([tokenizer(question.prompt, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            logits = loaded.network(input_ids=ids).logits[0, -1]
        x, y = (tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in ("x", "y"))
        wanted[question.sample_id] = float(("x" if logits[x] > logits[y] else "y") == question.answer)
    assert dict(found.select("sample_id", "value").rows()) == wanted


def test_a_prompt_ends_where_the_answer_begins(model: LanguageModel) -> None:
    """Also with a template that has no header for an answer yet to come; shown examples stand in front."""
    task = given(NONE, ROWS)
    found = questions(task.conversations, model.tokenizer(), task.extraction, 1)
    assert [one.answer for one in found] == ["x", "y", "x"]
    assert found[0].prompt == (
        "<s><|user|>\nis it 0?</s>\n<|assistant|>\ny</s>\n<|user|>\nis it 1?</s>\n<|assistant|>\n"
    )
    with pytest.raises(DataError, match="4 examples, of which 4 are shown"):
        questions(task.conversations, model.tokenizer(), task.extraction, 4)


def test_answers_are_written_and_scored(model: LanguageModel) -> None:
    """A model that answers with itself: what it says is the answer, so that every score is full."""
    loaded, tokenizer = model.load_causal(), model.tokenizer()
    task = given(AnswerTask(kind="f1", examples=EXAMPLES, max_new_tokens=6), ROWS[:2])
    said = []
    for question in questions(task.conversations, tokenizer, task.extraction, 0):
        ids = torch.tensor([tokenizer(question.prompt, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            new = loaded.network.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        said.append(tokenizer.decode(new, skip_special_tokens=True).split("</s>")[0].strip())
    rows = [conversation(f"is it {number}?", text) for number, text in enumerate(said)]
    for kind, metrics in (("f1", 1), ("exact_match", 1), ("translation", 2)):
        one = AnswerTask(kind=kind, examples=EXAMPLES, max_new_tokens=6)
        found = harness_examples(given(one, rows), loaded, tokenizer)
        assert len(found) == 2 * metrics
        full = 1.0 if kind != "translation" else 100.0
        assert np.allclose(found["value"].to_numpy(), full), found


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [(" 12 ", None, "12"), ("so 3 and #### 41", r"#### (\d+)", "41"), ("1 or 2", r"\d", "2"), ("none", r"\d", "")],
)
def test_the_answer_is_the_last_match(text: str, pattern: str | None, answer: str) -> None:
    """Reasoning names numbers before the answer."""
    assert answer_in(text, pattern) == answer


def test_f1_is_of_words() -> None:
    """Without case and punctuation, each as often as it stands there."""
    assert _f1(NONE, "The cat, the mat", {"answer": "the Cat"}) == {"f1": pytest.approx(2 * 2 / 6)}
    assert _f1(NONE, "dog", {"answer": "cat"}) == {"f1": 0.0}


def test_comet_scores_each_translation(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By source, translation and reference, beside BLEU and chrF; a checkpoint's path is no name on the hub."""
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.touch()
    seen: list[dict[str, str]] = []

    def predict(data: list[dict[str, str]], **_: Any) -> SimpleNamespace:
        seen.extend(data)
        return SimpleNamespace(scores=[len(row["src"]) / 100 for row in data])

    def load_from_checkpoint(path: str) -> SimpleNamespace:
        assert path == str(checkpoint)
        return SimpleNamespace(predict=predict)

    monkeypatch.setitem(sys.modules, "comet", SimpleNamespace(load_from_checkpoint=load_from_checkpoint))
    monkeypatch.setenv("NAIT_DATA", str(tmp_path))
    fields = {"kind": "translation", "examples": EXAMPLES, "max_new_tokens": 3, "comet": "${NAIT_DATA}/model.ckpt"}
    rows = [conversation("is it?", "x"), conversation("is it not?", "y")]
    task = given(AnswerTask.model_validate(fields), rows)
    found = harness_examples(task, model.load_causal(), model.tokenizer())
    assert set(found["metric"]) == {"bleu_of_sentences", "chrf_of_sentences", "comet"}
    answers = dict(zip([name for name, _ in task.conversations], (0.06, 0.1), strict=True))
    assert dict(found.filter(metric="comet").select("sample_id", "value").rows()) == answers
    assert {(row["src"], row["ref"]) for row in seen} == {("is it?", "x"), ("is it not?", "y")}


@pytest.mark.parametrize("kind", ["base", "full", "adapter"])
def test_vllm_loads_what_was_trained(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """The base, a folder of weights, or the base with an adapter; always by the tokenizer of the base."""
    name = "lm_eval.models.vllm_causallms"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(VLLM=lambda **given: given))
    folder = tmp_path / "trained"
    folder.mkdir()
    if kind == "adapter":
        (folder / "adapter_config.json").write_text('{"r": 8}')
    one = Model(model, "key", 0, None if kind == "base" else folder)
    found = _runner_of(one, model.tokenizer(), 64)
    assert found["pretrained"] == (str(folder) if kind == "full" else model.source)
    assert found["tokenizer"] == model.source
    assert found["max_model_len"] == 64
    wanted = {"lora_local_path": str(folder), "max_lora_rank": 8} if kind == "adapter" else {}
    assert {key: value for key, value in found.items() if "lora" in key} == wanted


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (
            {"kind": "translation", "comet": "Unbabel/wmt22-comet-da"},
            r"tasks\.math\.comet: unbabel-comet is not installed",
        ),
        ({"kind": "f1"}, "evaluation.backend: vllm is not installed"),
    ],
)
def test_a_package_that_is_missing_is_named(
    make_recipe: Callable[..., Recipe],
    causal_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: dict[str, str],
    said: str,
) -> None:
    """Before anything is trained, with what does without it."""
    monkeypatch.setattr(preflight, "installed", lambda package: package not in ("unbabel-comet", "vllm"))
    given = {"backend": "vllm", "tasks": {"math": {"source": "math_exam.jsonl", **evaluation}}}
    recipe = trained_recipe(make_recipe, causal_folder, tmp_path, evaluation=given)
    with pytest.raises(SetupError, match=said):
        preflight.require_fit(recipe, LanguageModel.of(recipe, tmp_path))


def test_comet_is_of_translations() -> None:
    """And of nothing else."""
    with pytest.raises(ValueError, match="`comet` is of `kind: translation`, not of f1"):
        AnswerTask(kind="f1", examples=EXAMPLES, comet="a-model")


def test_an_answer_that_is_no_choice_is_named(model: LanguageModel) -> None:
    """It would count as wrong for every model."""
    task = given(ChoiceTask(kind="multiple_choice", choices=["a", "b"], examples=EXAMPLES), ROWS)
    with pytest.raises(DataError, match=r"evaluation\.tasks\.exam: the answer of \w+, 'y', is not among the choices"):
        harness_examples(task, model.load_causal(), model.tokenizer())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def of_named_task(make_recipe: Callable[..., Recipe], causal_folder: Path, folder: Path, name: str) -> Recipe:
    """A recipe that trains, with one of lm-eval's own tasks."""
    evaluation = {"tasks": {"named": {"kind": "lm_eval", "task": name}}}
    return trained_recipe(make_recipe, causal_folder, folder, evaluation=evaluation)


def refusal(recipe: Recipe, home: Path) -> str:
    """What `nait run` says of a recipe that it refuses."""
    answer = nait("run", "--recipe", recipe.path, "--home", home)
    assert answer.code == 2
    return answer.err


@pytest.mark.usefixtures("offline")
def test_data_that_cannot_be_reached_is_one_sentence_before_anything_is_made(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """With the way that works without a connection."""
    recipe = of_named_task(make_recipe, causal_folder, tmp_path, "gsm8k_cot")
    said = refusal(recipe, tmp_path / "home")
    assert "gsm8k_cot cannot be had" in said
    assert "files of your own" in said
    assert not (tmp_path / "home" / "warehouse.duckdb").exists()


def test_code_that_lm_eval_would_run_is_refused(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a group: it runs on this machine as it stands."""
    group = {"codes": {"one": SimpleNamespace(), "two": SimpleNamespace(UNSAFE_CODE=True)}}
    monkeypatch.setattr(preflight, "known_tasks", lambda: ["codes"])
    monkeypatch.setattr(preflight, "loaded_tasks", lambda _tasks: group)
    recipe = of_named_task(make_recipe, causal_folder, tmp_path, "codes")
    with pytest.raises(RecipeError, match="lm-eval runs what a model writes for codes without isolation"):
        preflight.require_fit(recipe, LanguageModel.of(recipe, tmp_path))


def test_a_name_that_lm_eval_does_not_have_is_answered_with_near_ones(
    make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """Before anything is trained."""
    recipe = of_named_task(make_recipe, causal_folder, tmp_path, "gsm8k_cott")
    assert "lm-eval has no task 'gsm8k_cott'; did you mean gsm8k_cot" in refusal(recipe, tmp_path / "home")
