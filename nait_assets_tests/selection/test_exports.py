"""Exports: what fine-tuning tools and catalogues read is what was chosen, and nothing is dropped in silence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nait_assets.selection.exports import EXPORTED_FILES, Exports, alpaca_row, alternates, croissant, dataset_info
from nait_assets.selection.subset import write_folder
from nait_assets.tables import MESSAGES

SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": '{"°C": 21}'}
NAME = "nait_math_0.10"
DATA_FILES = ("train.parquet", "train.jsonl", "alpaca.json")
LLAMA_FACTORY_COLUMNS = {
    "prompt",
    "query",
    "response",
    "history",
    "messages",
    "system",
    "tools",
    "images",
    "chosen",
    "rejected",
    "kto_tag",
}
LLAMA_FACTORY_TAGS = {
    "role_tag",
    "content_tag",
    "user_tag",
    "assistant_tag",
    "observation_tag",
    "function_tag",
    "system_tag",
}


def user(text: str) -> dict[str, str]:
    """A question."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """An answer."""
    return {"role": "assistant", "content": text}


CONVERSATIONS = {
    "single": [user("2+2?"), assistant("4")],
    "system": [SYSTEM, user("¿Qué es?\u2028\n\\b"), assistant("数字 🙂")],
    "several": [SYSTEM, user("Why?"), assistant("So."), user("And?"), assistant("No."), user("Yes"), assistant("Ok")],
    "tool": [user("How warm is it?"), assistant("get_weather()"), TOOL, assistant("21 °C")],
    "twice": [user("Hello"), user("Are you there?"), assistant("Yes")],
    "late_system": [user("Hello"), SYSTEM, assistant("Hi")],
}


def chosen(*names: str) -> pl.DataFrame:
    """Rows of a subset with these conversations."""
    return pl.DataFrame(
        {
            "rank": range(1, len(names) + 1),
            "score": [1.0 / (place + 3) for place in range(len(names))],
            "sample_id": names,
            "messages": [CONVERSATIONS[name] for name in names],
            "topic": [None, *["weather"] * (len(names) - 1)],
            "source": ["pool.jsonl"] * len(names),
            "source_row": range(len(names)),
        },
        schema_overrides={"messages": MESSAGES, "topic": pl.String, "rank": pl.Int64, "source_row": pl.Int64},
    )


def written(folder: Path, rows: pl.DataFrame) -> Path:
    """A subset's folder."""
    exports = Exports.of(rows, NAME, ["hub:someone/chats", "pool.jsonl"])
    card = f"---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n{exports.card()}\n"
    write_folder(folder, rows, {}, card, exports)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A subset of every kind of conversation."""
    return written(tmp_path / "0.10", chosen(*CONVERSATIONS))


def loaded(file: Path) -> Any:
    """A JSON file's content."""
    return json.loads(file.read_text(encoding="utf-8"))


