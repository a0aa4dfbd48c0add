"""Making models: a real trainer in a real process, on a two-layer network, killed, cut off and broken."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nait_assets.errors import DataError, NumericalError, WorkerError
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel
from nait_assets.training import making
from nait_assets.training.checkpoints import fault_of, last_whole, remove_earlier, seal
from nait_assets.training.encoding import IGNORED, encode_rows
from nait_assets.training.making import rows_at_once
from nait_assets.training.models import Model, faults_of
from nait_assets_tests.training.killed_worker import STEP
from nait_assets_tests.training.runs import SMALL, made_of, run_of, same, weights

MakeRecipe = Callable[..., Recipe]
DROPOUT = {"kind": "lora", "lora": {"rank": 2, "alpha": 4, "dropout": 0.2}}


@pytest.fixture
def recipe_of(make_recipe: MakeRecipe, causal_folder: Path) -> MakeRecipe:
    """A recipe that trains the tiny model, with fields of its section `training` replaced."""

    def of(**training: Any) -> Recipe:
        model = {"source": str(causal_folder), "dtype": "float32"}
        return make_recipe(methods=["random"], model=model, training={**SMALL, **training})

    return of


def test_what_is_there_is_not_trained_again(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Two methods that choose the same rows share a model: content decides, and it is the same content each time."""
    recipe, home = recipe_of(), tmp_path / "home"
    first = made_of(recipe, home, run_of(recipe))[0]
    again, other = made_of(recipe, home, run_of(recipe), run_of(recipe, seed=1))
    assert (first.trained, again.trained, other.trained) == (True, False, True)
    assert again.model.folder == first.model.folder != other.model.folder
    assert not same(weights(first), weights(other))
    assert sorted(path.name for path in (home / "training").glob(".growing*")) == []
    (elsewhere,) = made_of(recipe, tmp_path / "elsewhere", run_of(recipe))
    assert same(weights(first), weights(elsewhere))
    assert again.curve.columns == elsewhere.curve.columns
    assert again.curve["loss"].equals(elsewhere.curve["loss"])


