"""The folder that holds a subset's rows. Which rows they are is `choice`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.conversation import conversations_of
from nait_assets.losses import Losses
from nait_assets.resources.files import replacing_folder, sha256
from nait_assets.selection.duplicates import Duplicates
from nait_assets.selection.exports import EXPORTED_FILES, Exports, training_rows, write_lines

HASHED_FILES = ("train.jsonl", "train.parquet", *EXPORTED_FILES, "README.md")
SUBSET_FILES = (*HASHED_FILES, "manifest.json")
"""That every subset has; the manifest names them with their hashes, and further ones where there are some."""


def write_folder(folder: Path, rows: pl.DataFrame, manifest: Mapping[str, Any], card: str, exports: Exports) -> None:
    """Write a subset's folder: the rows, the files for other tools, the card, and the manifest with all their hashes.

    The folder appears whole: it is written beside its place, and takes it at the end.

    Args:
        folder: `<home>/subsets/<method>/<target>/<ratio>`.
        rows: Columns `rank`, `score`, `sample_id`, `messages`, `conversation`, `topic`, `source`, `source_row`, best
            first.
        manifest: What the subset rests on; counts and file hashes are added.
        card: The data-set card, README.md.
        exports: The rows in the formats of other tools.
    """
    with replacing_folder(folder) as temporary:
        write_lines(temporary / "train.jsonl", conversations_of(rows))
        training_rows(rows).write_parquet(temporary / "train.parquet")
        exports.write(temporary, rows)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        files = {name: {"sha256": sha256(temporary / name)} for name in dict.fromkeys((*HASHED_FILES, *exports.files))}
        full = {**manifest, "n_rows": len(rows), "exports": exports.counts(), "files": files}
        (temporary / "manifest.json").write_text(
            json.dumps(full, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def dataset_card(
    method: str,
    description: str,
    target: str,
    chosen: str,
    n_rows: int,
    n_candidates: int,
    model: str | None,
    lineage: Mapping[str, str],
    files: str,
    losses: Mapping[str, Losses],
    duplicates: Duplicates,
) -> str:
    """The README.md of a subset: front matter that `datasets` reads, and where the rows come from.

    Args:
        method: Method that scored the candidates.
        description: Description of the method.
        target: Target that the rows were selected for.
        chosen: How they were taken from the ranking, in a sentence without its full stop.
        n_rows: Number of rows in the subset.
        n_candidates: Size of the pool.
        model: As the recipe names it, or None where the method reads none.
        lineage: Version of each direct input.
        files: What each file is, as Markdown.
        losses: What became of the rows of the pool's sources, and of the candidates where they were read, by output.
        duplicates: Rows that repeat others of the subset.
    """
    lost = "\n".join(f"- `{name}`: {found.sentence}." for name, found in losses.items())
    inputs = "\n".join(f"| `{name}` | `{version}` |" for name, version in sorted(lineage.items()))
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.parquet
tags:
- instruction-tuning
- data-selection
- nait
---
# {n_rows} of {n_candidates} examples for `{target}`, by `{method}`

{description}

{chosen}.{f" The model is `{model}`." if model else ""} Of the {n_rows} rows, {duplicates.sentence}.

{lost}

The rows keep the licence of the pool that they were chosen from.

{files}

| input | version |
|---|---|
{inputs}
"""
