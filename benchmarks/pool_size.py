"""What does a pool of a million rows cost, stage by stage; and what a pool that changes a little?

Every stage of `nait run`, and what people ask of a home afterwards, runs in a process of its own over synthetic pools
of several sizes, with a stub in the place of the model (`pool_stub.py`). Each stage is printed as it is measured:
seconds, seconds of the processor, and the most memory that its process held, what it maps from files included.

    python benchmarks/pool_size.py --rows 10000 100000 1000000 --json pool_size.json
    python benchmarks/pool_size.py --width 4096 --projection 256      # neurons of Llama-2-7B's residual, projected
    python benchmarks/pool_size.py --change                           # 1 % new rows and 1 % fewer, by a real model

The pool's rows are phrases drawn at random, some 60 words each, one in 50 a duplicate of an earlier one.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import parser, random_model, table, write
from pool_change import changed_pool

METHODS = (
    *("nait", "nait_standardized", "nait_neighbours", "nait_whitened", "neuron_diversity", "mona", "gate_overlap"),
    *("rds_plus", "sentence_embedding", "less", "perplexity_low", "ifd", "selectit", "bm25", "dsir"),
    *("length_long", "random", "balanced_random"),
)
"""One of each kind that needs neither an endpoint nor a reward model."""
SMOKE_METHODS = ("nait_standardized", "random")
SIZES, SMOKE_SIZES = (10_000, 100_000), (300, 600)
TARGETS, RATIO = ("code", "math"), "0.01"
N_EXAMPLES = 32
N_PHRASES, N_WORDS = 20_000, 5_000
MOST_TIMES, MOST_MB = 1.5, 3_000
"""The bar: the peak at ten times the rows, of that at a tenth of them, and the peak itself."""
STALE = 3
"""Exit code of `nait status` where something is out of date: of what was not asked for."""


@dataclass(frozen=True)
class Stage:
    """What is measured in a process of its own.

    Attributes:
        name: Name in the table.
        command: Arguments of `nait`.
    """

    name: str
    command: tuple[str, ...]


def made(name: str, *keys: str) -> Stage:
    """The stage that makes outputs of some keys."""
    return Stage(name, ("run", "--select", " or ".join(f"key:{key}" for key in keys)))


def write_rows(file: Path, begin: int, end: int) -> None:
    """Conversations as JSON lines, a number of its own in each; one in 50 has that of an earlier one."""
    chance = random.Random(begin)
    words = random.Random(0)
    phrases = [" ".join(f"w{words.randrange(N_WORDS)}" for _ in range(6)) for _ in range(N_PHRASES)]
    with file.open("w", encoding="utf-8") as lines:
        last = [""], [""]
        for number in range(begin, end):
            asked, answered = (chance.choices(phrases, k=chance.randint(1, most)) for most in (6, 14))
            if number % 50 == 49:
                asked, answered = last
            last = list(asked), list(answered)
            topic = TARGETS[number % 10] if number % 10 < len(TARGETS) else "other"
            turns = [{"role": "user", "content": " ".join(asked)}, {"role": "assistant", "content": " ".join(answered)}]
            lines.write(json.dumps({"messages": turns, "topic": topic}) + "\n")


def recipe(folder: Path, n_rows: int, arguments: Any) -> dict[str, Any]:
    """The recipe of a size, as JSON, which is YAML too."""
    projection = {"projection": arguments.projection} if arguments.projection else {}
    filters = {"filters": {"action": "report", "near_duplicates": {}}} if n_rows <= arguments.filter_rows else {}
    return {
        "name": "pool_size",
        "model": {"source": str(folder.parent / f"model_{arguments.width}"), "dtype": "float32"},
        "extraction": {"site": "mlp", "layers": "all", "max_tokens": 128, **projection},
        "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
        "capabilities": {name: {"source": f"{name}.jsonl"} for name in TARGETS},
        "methods": list(arguments.methods),
        "ratios": [RATIO],
        "measurements": {
            "sparse_autoencoder": {"k": 32, "expansion": 1, "training_tokens": 2000},
            "gates": {"k": 32},
            "less_checkpoints": {"share": 64 / n_rows, "epochs": 1, "rank": 2, "batch_size": 16},
            "gradients": {"dimensions": 256, "projection": "sketch"},
        },
        **filters,
    }


def prepare(folder: Path, n_rows: int, arguments: Any) -> Path:
    """Write a pool, examples, a model and the recipe of them; the recipe's path."""
    folder.mkdir(parents=True)
    write_rows(folder / "pool.jsonl", 0, n_rows)
    for number, name in enumerate(TARGETS, 1):
        write_rows(folder / f"{name}.jsonl", -number * 1000, -number * 1000 + N_EXAMPLES)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe(folder, n_rows, arguments)), encoding="utf-8")
    return path


