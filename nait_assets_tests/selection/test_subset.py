"""Subsets: the right rows, in a folder that other tools open and that is whole or not there."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nait_assets.scoring.ranking import ranked
from nait_assets.selection.choice import chosen_rows
from nait_assets.selection.duplicates import Duplicates
from nait_assets.selection.exports import Exports
from nait_assets.selection.subset import dataset_card, write_folder
from nait_assets.tables import MESSAGES

FILES = {
    "README.md",
    "alpaca.json",
    "croissant.json",
    "dataset_info.json",
    "manifest.json",
    "train.jsonl",
    "train.parquet",
}


def scores(n: int) -> pl.DataFrame:
    """Ranked scores of n candidates, in the order of their ids as a table may hold them."""
    return ranked([f"s{place:03}" for place in range(n)], np.random.default_rng(0).normal(size=n)).sort("sample_id")


def rows(*names: str) -> pl.DataFrame:
    """Chosen rows: several turns, another script, a line separator inside the text, no topic."""
    return pl.DataFrame(
        {
            "rank": range(1, len(names) + 1),
            "score": [1.0 / (place + 1) for place in range(len(names))],
            "sample_id": names,
            "messages": [
                [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": f'¿Qué es {name}?\u2028"a"\n\\b'},
                    {"role": "assistant", "content": "数字"},
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "So."},
                ]
                for name in names
            ],
            "topic": [None] * len(names),
            "source": ["pool.jsonl"] * len(names),
            "source_row": range(len(names)),
        },
        schema_overrides={"messages": MESSAGES, "topic": pl.String, "rank": pl.Int64},
    )


def write(path: Path, chosen: pl.DataFrame, manifest: dict[str, Any]) -> None:
    """Write a folder with its card."""
    exports = Exports.of(chosen, "nait_math_0.10", ["pool.jsonl"])
    inputs = {"scoring/nait[math]": "v1"}
    how = "The best 0.10 of the pool"
    card = dataset_card(
        "nait",
        "The paper's rule.",
        "math",
        how,
        len(chosen),
        20,
        "a-model",
        inputs,
        exports.card(),
        {},
        Duplicates(1, 2),
    )
    write_folder(path, chosen, manifest, card, exports)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A written folder of two rows."""
    path = tmp_path / "subsets" / "nait" / "math" / "0.10"
    write(path, rows("a", "b"), {"method": "nait"})
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("ratio", "n", "size"), [("0.10", 20, 2), ("0.10", 21, 3), ("0.07", 100, 7), ("0.01", 3, 1), ("1.00", 3, 3)]
)
def test_subset_has_ceil_ratio_n_rows(ratio: str, n: int, size: int) -> None:
    """Exactly: 0.07 x 100 is 7.000000000000001 in floats, of which the ceiling is 8."""
    assert len(chosen_rows(scores(n), ratio).rows) == size


def test_subset_holds_the_highest_scores_best_first() -> None:
    """Whatever the order of the table."""
    chosen = chosen_rows(scores(20), "0.30").rows
    assert chosen.columns == ["sample_id", "score", "rank"]
    assert chosen["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    assert chosen["score"].to_list() == sorted(scores(20)["score"].to_list(), reverse=True)[:6]


def test_a_smaller_ratio_is_the_beginning_of_a_larger_one() -> None:
    """Results along the ratio differ by what was added, and by nothing else."""
    assert chosen_rows(scores(25), "0.30").rows.head(3).equals(chosen_rows(scores(25), "0.10").rows)


def test_folder_holds_the_rows_in_both_formats(folder: Path) -> None:
    """The conversations exactly as they were, for tools that read lines and for those that read columns."""
    assert set(contents(folder)) == FILES
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    expected = rows("a", "b")
    assert "数字" in lines[0], "text stays legible"
    assert [json.loads(line) for line in lines] == expected.select("messages", "sample_id").to_dicts()
    assert pl.read_parquet(folder / "train.parquet").equals(expected)


def test_manifest_has_the_true_hash_of_every_other_file(folder: Path) -> None:
    """Whoever receives a subset can check that it is the one that was made."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["method"] == "nait"
    assert manifest["n_rows"] == 2
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in contents(folder).items() if name != "manifest.json"
    }


def test_the_same_subset_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Two people with one recipe can compare hashes."""
    write(tmp_path / "again", rows("a", "b"), {"method": "nait"})
    assert contents(tmp_path / "again") == contents(folder)


def test_datasets_opens_the_folder_offline_with_the_rows(folder: Path, tmp_path: Path) -> None:
    """The next step of every user; in a process of its own, as `datasets` reads its settings when imported."""
    program = (
        "import datasets, json, sys; loaded = datasets.load_dataset(sys.argv[1]); "
        "print(json.dumps({split: list(rows) for split, rows in loaded.items()}))"
    )
    cache = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**os.environ, **cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    assert loaded == {"train": rows("a", "b").to_dicts()}


def test_card_says_what_was_chosen_from_what(folder: Path) -> None:
    """A folder that is passed on explains itself."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nconfigs:\n")
    for part in (
        "2 of 20 examples for `math`, by `nait`",
        "The paper's rule.",
        "`a-model`",
        "`scoring/nait[math]` | `v1`",
    ):
        assert part in text


def test_a_folder_is_replaced_whole(folder: Path) -> None:
    """A file of the old subset must not stay among those of the new one, where a glob would train on it."""
    (folder / "train-00002.parquet").write_bytes(b"old")
    write(folder, rows("c"), {"method": "nait"})
    assert set(contents(folder)) == FILES
    assert pl.read_parquet(folder / "train.parquet")["sample_id"].to_list() == ["c"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("there_before", [True, False], ids=["replacing", "new"])
def test_a_failure_while_writing_leaves_what_was_there(folder: Path, there_before: bool) -> None:
    """Here the manifest cannot be written, when the rows already are: the old subset stays, no half of a new one."""
    target = folder if there_before else folder.with_name("0.30")
    before = contents(folder)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(target, rows("c"), {"method": object()})
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_others_may_read_the_folder(folder: Path) -> None:
    """It is made as a temporary folder, which only its owner may enter."""
    assert folder.stat().st_mode & 0o755 == 0o755
    assert all(path.stat().st_mode & 0o444 for path in folder.iterdir())
