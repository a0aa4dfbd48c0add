"""A subset in the formats that fine-tuning tools and data catalogues take as they are.

Belongs here: Alpaca rows, LLaMA-Factory's `dataset_info.json`, Croissant metadata. All are plain JSON, and the same
rows are the same bytes. Texts are those of the source, to the byte. A format that cannot hold all of a conversation
does not hold the conversation. Does not belong here: which rows, and the files of our own (`subset`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.conversation import (
    FURTHER_REASONING_KEYS,
    REASONING_KEYS,
    SEEN_KEYS,
    Conversation,
    Message,
    conversations_of,
)
from nait_assets.resources.files import sha256

PARQUET_KEYS: dict[str, pl.DataType] = {
    **{key: pl.String() for key in (*REASONING_KEYS, *FURTHER_REASONING_KEYS, *SEEN_KEYS)},
    "weight": pl.Float64(),
    "tool_calls": pl.List(
        pl.Struct(
            {
                "id": pl.String(),
                "type": pl.String(),
                "function": pl.Struct({"name": pl.String(), "arguments": pl.String()}),
            }
        )
    ),
}
"""What a message of `train.parquet` may hold beside role and content: all that a model can see or learn from."""
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


LLAMA_FACTORY_FILE = "llama_factory.jsonl"
"""Beside `train.jsonl`, only where that holds rows which LLaMA-Factory would train on as something else."""


@dataclass(frozen=True)
class Exports:
    """What the exported files say beside the rows, and what they cannot hold.

    Attributes:
        name: Name of the data set, `<method>_<target>_<ratio>`.
        sources: Sources of the pool, as the recipe names them.
        n_rows: Rows of the subset.
        n_alpaca: Rows that the Alpaca format can hold.
        n_alternating: Rows that LLaMA-Factory takes from the messages; it skips the others with a warning.
        n_misread: Rows with calls, or with turns that are not to be trained on: LLaMA-Factory knows neither.
    """

    name: str
    sources: tuple[str, ...]
    n_rows: int
    n_alpaca: int
    n_alternating: int
    n_misread: int = 0

    @classmethod
    def of(cls, rows: pl.DataFrame, name: str, sources: Sequence[str]) -> "Exports":
        """The exports of a subset's rows, which have the columns `messages` and `conversation`."""
        conversations = [conversation for _, conversation in conversations_of(rows)]
        return cls(
            name,
            tuple(sources),
            len(rows),
            sum(alpaca_row(conversation) is not None for conversation in conversations),
            sum(alternates(conversation) and not is_misread(conversation) for conversation in conversations),
            sum(is_misread(conversation) for conversation in conversations),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that are written."""
        return (*EXPORTED_FILES, *([LLAMA_FACTORY_FILE] if self.n_misread else []))

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
                "assistant in turns, after at most one system message, all to be trained on, without tools or reasoning"
            )
        file = LLAMA_FACTORY_FILE if self.n_misread else "train.jsonl"
        messages = f"entries of `{file}` and `alpaca.json` for LLaMA-Factory's `dataset_dir`"
        if skipped:
            messages += (
                f"; it skips {skipped} of the {self.n_rows} conversations in `train.jsonl`, "
                "where user or tool and assistant do not take turns"
            )
        files = {
            "train.parquet": "rank, score, conversation and source of each row; `datasets.load_dataset` opens it",
            "train.jsonl": "the conversations alone, as `messages`, with all that the source says; TRL and others "
            "train on it. A turn with `weight` 0 is not to be trained on",
            "alpaca.json": alpaca,
            "dataset_info.json": messages,
            "croissant.json": "Croissant metadata: the files with their SHA-256, and the fields of a row",
            "manifest.json": "everything that the selection rests on",
        }
        if self.n_misread:
            files[LLAMA_FACTORY_FILE] = (
                f"the rows of `train.jsonl` but {self.n_misread} with calls of tools or with turns that are not to be "
                "trained on, which LLaMA-Factory would take for others"
            )
        return "\n".join(["| file | what it holds |", "|---|---|", *(f"| `{n}` | {t} |" for n, t in files.items())])

    def write(self, folder: Path, rows: pl.DataFrame) -> None:
        """Write the exported files beside `train.jsonl` and `train.parquet`, which have to be there.

        Args:
            folder: Where they are written.
            rows: The subset's rows, with the columns `messages` and `conversation`.
        """
        conversations = conversations_of(rows)
        with (folder / "alpaca.json").open("w", encoding="utf-8", newline="\n") as file:
            file.write("[")
            separator = "\n"
            for sample_id, conversation in conversations:
                if (row := alpaca_row(conversation)) is not None:
                    file.write(separator + json.dumps({**row, "sample_id": sample_id}, ensure_ascii=False))
                    separator = ",\n"
            file.write("\n]\n")
        if self.n_misread:
            write_lines(folder / LLAMA_FACTORY_FILE, [pair for pair in conversations if not is_misread(pair[1])])
        messages_file = LLAMA_FACTORY_FILE if self.n_misread else "train.jsonl"
        with_messages = self.n_misread < self.n_rows
        info = dataset_info(self.name, self.n_alpaca > 0, messages_file if with_messages else None)
        _write_json(folder / "dataset_info.json", info)
        hashes = {name: sha256(folder / name) for name in DATA_FILES}
        _write_json(folder / "croissant.json", croissant(self.name, self.sources, training_rows(rows).schema, hashes))


def write_lines(path: Path, conversations: Iterable[tuple[str, Conversation]]) -> None:
    """Write conversations as their sources have them, one a line, with their `sample_id`."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for sample_id, conversation in conversations:
            row = {**conversation.source(), "sample_id": sample_id}
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def training_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of `train.parquet`: `messages` as the source has them, in columns that every row has.

    A message has the keys that some message of the subset has; arguments of calls are JSON text, as OpenAI's are, since
    Arrow would give each call the arguments of all. `tools` is JSON text, where there are some.

    Args:
        rows: Columns of the pool, `messages` and `conversation` among them.
    """
    conversations = [conversation for _, conversation in conversations_of(rows)]
    keys = {name: kind for name, kind in PARQUET_KEYS.items() if _is_said(name, conversations)}
    messages = [[_parquet_message(message, keys) for message in one.messages] for one in conversations]
    kind = pl.List(pl.Struct({"role": pl.String(), "content": pl.String(), **keys}))
    tools = [_as_text(conversation.tools) for conversation in conversations]
    given = rows.with_columns(pl.Series("messages", messages, dtype=kind)).drop("conversation", strict=False)
    return given if not any(tools) else given.with_columns(pl.Series("tools", tools, dtype=pl.String()))


def _is_said(key: str, conversations: Sequence[Conversation]) -> bool:
    return any(_parquet_value(message, key) is not None for one in conversations for message in one.messages)


def _parquet_message(message: Message, keys: Mapping[str, pl.DataType]) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **{key: _parquet_value(message, key) for key in keys}}


def _parquet_value(message: Message, key: str) -> Any:
    """The value of a message's key in the one type that its column has."""
    if key == "tool_calls":
        calls = [
            {
                "id": call.get("id"),
                "type": "function",
                "function": {"name": call["name"], "arguments": _as_text(call["arguments"])},
            }
            for call in message.calls
        ]
        return calls or None
    if key == "weight":
        return message.weight if message.weight != 1 else None
    return _as_text(message.keys.get(key))


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def alpaca_row(given: Conversation | Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A conversation in LLaMA-Factory's Alpaca format, or None where the format cannot hold it.

    It holds pairs of user and assistant after at most one system message; the last pair is `instruction` and `output`,
    those before it `history`. `input` stays empty: LLaMA-Factory would join it to the instruction by a line feed.
    """
    conversation = Conversation.of(given)
    system, turns = _without_system(conversation)
    if not turns or [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        return None
    if conversation.tools is not None or any(len(message.identity()) > 2 for message in conversation.messages):
        return None  # calls, reasoning, turns not to be trained on
    texts = [turn.content for turn in turns]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": [texts[place : place + 2] for place in range(0, len(texts) - 2, 2)],
    }


def alternates(given: Conversation | Sequence[Mapping[str, Any]]) -> bool:
    """Whether user or tool and assistant take turns, as LLaMA-Factory requires of messages."""
    _, turns = _without_system(Conversation.of(given))
    asked, answered = turns[::2], turns[1::2]
    return (
        len(asked) == len(answered) > 0
        and all(turn.role in ("user", "tool") for turn in asked)
        and all(turn.role == "assistant" for turn in answered)
    )


def is_misread(given: Conversation | Sequence[Mapping[str, Any]]) -> bool:
    """Whether LLaMA-Factory would train on something else than messages say: it knows neither calls nor weights."""
    messages = Conversation.of(given).messages
    return any(message.calls or (message.role == "assistant" and message.weight == 0) for message in messages)


def dataset_info(name: str, with_alpaca: bool, messages_file: str | None = "train.jsonl") -> dict[str, Any]:
    """LLaMA-Factory's description of a subset's files, by the keys that its `data/README.md` documents.

    Args:
        name: Name of the data set; that of the Alpaca file ends in `_alpaca`.
        with_alpaca: Whether the Alpaca file has rows; LLaMA-Factory cannot load one without.
        messages_file: The file that it reads messages from; None where no row is fit for it.
    """
    messages = {
        "file_name": messages_file,
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
    entries = {name: messages} if messages_file else {}
    return entries | ({f"{name}_alpaca": alpaca} if with_alpaca else {})


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
            for part in (field.name for field in _fields_of(dtype) if field.dtype == pl.String())
        ]
        return {"@type": "cr:Field", "@id": "rows/messages", "name": "messages", "repeated": True, "subField": parts}
    kind = INTEGER if dtype.is_integer() else NUMBER if dtype.is_float() else TEXT
    return {**_entry(column, column, {}), "dataType": kind}


def _fields_of(dtype: pl.DataType) -> Sequence[pl.Field]:
    assert isinstance(dtype, pl.List)
    assert isinstance(dtype.inner, pl.Struct)
    return dtype.inner.fields


def _entry(name: str, column: str, more: Mapping[str, Any]) -> dict[str, Any]:
    source = {"fileObject": {"@id": "train.parquet"}, "extract": {"column": column}, **more}
    return {"@type": "cr:Field", "@id": f"rows/{name}", "name": name.rpartition("/")[2], "source": source}


def _without_system(conversation: Conversation) -> tuple[str, Sequence[Message]]:
    """The text of a system message in front, or "", and the messages behind it."""
    messages = conversation.messages
    if messages and messages[0].role == "system":
        return messages[0].content or "", messages[1:]
    return "", messages


def _on_hub(source: str) -> bool:
    return source.startswith("hub:")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