def stages(path: Path) -> list[Stage]:
    """The stages of a recipe, in order."""
    from nait_assets.measurements.catalogue import OUTPUTS
    from nait_assets.recipe import load_recipe

    loaded = load_recipe(path)
    read = set(loaded.outputs_read)
    measured = sorted({OUTPUTS[key].measurement.name for key in read if key in OUTPUTS})
    upstream = sorted({key for one in OUTPUTS.values() if one.key in read for key in one.measurement.upstream})
    one, other = (f"{method}/{TARGETS[0]}/{RATIO}" for method in (loaded.methods[0], loaded.methods[-1]))
    found = [Stage("status of an empty home", ("status",)), made("pool", "corpora/candidate_pool")]
    found.append(made("in-domain sets, contamination", "corpora/in_domain_set", "corpora/contaminated_candidates"))
    if loaded.filters:
        found.append(made("near duplicates", "corpora/filtered_candidates"))
    if loaded.reads_activations:
        found.append(Stage("activations", ("run", "--select", "group:extraction")))
        found.append(Stage("features", ("run", "--select", "group:features")))
    if upstream:
        found.append(made("trained for measurements, of few rows", *upstream))
    for name in measured:
        keys = [key for key in sorted(read) if key in OUTPUTS and OUTPUTS[key].measurement.name == name]
        found.append(made(f"measurement {name}", *keys))
    found += [made(f"scores {method}", f"scoring/{method}_scores") for method in loaded.methods]
    found.append(Stage("selection", ("run", "--select", "group:selection")))
    found.append(made("comparison", "report/method_comparison"))
    found.append(made("report", "report/selection_report"))
    asked = (("status",), ("summary",), ("diff", one, other), ("audit",))
    return [*found, *(Stage(f"nait {command[0]}", command) for command in asked)]


def measured(stage: Stage, path: Path, log: Path) -> dict[str, Any]:
    """Run a stage: seconds, and the peak of its process in megabytes."""
    stub = Path(__file__).with_name("pool_stub.py")
    place = ("--recipe", str(path), "--home", str(path.parent / "home"))
    command = [sys.executable, str(stub), *stage.command, *place]
    begun = time.perf_counter()
    with log.open("a", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, STALE):
        raise SystemExit(f"{stage.name}: exit code {process.returncode}\n{log.read_text()[-3000:]}")
    in_mb = 1024 if sys.platform != "darwin" else 2**20
    return {
        "seconds": time.perf_counter() - begun,
        "CPU seconds": usage.ru_utime + usage.ru_stime,
        "peak, MB": round(usage.ru_maxrss / in_mb),
    }