def test_steps_are_those_of_adam_on_the_mean_of_a_batchs_answer_tokens(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Against the loop written out: rows alone, no padding, one step on all answer tokens of a batch."""
    from transformers import AutoModelForCausalLM

    recipe = recipe_of(batch_size=20, epochs=3, schedule="constant", warmup_ratio=0.0)
    (made,) = made_of(recipe, tmp_path / "home", run := run_of(recipe, n=20))
    base = LanguageModel.of(recipe, tmp_path / "home")
    rows, _ = encode_rows(run.conversations, base.tokenizer(), 128, {}, "answers")
    network = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32).train()
    decayed = [one for one in network.parameters() if one.ndim > 1]
    others = [one for one in network.parameters() if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for _ in range(3):
        n_tokens = sum(row.n_learnt for row in rows)
        total = torch.zeros(())
        for row in rows:
            logits = network(input_ids=torch.from_numpy(row.token_ids)[None].long()).logits[0, :-1]
            labels = torch.from_numpy(row.labels)[1:].long()
            total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        (total / n_tokens).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total.detach()) / n_tokens)
    assert made.curve["loss"].to_list() == pytest.approx(losses, rel=1e-4)
    found = weights(made)
    for name, parameter in network.named_parameters():
        assert torch.allclose(found[name], parameter, atol=2e-3), name


def test_labels_are_the_answers_and_what_ends_their_turns(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """A question that is learnt, or an end that is not, is seen in no loss and in every generation."""
    recipe = recipe_of()
    tokenizer = LanguageModel.of(recipe, tmp_path).tokenizer()
    (run,) = [run_of(recipe, n=3)]
    rows, refused = encode_rows(run.conversations, tokenizer, 128, {}, "answers")
    assert not refused
    for row, (_, conversation) in zip(rows, run.conversations, strict=True):
        learnt = tokenizer.decode([token for token in row.labels if token != IGNORED])
        assert learnt == conversation.messages[-1].text + "</s>"
    all_rows, _ = encode_rows(run.conversations, tokenizer, 128, {}, "all")
    assert all(row.n_learnt == len(row.token_ids) - 1 for row in all_rows)


def killed_at_step(recipe: Recipe, home: Path, step: int, seed: int = 0) -> None:
    """Train in a process of its own, and kill that with a signal that none can catch once it has come to a step."""
    code = f"from nait_assets_tests.training.runs import main; main({str(recipe.path)!r}, {str(home)!r}, '{seed}')"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    deadline = time.monotonic() + 120
    while not any(entry.get("step", 0) >= step for entry in log_of(home)):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pid = log_of(home)[0]["pid"]
    while time.monotonic() < deadline:  # the one that trains ends by itself, or two would write one folder
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            time.sleep(0.05)
            continue
        return
    raise AssertionError("the process that trains lives on")


def log_of(home: Path) -> list[dict[str, Any]]:
    """The log of the training under way."""
    lines = [line for file in home.glob("training/.growing*/log.jsonl") for line in file.read_text().splitlines(True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, DROPOUT], ids=["full", "lora with dropout"])
def test_a_killed_training_goes_on_to_the_same_weights(
    recipe_of: MakeRecipe, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """By SIGKILL, in the middle of an epoch: days of training are not lost, and nobody can tell."""
    recipe, home = recipe_of(epochs=40, **kind), tmp_path / "home"
    (whole,) = made_of(recipe, tmp_path / "whole", run_of(recipe))
    killed_at_step(recipe, home, 8)
    lines: list[str] = []
    (resumed,) = made_of(recipe, home, run_of(recipe), lines=lines)
    assert any("goes on from step" in line for line in lines), lines
    assert same(weights(whole), weights(resumed))
    assert resumed.curve.drop("seconds").equals(whole.curve.drop("seconds"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["lacks", "cut"])
def test_a_checkpoint_with_a_file_missing_is_refused(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The trainer would go on without its optimizer, to other weights, without a word; the checkpoint before it serves.

    It is killed where the fewest are whole: the trainer has written the next one, and that is not sealed.
    """
    recipe, home = recipe_of(epochs=4), tmp_path / "home"
    (whole,) = made_of(recipe, tmp_path / "whole", run_of(recipe))
    with monkeypatch.context() as patch:
        patch.setattr("nait_assets.training.process.WORKER", "nait_assets_tests.training.killed_worker")
        with pytest.raises(WorkerError, match="was ended by signal 9"):
            made_of(recipe, home, run_of(recipe), checkpoint_seconds=0)
    (folder,) = home.glob("training/.growing*/checkpoints")
    there = {path.name: fault_of(path) for path in folder.glob("checkpoint-*")}
    unsealed = f"checkpoint-{STEP}"
    assert there.pop(unsealed) == "it was not written to its end"
    assert there == {f"checkpoint-{STEP - 1}": "", f"checkpoint-{STEP - 2}": ""}
    last = folder / f"checkpoint-{STEP - 1}"
    if damage == "lacks":
        (last / "optimizer.pt").unlink()
    else:
        os.truncate(last / "optimizer.pt", 100)
    lines: list[str] = []
    (resumed,) = made_of(recipe, home, run_of(recipe), lines=lines)
    assert any(f"{unsealed} is refused" in line for line in lines), lines
    assert any(f"{last.name} is refused" in line and "optimizer.pt" in line for line in lines), lines
    assert any(f"goes on from step {STEP - 2}" in line for line in lines), lines
    assert same(weights(whole), weights(resumed))


def test_earlier_checkpoints_are_removed_by_their_steps(tmp_path: Path) -> None:
    """Not by their times, which a copied home or a clock that was put right does not keep."""
    for step in (10, 9, 8, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_bytes(b"1")
        seal(checkpoint)
    os.utime(tmp_path / "checkpoint-100", (0, 0))
    remove_earlier(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    assert last_whole(tmp_path) == (tmp_path / "checkpoint-100", [])


def test_a_loss_that_is_no_number_ends_the_training(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """The trainer itself logs a loss of 0 and ends well."""
    recipe, home = recipe_of(learning_rate=1e30, warmup_ratio=0.0, max_grad_norm=1e30), tmp_path / "home"
    run = run_of(recipe)
    with pytest.raises(
        NumericalError, match=r"rows 10, seed 0: step \d of 6 has a .* of nan; its \d rows here are"
    ) as error:
        made_of(recipe, home, run)
    assert any(name in str(error.value) for name in run.sample_ids)
    assert not run.folder(home).exists()


def test_the_rows_of_a_step_are_those_that_the_message_names(
    recipe_of: MakeRecipe, tmp_path: Path, causal_folder: Path
) -> None:
    """One row whose token has a broken embedding: the first step that reads it fails, and names it among its few."""
    from transformers import AutoModelForCausalLM

    recipe, home = recipe_of(batch_size=2), tmp_path / "home"
    base = LanguageModel.of(recipe, home)
    run = run_of(recipe)
    rows, _ = encode_rows(run.conversations, base.tokenizer(), 128, {}, "answers")
    alone = next(
        (token, row.sample_id)
        for row in rows
        for token in row.token_ids
        if sum(token in other.token_ids for other in rows) == 1
    )
    network = AutoModelForCausalLM.from_pretrained(causal_folder)
    with torch.no_grad():
        network.model.embed_tokens.weight[alone[0]] = math.nan
    broken = tmp_path / "broken"
    network.save_pretrained(broken)
    base.tokenizer().save_pretrained(broken)
    recipe = recipe_of(batch_size=2, base={"source": str(broken)})
    model = LanguageModel.of(recipe, home, spec=recipe.training.base)  # type: ignore[union-attr]
    with pytest.raises(NumericalError, match=alone[1]):
        making.make([run_of(recipe)], recipe, model, home, making.TrainingOptions(), lambda _: None)


def test_an_adapter_loads_as_it_is(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """By transformers, by peft and by this project: all see the same model, and not the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    recipe, home = recipe_of(**DROPOUT), tmp_path / "home"
    (made,) = made_of(recipe, home, run_of(recipe))
    folder, base = made.model.folder, LanguageModel.of(recipe, home)
    ids = torch.tensor([[1, 5, 9, 30]])
    plain = AutoModelForCausalLM.from_pretrained(base.source)
    with torch.inference_mode():
        before = plain(ids).logits
        by_peft = PeftModel.from_pretrained(plain, folder).eval()(ids).logits
        by_transformers = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        loaded = made.model.load()
        found = loaded.network(ids).logits
    assert torch.equal(by_peft, by_transformers)
    assert torch.allclose(found, by_peft, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-3)
    assert made.model.is_adapter


def test_files_that_changed_are_a_fault(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """What is in a model's folder is what was trained."""
    recipe, home = recipe_of(), tmp_path / "home"
    (made,) = made_of(recipe, home, run_of(recipe))
    folder = made.model.folder
    assert folder is not None
    assert faults_of(folder) == []
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")
    (folder / "config.json").unlink()
    (folder / "other.py").touch()
    assert faults_of(folder) == [
        f"{folder} lacks config.json",
        f"{folder}: model.safetensors changed",
        f"{folder} also holds other.py",
    ]


def test_rows_fewer_than_a_batch_are_said(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """One step an epoch is not what a batch of 128 sounds like."""
    recipe, lines = recipe_of(batch_size=128), list[str]()
    (made,) = made_of(recipe, tmp_path / "home", run_of(recipe), lines=lines)
    assert "rows 10, seed 0: 10 rows are fewer than a batch of 128: the batch is 10, one step an epoch" in lines
    assert made.model.manifest["n_steps"] == 2


def test_the_time_left_is_that_of_all_models(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 32 probes that of the one in progress says nothing about when to come back."""
    monkeypatch.setattr("nait_assets.models.progress.LINE_SECONDS", 0.0)
    recipe, lines = recipe_of(), list[str]()
    made_of(recipe, tmp_path / "home", run_of(recipe, seed=0), run_of(recipe, seed=1), lines=lines)
    said = [line for line in lines if " left" in line]
    assert len(said) == 12  # two models of two epochs of three steps
    line = r"rows 10, 2 models: \d+ of 40 samples read, .* tokens/s, (0:\d\d:\d\d|unknown time) left"
    assert [one for one in said if not re.fullmatch(line, one)] == []
    assert said[-1].startswith("rows 10, 2 models: 40 of 40 samples")


def test_a_subset_without_rows_is_said_with_what_would_give_it_some(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """Of no rows more tokens each are no help."""
    with pytest.raises(DataError, match=r"there are no rows to train on\. Give `selection\.tokens`"):
        made_of(recipe_of(), tmp_path / "home", replace(run_of(recipe_of(), seed=0), conversations=()))


def test_answers_that_are_all_cut_off_are_said_before_training(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """The trainer would have no row, and say so in its own words, or none."""
    recipe, reading = recipe_of(), {"truncate": "answer"}
    with pytest.raises(
        DataError, match=r"none of its 10 rows has a token to learn; most often its response is cut off"
    ):
        made_of(recipe, tmp_path / "home", run_of(recipe, max_tokens=8, reading=reading))


def test_a_process_that_dies_is_said(recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last lines are all that there is to go by."""
    monkeypatch.setattr("nait_assets.training.process.WORKER", "nait_assets.training.no_such_module")
    with pytest.raises(WorkerError, match=r"ended with status 1[\s\S]*No module named"):
        made_of(recipe_of(), tmp_path / "home", run_of(recipe_of()))


def test_rows_of_one_length_are_rows(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """As where all are cut to fit: a frame would make a matrix of them."""
    recipe = recipe_of()
    (made,) = made_of(recipe, tmp_path / "home", run_of(recipe, max_tokens=16))
    said = made.model.manifest
    assert (said["n_tokens"], said["n_truncated"]) == (16 * said["n_rows"], said["n_rows"])


@pytest.mark.parametrize(
    ("lengths", "most", "tokens", "wanted"),
    [
        ([10] * 50, 8, 1024, 8),
        ([100] * 50, 128, 1024, 8),
        ([2000] * 50, 128, 1024, 1),
        ([100] * 49 + [4000], 128, 1024, 1),
    ],
    ids=["all of a step", "as many as fit", "one at least", "few where one is long"],
)
def test_rows_at_once_follow_their_lengths(lengths: list[int], most: int, tokens: int, wanted: int) -> None:
    """A divisor of the step, so that every step has its rows; and no batch that memory does not hold."""
    assert rows_at_once(lengths, most, tokens) == wanted


def test_the_base_is_a_model_to_be_evaluated(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    """What was trained is compared with what was not."""
    from nait_assets.training.models import base_model

    base = LanguageModel.of(recipe_of(), tmp_path)
    found: Model = base_model(base)
    assert found.is_present
    assert found.key == base.identity()
    assert found.load().network.config.vocab_size == 400
