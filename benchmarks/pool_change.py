"""What does a pool cost that changes a little? The part of `pool_size.py` with a model that is really read.

A random Llama of SmolLM2-135M's depth and neurons (30 layers of 1,536) and a narrow residual stream reads pools of
short conversations: activation tables have their real size while the model itself costs little.

- Memory: the peak of a process that extracts 500 samples, and of one that extracts 4,000.
- A changed pool: 1 % new rows and 1 % fewer, against the first extraction of the whole pool.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
from common import parser, random_model, tell

from nait_assets.extraction.extractor import Outcome, extract
from nait_assets.lineage import Record
from nait_assets.models.running import RunOptions
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.warehouse import Store

N_WORDS = 2000


def pool(begin: int, end: int) -> pl.DataFrame:
    """Conversations of 16 to 47 words, each with a number of its own."""
    rows = []
    for number in range(begin, end):
        words = " ".join(f"w{(number * 7919 + place * place) % N_WORDS}" for place in range(16 + number % 32))
        rows.append({"sample_id": f"{number:016x}", "messages": [{"role": "user", "content": words}]})
    return pl.DataFrame(rows)


def model(work: Path, smoke: bool) -> LanguageModel:
    """The random Llama."""
    shape = {"vocab_size": N_WORDS, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}
    depth = {"num_hidden_layers": 4, "intermediate_size": 96} if smoke else {}
    depth = depth or {"num_hidden_layers": 30, "intermediate_size": 1536}
    folder = random_model(work / f"narrow{'_smoke' if smoke else ''}", **shape, **depth, max_position_embeddings=512)
    return LanguageModel(source=str(folder), home=str(work), dtype="float32", device="cpu")


def extracted(corpus: pl.DataFrame, its_model: LanguageModel, file: Path) -> tuple[Outcome, float]:
    """What an extraction did, and how many seconds it took, the model's loading included."""
    begun = time.perf_counter()
    outcome = extract(
        corpus,
        "candidates",
        its_model,
        Extraction(max_tokens=64),
        Store(file),
        False,
        RunOptions(),
        lambda version: Record("extraction/candidate_activations", "", "1", version),
        lambda _: None,
    )
    return outcome, time.perf_counter() - begun


def changed_pool(arguments: argparse.Namespace) -> None:
    """Print the table of a changed pool.

    Args:
        arguments: `work`, `smoke` and `json` of the benchmark's options.
    """
    its_model = model(arguments.work, arguments.smoke)
    folder = arguments.work / "pool_change"
    small, large = (20, 60) if arguments.smoke else (500, 4000)
    shutil.rmtree(folder, ignore_errors=True)
    peaks = {}
    for n_samples in (small, large):
        command = [sys.executable, __file__, "--peak", str(n_samples), "--work", str(arguments.work)]
        ended = subprocess.run(
            [*command, *(["--smoke"] if arguments.smoke else [])], capture_output=True, text=True, check=True
        )
        peaks[n_samples] = json.loads(ended.stdout.splitlines()[-1])
    file, change = folder / "changing.duckdb", max(1, large // 100)
    rows = []
    for what, begin, end in (
        ("whole pool", 0, large),
        ("nothing changed", 0, large),
        ("1 % new rows", 0, large + change),
        ("1 % fewer rows", change, large + change),
    ):
        outcome, seconds = extracted(pool(begin, end), its_model, file)
        rows.append(
            {
                "change": what,
                "samples read": outcome.n_extracted,
                "samples removed": outcome.n_removed,
                "samples in the table": len(outcome.sample_ids),
                "seconds": seconds,
                "of the whole pool's time": f"{seconds / float(str(rows[0]['seconds'])):.1%}" if rows else "",
            }
        )
    figures = {
        f"peak memory with {small} samples, MB": peaks[small] / 1e6,
        f"peak memory with {large} samples, MB": peaks[large] / 1e6,
        "ratio of the peaks": peaks[large] / peaks[small],
        "table of the whole pool on disk, MB": file.stat().st_size / 1e6,
    }
    shutil.rmtree(folder)
    tell("A larger pool, and one that changes a little", rows, figures, arguments.json)


def main() -> None:
    """Be the process whose memory is measured: extract as many samples as `--peak` says, and print the peak."""
    options = parser(__doc__)
    options.add_argument("--peak", type=int, required=True, help="samples")
    arguments = options.parse_args()
    its_model = model(arguments.work, arguments.smoke)
    file = arguments.work / "pool_change" / f"{arguments.peak}.duckdb"
    outcome, _ = extracted(pool(0, arguments.peak), its_model, file)
    print(json.dumps(outcome.peak_memory_bytes))


if __name__ == "__main__":
    main()
