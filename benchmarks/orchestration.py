"""What does the orchestration of an output cost, where the model costs next to nothing?

A random Llama of two layers reads a pool of short conversations, and 20 methods score and choose for 6 targets (five
capabilities, and all of them) at 3 ratios: 120 scores and 360 subsets of a few rows. What that takes is Dagster,
DuckDB, records and files. Then `nait run` again, which finds nothing to do, and `nait status`.

`--tree` names a checkout whose code runs, and may be given several times, to compare two versions in one run. Wall
time is what a user waits; CPU time is what to compare on a machine that others use, too.

    python benchmarks/orchestration.py --tree ../nait_assets_before --tree .
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from common import parser, random_model, tell

METHODS = [
    "nait",
    "nait_standardized",
    "nait_neighbours",
    "neuron_diversity",
    "mona",
    "gate_overlap",
    "less",
    "bm25",
    "dsir",
    "length_long",
    "length_short",
    "rds_plus",
    "perplexity_low",
    "perplexity_high",
    "ifd",
    "ifd_pre_experienced",
    "selectit",
    "random",
    "balanced_random",
    "listed",
]
"""Every method that needs no other model, and a published list."""
CAPABILITIES = ["code", "knowledge", "math", "multilingual", "reasoning"]
RATIOS = [0.05, 0.10, 0.30]
N_WORDS = 500
COMMAND = "from nait_assets.cli import main; main()"


@dataclass
class Measured:
    """What a command took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of all its processes on all cores.
        stages: Seconds on the clock by the first part of the assets' keys.
        outputs: Outputs made, by the same.
        text: What it printed.
    """

    wall: float
    cpu: float
    stages: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    text: str = ""


def study(folder: Path, n_methods: int, n_capabilities: int, n_candidates: int) -> Path:
    """Write a model, a pool, examples and the recipe over them; the recipe's path."""
    random_model(
        folder / "model",
        vocab_size=N_WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        causal=True,
    )
    _write(folder / "pool.jsonl", "pool", n_candidates)
    for capability in CAPABILITIES[:n_capabilities]:
        _write(folder / f"{capability}.jsonl", capability, 8)
    shutil.copyfile(folder / "pool.jsonl", folder / "listed.jsonl")
    recipe = {
        "name": "orchestration",
        "model": {"source": str(folder / "model"), "dtype": "float32"},
        "extraction": {"max_tokens": 64},
        "candidates": {"source": "pool.jsonl", "topic_field": "topic"},
        "capabilities": {name: {"source": f"{name}.jsonl"} for name in CAPABILITIES[:n_capabilities]},
        "published": {"listed": {"source": "listed.jsonl"}},
        "methods": METHODS[-n_methods:],
        "ratios": RATIOS,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def _write(path: Path, seed: str, n_rows: int) -> None:
    draw = random.Random(seed)
    lines = []
    for number in range(n_rows):
        question, answer = (" ".join(f"w{draw.randrange(N_WORDS - 2)}" for _ in range(n)) for n in (8, 8 + number % 24))
        lines.append(
            f'{{"messages": [{{"role": "user", "content": "{question}"}}, '
            f'{{"role": "assistant", "content": "{answer}"}}], "topic": "topic {number % 3}"}}\n'
        )
    path.write_text("".join(lines), encoding="utf-8")


def measured(tree: Path, *arguments: str) -> Measured:
    """Run `nait` with a tree's code; standard output tells when each output was made.

    Raises:
        RuntimeError: The command failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=tree,
    )
    assert process.stdout is not None
    found, last = Measured(0.0, 0.0), begun
    for line in process.stdout:
        found.text += line
        if line.startswith("done"):
            now, (_, _, _, *label) = time.perf_counter(), line.split()
            assets = [word.strip(",") for word in label if "/" in word]
            room = assets[0].partition("/")[0]
            found.stages[room] += now - last
            found.outputs[room] += len(assets)
            last = now
    if process.wait() not in (0, 3):
        raise RuntimeError(f"nait {' '.join(arguments)} with {tree} ended with {process.returncode}:\n{found.text}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.wall = time.perf_counter() - begun
    found.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def main() -> None:
    """Print a line for each stage and command, with a column for each tree."""
    options = parser(__doc__)
    options.add_argument("--tree", type=Path, action="append", help="a checkout to run; this one by default")
    options.add_argument("--methods", type=int, default=len(METHODS), help="how many methods, the last of the list")
    options.add_argument("--candidates", type=int, default=120, help="rows of the pool")
    arguments = options.parse_args()
    trees = [tree.absolute() for tree in arguments.tree or [Path(__file__).parents[1]]]
    folder = (arguments.work / "orchestration").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    n_methods, n_capabilities = (3, 1) if arguments.smoke else (arguments.methods, len(CAPABILITIES))
    recipe = study(folder, n_methods, n_capabilities, arguments.candidates)
    found: dict[Path, dict[str, Measured]] = {}
    for number, tree in enumerate(trees):
        where = ("--recipe", str(recipe), "--home", str(folder / f"home{number}"))
        commands = {"first run": "run", "second run": "run", "status": "status"}
        found[tree] = {what: measured(tree, command, *where) for what, command in commands.items()}
        print(tree, {what: (round(took.wall, 1), round(took.cpu, 1)) for what, took in found[tree].items()}, flush=True)
    rows = []
    for room, n_outputs in found[trees[0]]["first run"].outputs.items():
        rows.append({"what": room, "outputs": n_outputs})
        for number, tree in enumerate(trees):
            seconds = found[tree]["first run"].stages[room]
            rows[-1] |= {f"{number}: wall, s": seconds, f"{number}: ms an output": 1000 * seconds / n_outputs}
    for what in found[trees[0]]:
        rows.append({"what": f"{what}, as a whole", "outputs": sum(found[trees[0]][what].outputs.values())})
        for number, tree in enumerate(trees):
            took = found[tree][what]
            rows[-1] |= {f"{number}: wall, s": took.wall, f"{number}: ms an output": f"CPU {took.cpu:.1f} s"}
    shutil.rmtree(folder)
    tell("What an output costs", rows, {str(number): str(tree) for number, tree in enumerate(trees)}, arguments.json)


if __name__ == "__main__":
    main()