def in_a_process(program: str, tmp_path: Path, *arguments: str | Path) -> str:
    """The output of a program in a process of its own: `datasets` reads its settings when it is imported."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_CACHE": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def messages_of(row: dict[str, Any]) -> list[dict[str, str]]:
    """The conversation that LLaMA-Factory makes of an Alpaca row."""
    asked = "\n".join(text for text in (row["instruction"], row["input"]) if text)
    pairs = [*row["history"], [asked, row["output"]]]
    turns = [message for question, answer in pairs for message in (user(question), assistant(answer))]
    return [{"role": "system", "content": row["system"]}, *turns] if row["system"] else turns


@pytest.mark.parametrize("name", ["single", "system", "several"])
def test_an_alpaca_row_is_read_as_the_conversation_it_was_made_from(name: str) -> None:
    """A line feed between instruction and input, or a turn in the wrong place, would train on what nobody wrote."""
    row = alpaca_row(CONVERSATIONS[name])
    assert row is not None
    assert list(row) == ["instruction", "input", "output", "system", "history"]
    assert messages_of(row) == CONVERSATIONS[name]


@pytest.mark.parametrize("name", ["tool", "twice", "late_system"])
def test_a_conversation_that_the_alpaca_format_cannot_hold_has_no_row(name: str) -> None:
    """A tool's answer as a user's, or two questions as one, would be an invented conversation."""
    assert alpaca_row(CONVERSATIONS[name]) is None


def test_rows_left_out_are_counted_in_manifest_and_card(folder: Path) -> None:
    """Whoever trains on `alpaca.json` must learn that it is shorter; its ids say by which rows."""
    assert [row["sample_id"] for row in loaded(folder / "alpaca.json")] == ["single", "system", "several"]
    assert loaded(folder / "manifest.json")["exports"] == {
        "alpaca.json": {"n_rows": 3, "n_left_out": 3},
        "dataset_info.json": {"n_skipped_by_llama_factory": 2},
    }
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "3 of 6 conversations are not in it" in card
    assert "it skips 2 of the 6 conversations" in card


def test_the_card_does_not_speak_of_rows_left_out_where_none_is(tmp_path: Path) -> None:
    """A warning that is always there is not read."""
    card = (written(tmp_path / "a", chosen("single", "several")) / "README.md").read_text(encoding="utf-8")
    assert "are not in it" not in card
    assert "it skips" not in card
    for file in (*EXPORTED_FILES, "train.jsonl", "train.parquet", "manifest.json"):
        assert f"| `{file}` |" in card


def test_llama_factory_takes_turns_of_user_or_tool_and_assistant() -> None:
    """Its converter skips other conversations with a warning only, so that the card has to say how many."""
    assert {name: alternates(messages) for name, messages in CONVERSATIONS.items()} == {
        "single": True,
        "system": True,
        "several": True,
        "tool": True,
        "twice": False,
        "late_system": False,
    }


def test_dataset_info_has_the_keys_that_llama_factory_documents(folder: Path) -> None:
    """LLaMA-Factory is not installed here; its keys are those of `data/README.md` in hiyouga/LLaMA-Factory.

    An unknown key is ignored there, and a missing one takes its default, `conversations` with `from` and `value`.
    """
    described = loaded(folder / "dataset_info.json")
    assert set(described) == {NAME, f"{NAME}_alpaca"}
    for entry in described.values():
        assert set(entry) <= {"file_name", "formatting", "columns", "tags"}
        assert set(entry["columns"]) <= LLAMA_FACTORY_COLUMNS
        assert set(entry.get("tags", {})) <= LLAMA_FACTORY_TAGS
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    messages, tags = described[NAME], described[NAME]["tags"]
    assert (messages["file_name"], messages["formatting"]) == ("train.jsonl", "sharegpt")
    for line in lines:
        for message in json.loads(line)[messages["columns"]["messages"]]:
            assert set(message) == {tags["role_tag"], tags["content_tag"]}
            assert message[tags["role_tag"]] in {
                tags[f"{role}_tag"] for role in ("user", "assistant", "observation", "system")
            }
    alpaca = described[f"{NAME}_alpaca"]
    assert (alpaca["file_name"], alpaca["formatting"]) == ("alpaca.json", "alpaca")
    for row in loaded(folder / "alpaca.json"):
        assert set(alpaca["columns"].values()) == set(row) - {"sample_id"}


def test_an_empty_alpaca_file_is_not_offered_to_llama_factory(tmp_path: Path) -> None:
    """A pool of tool calls alone: the file is there and valid, and loading it would end in an error."""
    folder = written(tmp_path / "a", chosen("tool"))
    assert loaded(folder / "alpaca.json") == []
    assert set(loaded(folder / "dataset_info.json")) == {NAME}
    assert set(dataset_info(NAME, with_alpaca=True)) == {NAME, f"{NAME}_alpaca"}


def test_the_same_rows_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """No time, no path: two people with one recipe can compare hashes."""
    again = written(tmp_path / "elsewhere" / "again", chosen(*CONVERSATIONS))
    for name in EXPORTED_FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_datasets_opens_the_folder_and_every_data_file(folder: Path, tmp_path: Path) -> None:
    """The extra JSON files must not be taken for rows, nor `dataset_info.json` for a description of `datasets`' own."""
    program = (
        "import datasets, json, sys; from pathlib import Path; folder = Path(sys.argv[1])\n"
        "one = lambda kind, file: list(datasets.load_dataset(kind, data_files=str(folder / file), split='train'))\n"
        "print(json.dumps({'folder': {split: list(rows) for split, rows in datasets.load_dataset(str(folder)).items()},"
        "'train.jsonl': one('json', 'train.jsonl'), 'alpaca.json': one('json', 'alpaca.json'),"
        "'train.parquet': one('parquet', 'train.parquet')}))"
    )
    found = json.loads(in_a_process(program, tmp_path, folder))
    rows = chosen(*CONVERSATIONS)
    assert found["folder"] == {"train": rows.to_dicts()}
    assert found["train.parquet"] == rows.to_dicts()
    assert found["train.jsonl"] == rows.select("messages", "sample_id").to_dicts()
    assert found["alpaca.json"] == loaded(folder / "alpaca.json")