def of_size(n_rows: int, arguments: Any) -> list[dict[str, Any]]:
    """Every stage over a pool of a size, printed as it is measured."""
    folder = arguments.work / "pool_size" / str(n_rows)
    shutil.rmtree(folder, ignore_errors=True)
    path, rows = prepare(folder, n_rows, arguments), []
    for stage in stages(path):
        rows.append({"rows": n_rows, "stage": stage.name, **measured(stage, path, folder / "log.txt")})
        print("{rows:>9,} rows  {seconds:8.1f} s  {peak, MB:8,.0f} MB  {stage}".format(**rows[-1]), flush=True)
    page = folder / "home" / "report" / "index.html"
    rows.append({"rows": n_rows, "stage": "the page itself", "page, MB": page.stat().st_size / 1e6})
    if not arguments.keep:
        shutil.rmtree(folder)
    return rows


def side_by_side(rows: list[dict[str, Any]], sizes: list[int]) -> list[dict[str, Any]]:
    """A row a stage: seconds and peak at each size, and those of the largest size by those of the one before it."""
    of = {(row["stage"], row["rows"]): row for row in rows if "seconds" in row}
    shown = []
    for name in dict.fromkeys(name for name, _ in of):
        found = [of.get((name, size)) for size in sizes]
        cells: dict[str, Any] = {"stage": name}
        for size, row in zip(sizes, found, strict=True):
            cells[f"{size:,} rows: s"] = f"{row['seconds']:,.1f}" if row else "–"
            cells[f"{size:,} rows: MB"] = f"{row['peak, MB']:,}" if row else "–"
        before, last = ([None, *found])[-2:]
        cells["times the s"] = last["seconds"] / before["seconds"] if before and last else "–"
        cells["times the MB"] = last["peak, MB"] / before["peak, MB"] if before and last else "–"
        shown.append(cells)
    return shown


def main() -> None:
    """Print each stage as it is measured, then all of them side by side."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=SIZES, help="sizes of the pool")
    options.add_argument("--width", type=int, default=576, help="neurons of the one layer whose activations are kept")
    options.add_argument("--projection", type=int, help="numbers that are kept of these; all by default")
    options.add_argument("--methods", nargs="+", help="methods that score; by default, one of each kind")
    options.add_argument(
        "--filter-rows", type=int, default=100_000, help="largest pool whose near duplicates are found"
    )
    options.add_argument("--keep", action="store_true", help="leave the homes where they are")
    options.add_argument("--change", action="store_true", help="measure a pool that changes a little instead")
    arguments = options.parse_args()
    arguments.methods = arguments.methods or (SMOKE_METHODS if arguments.smoke else METHODS)
    if arguments.change:
        changed_pool(arguments)
        return
    sizes = sorted(SMOKE_SIZES if arguments.smoke else arguments.rows)
    shape = {"vocab_size": 2000, "hidden_size": 576, "num_attention_heads": 8, "num_key_value_heads": 8}
    folder = arguments.work / "pool_size" / f"model_{arguments.width}"
    random_model(
        folder,
        causal=True,
        **shape,
        num_hidden_layers=1,
        intermediate_size=arguments.width,
        max_position_embeddings=512,
    )
    rows = [row for n_rows in sizes for row in of_size(n_rows, arguments)]
    shown = side_by_side(rows, sizes)
    table("Side by side", shown)
    peaks = {size: max(row["peak, MB"] for row in rows if row["rows"] == size and "seconds" in row) for size in sizes}
    over = [row["stage"] for row in shown if row["times the MB"] != "–" and row["times the MB"] > MOST_TIMES]
    figures: dict[str, Any] = {f"largest peak of {size:,} rows, MB": peak for size, peak in peaks.items()}
    figures |= {f"page of {row['rows']:,} rows, MB": row["page, MB"] for row in rows if "page, MB" in row}
    figures[f"over {MOST_TIMES} times the peak"] = ", ".join(over) or "none"
    figures[f"over {MOST_MB:,} MB"] = (
        ", ".join(f"{size:,} rows" for size, peak in peaks.items() if peak > MOST_MB) or "none"
    )
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    write({"rows": [row for row in rows if "seconds" in row], **figures}, arguments.json)


if __name__ == "__main__":
    main()
