"""A subset in the formats that fine-tuning tools and data catalogues take as they are.

Belongs here: Alpaca rows, LLaMA-Factory's `dataset_info.json`, Croissant metadata. All are plain JSON, and the same
rows are the same bytes. Does not belong here: which rows, and the files of our own (`subset`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.resources.files import sha256

EXPORTED_FILES = ("alpaca.json", "dataset_info.json", "croissant.json")
DATA_FILES = {
    "train.parquet": ("application/x-parquet", "The rows, best first, with rank, score and source."),
    "train.jsonl": ("application/jsonlines", "The conversations as messages with roles, one a line."),
    "alpaca.json": ("application/json", "The conversations as instruction, output, system and history."),
}
TEXT, INTEGER, NUMBER = "sc:Text", "sc:Integer", "sc:Float"
CROISSANT_TERMS = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "column": "cr:column",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "jsonPath": "cr:jsonPath",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True)
class Exports:
    """What the exported files say beside the rows, and what they cannot hold.

    Attributes:
        name: Name of the data set, `<method>_<target>_<ratio>`.
        sources: Sources of the pool, as the recipe names them.
        n_rows: Number of rows in the subset.
        n_alpaca: Rows that the Alpaca format can hold.
        n_alternating: Rows that LLaMA-Factory takes from the messages; it skips the others with a warning.
    """

    name: str
    sources: tuple[str, ...]
    n_rows: int
    n_alpaca: int
    n_alternating: int

    @classmethod
    def of(cls, rows: pl.DataFrame, name: str, sources: Sequence[str]) -> "Exports":
        """The exports of a subset's rows, which have a column `messages`."""
        conversations = rows["messages"].to_list()
        return cls(
            name,
            tuple(sources),
            len(rows),
            sum(alpaca_row(messages) is not None for messages in conversations),
            sum(alternates(messages) for messages in conversations),
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """What the manifest says of conversations that a format cannot hold."""
        return {
            "alpaca.json": {"n_rows": self.n_alpaca, "n_left_out": self.n_rows - self.n_alpaca},
            "dataset_info.json": {"n_skipped_by_llama_factory": self.n_rows - self.n_alternating},
        }

    def card(self) -> str:
        """What each file is, as a table of the data-set card."""
        left_out, skipped = self.n_rows - self.n_alpaca, self.n_rows - self.n_alternating
        alpaca = "instruction, output, system and history of each conversation (Alpaca format); `input` is empty"
        if left_out:
            alpaca += (
                f". {left_out} of {self.n_rows} conversations are not in it: the format holds user and "
                "assistant in turns, after at most one system message"
            )
        messages = "entries of `train.jsonl` and `alpaca.json` for LLaMA-Factory's `dataset_dir`"
        if skipped:
            messages += (
                f"; it skips {skipped} of the {self.n_rows} conversations in `train.jsonl`, "
                "where user or tool and assistant do not take turns"
            )
        files = {
            "train.parquet": "rank, score, conversation and source of each row; `datasets.load_dataset` opens it",
            "train.jsonl": "the conversations alone, as `messages`; TRL and others train on it",
            "alpaca.json": alpaca,
            "dataset_info.json": messages,
            "croissant.json": "Croissant metadata: the files with their SHA-256, and the fields of a row",
            "manifest.json": "everything that the selection rests on",
        }
        return "\n".join(["| file | what it holds |", "|---|---|", *(f"| `{n}` | {t} |" for n, t in files.items())])

    def write(self, folder: Path, rows: pl.DataFrame) -> None:
        """Write the exported files beside `train.jsonl` and `train.parquet`, which have to be there."""
        with (folder / "alpaca.json").open("w", encoding="utf-8", newline="\n") as file:
            file.write("[")
            separator = "\n"
            for sample_id, messages in rows.select("sample_id", "messages").iter_rows():
                if (row := alpaca_row(messages)) is not None:
                    file.write(separator + json.dumps({**row, "sample_id": sample_id}, ensure_ascii=False))
                    separator = ",\n"
            file.write("\n]\n")
        _write_json(folder / "dataset_info.json", dataset_info(self.name, with_alpaca=self.n_alpaca > 0))
        hashes = {name: sha256(folder / name) for name in DATA_FILES}
        _write_json(folder / "croissant.json", croissant(self.name, self.sources, rows.schema, hashes))


def alpaca_row(messages: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """A conversation in LLaMA-Factory's Alpaca format, or None where the format cannot hold it.

    It holds pairs of user and assistant after at most one system message; the last pair is `instruction` and `output`,
    those before it `history`. `input` stays empty: LLaMA-Factory would join it to the instruction by a line feed.
    """
    system, turns = _without_system(messages)
    if not turns or [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        return None
    texts = [turn["content"] for turn in turns]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": [texts[place : place + 2] for place in range(0, len(texts) - 2, 2)],
    }


def alternates(messages: Sequence[Mapping[str, str]]) -> bool:
    """Whether user or tool and assistant take turns, as LLaMA-Factory requires of messages."""
    _, turns = _without_system(messages)
    asked, answered = turns[::2], turns[1::2]
    return (
        len(asked) == len(answered) > 0
        and all(turn["role"] in ("user", "tool") for turn in asked)
        and all(turn["role"] == "assistant" for turn in answered)
    )


def dataset_info(name: str, with_alpaca: bool) -> dict[str, Any]:
    """LLaMA-Factory's description of a subset's files, by the keys that its `data/README.md` documents.

    Args:
        name: Name of the data set; that of the Alpaca file ends in `_alpaca`.
        with_alpaca: Whether the Alpaca file has rows; LLaMA-Factory cannot load one without.
    """
    messages = {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "system_tag": "system",
        },
    }
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    alpaca = {"file_name": "alpaca.json", "formatting": "alpaca", "columns": {**columns, "history": "history"}}
    return {name: messages, **({f"{name}_alpaca": alpaca} if with_alpaca else {})}


def croissant(name: str, sources: Sequence[str], schema: pl.Schema, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Croissant 1.0 metadata (https://docs.mlcommons.org/croissant/docs/croissant-spec.html) of a subset's folder.

    The licence is that of the pool, which a recipe does not state: the text says so and names the sources.

    Args:
        name: Name of the data set.
        sources: Sources of the pool, as the recipe names them.
        schema: Schema of `train.parquet`.
        hashes: SHA-256 of every file in `DATA_FILES`.
    """
    hub = [f"https://huggingface.co/datasets/{source.removeprefix('hub:')}" for source in sources if _on_hub(source)]
    return {
        "@context": CROISSANT_TERMS,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": "Instruction-tuning conversations, chosen from a pool by nait_assets; README.md says how.",
        "license": {
            "@type": "sc:CreativeWork",
            "name": "The licence of the pool",
            "description": f"Every row keeps the licence of the source it was chosen from: {', '.join(sources)}.",
        },
        **({"isBasedOn": hub} if hub else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "description": description,
                "contentUrl": file,
                "encodingFormat": encoding,
                "sha256": hashes[file],
            }
            for file, (encoding, description) in DATA_FILES.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "description": "One row is one chosen conversation.",
                "field": [_field(column, dtype) for column, dtype in schema.items()],
            }
        ],
    }


def _field(column: str, dtype: pl.DataType) -> dict[str, Any]:
    if column == "messages":
        parts = [
            {**_entry(f"messages/{part}", "messages", {"transform": {"jsonPath": part}}), "dataType": TEXT}
            for part in ("role", "content")
        ]
        return {"@type": "cr:Field", "@id": "rows/messages", "name": "messages", "repeated": True, "subField": parts}
    kind = INTEGER if dtype.is_integer() else NUMBER if dtype.is_float() else TEXT
    return {**_entry(column, column, {}), "dataType": kind}


def _entry(name: str, column: str, more: Mapping[str, Any]) -> dict[str, Any]:
    source = {"fileObject": {"@id": "train.parquet"}, "extract": {"column": column}, **more}
    return {"@type": "cr:Field", "@id": f"rows/{name}", "name": name.rpartition("/")[2], "source": source}


def _without_system(messages: Sequence[Mapping[str, str]]) -> tuple[str, Sequence[Mapping[str, str]]]:
    """The text of a system message in front, or "", and the messages behind it."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return "", messages


def _on_hub(source: str) -> bool:
    return source.startswith("hub:")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