def test_croissant_is_valid_and_yields_the_rows(folder: Path, tmp_path: Path) -> None:
    """Catalogues and loaders go by it; the validator is the format's own, and reads the files by their paths.

    In a process of its own: the validator's logging takes hold of `sys.stderr` when it is imported.
    """
    program = """
import json, sys
import mlcroissant

data_set = mlcroissant.Dataset(sys.argv[1])
records = list(data_set.records("rows"))
print(json.dumps([sorted(data_set.metadata.issues.errors), records], default=lambda text: text.decode()))
"""
    errors, records = json.loads(in_a_process(program, tmp_path, folder / "croissant.json"))
    assert errors == []
    rows = [{name.removeprefix("rows/"): value for name, value in record.items()} for record in records]
    for row in rows:
        row["messages"] = [
            {name.removeprefix("rows/messages/"): text for name, text in message.items()} for message in row["messages"]
        ]
    assert rows == chosen(*CONVERSATIONS).to_dicts()


def test_croissant_has_the_true_hash_of_each_data_file(folder: Path) -> None:
    """The hash is what makes a copy from elsewhere checkable; the manifest's is the same."""
    hashes = loaded(folder / "manifest.json")["files"]
    described = {file["contentUrl"]: file["sha256"] for file in loaded(folder / "croissant.json")["distribution"]}
    assert described == {name: hashes[name]["sha256"] for name in DATA_FILES}


def test_croissant_claims_no_licence_that_nobody_stated() -> None:
    """A recipe names sources, not licences: the metadata must point to them and name none."""
    described = croissant(
        NAME, ["hub:someone/chats", "pool.jsonl"], chosen("single").schema, dict.fromkeys(DATA_FILES, "")
    )
    text = json.dumps(described["license"])
    assert "someone/chats" in text
    assert "pool.jsonl" in text
    assert not re.search(r"CC|MIT|Apache|GPL|http", text)
    assert described["isBasedOn"] == ["https://huggingface.co/datasets/someone/chats"]
    assert "isBasedOn" not in croissant(NAME, ["pool.jsonl"], chosen("single").schema, dict.fromkeys(DATA_FILES, ""))


@pytest.mark.slow
def test_trl_trains_a_step_on_the_messages(folder: Path, model_folder: Path, tmp_path: Path) -> None:
    """The reason for a subset; every role and script goes through the chat template of a real, tiny model."""
    program = """
import sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model, file, output = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model, pad_token="<unk>")
rows = load_dataset("json", data_files=file, split="train")
config = SFTConfig(output_dir=output, max_steps=1, use_cpu=True, report_to="none", save_strategy="no", bf16=False,
                   per_device_train_batch_size=6, max_length=128, logging_steps=1, gradient_checkpointing=False)
trainer = SFTTrainer(AutoModelForCausalLM.from_pretrained(model), args=config, train_dataset=rows,
                     processing_class=tokenizer)
trainer.train()
print(len(trainer.train_dataset), trainer.state.global_step, trainer.state.log_history[0]["loss"])
"""
    answer = in_a_process(program, tmp_path, model_folder, folder / "train.jsonl", tmp_path / "trained")
    n_rows, steps, loss = answer.split()
    assert (int(n_rows), int(steps)) == (len(CONVERSATIONS), 1)
    assert 0 < float(loss) < 20
