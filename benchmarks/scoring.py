"""Scoring a large pool against all targets: how close to reading the file, in how much memory?

A table of 52,000 samples x 30 layers x 1,536 neurons (9.6 GB) is written with the project's own code and scored for
six targets. Every way runs in a process of its own, with the file's pages evicted from memory first:

- a plain sequential read of the file: what no way can pass;
- `nait` and `nait_standardized` as the project scores: one Arrow stream, one product for each block and target;
- the same products as `nait` as a join in DuckDB's SQL.

    python benchmarks/scoring.py --json scoring.json
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import parser, tell

from nait_assets.extraction import activation_table
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.resources.warehouse import Store
from nait_assets.scoring.methods.nait import projections
from nait_assets.scoring.methods.nait_standardized import cosines

N_TARGETS, SHARD = 6, 300
WAYS = ("sequential read", "nait", "nait_standardized", "SQL join")


def write_table(store: Store, n_samples: int, n_layers: int, width: int) -> None:
    """A table of random activations, shard by shard."""
    schema = activation_table.shard_schema(width, keep_first_and_last=False)
    names = [f"{number:016x}" for number in range(n_samples)]

    def shards() -> Iterator[pa.Table]:
        random = np.random.default_rng(0)
        for begin in range(0, n_samples, SHARD):
            part = names[begin : begin + SHARD]
            values = random.standard_normal(len(part) * n_layers * width, dtype=np.float32)
            columns = [
                pa.array(np.tile(part, n_layers)),
                pa.array(np.repeat(np.arange(n_layers, dtype=np.int16), len(part))),
                pa.array(np.full(len(part) * n_layers, 100, np.int32)),
                pa.array([""] * (len(part) * n_layers)),
                *[pa.array(np.ones(len(part) * n_layers, np.int32))] * 2,
                pa.FixedSizeListArray.from_arrays(pa.array(values), width),
            ]
            yield pa.table(columns, schema=schema)

    with store.transaction() as transaction:
        activation_table.fold(transaction, "benchmark", names, shards(), schema)


def targets(n_layers: int, width: int) -> dict[int, np.ndarray]:
    """Random directions by layer, `(n_targets, width)`."""
    random = np.random.default_rng(1)
    return {layer: random.standard_normal((N_TARGETS, width)).astype(np.float32) for layer in range(n_layers)}


def score(way: str, store: Store, n_samples: int, n_layers: int, width: int) -> np.ndarray:
    """`(n_samples, n_targets)` scores by one of the ways; nothing for the plain read."""
    if way == "sequential read":
        with store.path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
        return np.empty(0)
    directions = targets(n_layers, width)
    with store.snapshot() as snapshot:
        if way == "nait":
            return projections(activation_table.scan(snapshot), directions, n_samples)
        if way == "nait_standardized":
            plain = NeuronStatistics(np.zeros(width, np.float32), np.ones(width, np.float32))
            statistics = dict.fromkeys(range(n_layers), plain)
            return cosines(activation_table.scan(snapshot), statistics, directions, n_samples)
        snapshot.connection.execute("SET memory_limit = '4GiB'")  # its sums by sample do not fit in what a scan needs
        vectors = pa.array(np.concatenate([directions[layer].reshape(-1) for layer in directions]))
        feature = pa.table(
            {
                "layer": pa.array(np.repeat(np.arange(n_layers, dtype=np.int16), N_TARGETS)),
                "target": pa.array(np.tile(np.arange(N_TARGETS), n_layers)),
                "direction": pa.FixedSizeListArray.from_arrays(vectors, width),
            }
        )
        snapshot.connection.register("feature", feature)
        query = f"""
            SELECT sum(array_inner_product(activation, direction)) AS score
            FROM {activation_table.ACTIVATION} JOIN feature USING (layer)
            GROUP BY sample_id, target ORDER BY sample_id, target
        """
        column = snapshot.connection.sql(query).to_arrow_table()["score"].to_numpy()
        return column.reshape(n_samples, N_TARGETS)


def evict(file: Path) -> None:
    """Have the kernel forget a file's pages."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Print the table; with --way, be the process that is measured."""
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=52_000)
    options.add_argument("--way", choices=WAYS)
    arguments = options.parse_args()
    shape = (200, 2, 64) if arguments.smoke else (arguments.samples, 30, 1536)
    store = Store(arguments.work / "scoring" / "candidates.duckdb")
    if arguments.way:
        begun = time.perf_counter()
        scores = score(arguments.way, store, *shape)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([seconds, peak, scores[:5].tolist() if len(scores) else []]))
        return
    shutil.rmtree(store.path.parent, ignore_errors=True)
    begun = time.perf_counter()
    write_table(store, *shape)
    written = time.perf_counter() - begun
    size = store.path.stat().st_size
    rows, first = [], {}
    for way in WAYS:
        evict(store.path)
        command = [sys.executable, __file__, "--way", way, "--samples", str(arguments.samples)]
        command += ["--work", str(arguments.work), *(["--smoke"] if arguments.smoke else [])]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak, first[way] = json.loads(ended.stdout.splitlines()[-1])
        row = {"way": way, "seconds": seconds, "GB/s": size / seconds / 1e9, "peak MB": peak / 1e6}
        plain = float(str(rows[0]["seconds"])) if rows else seconds
        rows.append({**row, "of the plain read's speed": f"{plain / seconds:.0%}"})
    difference = np.abs(np.subtract(first["nait"], first["SQL join"])).max()
    figures = {
        "samples, layers, neurons, targets": (*shape, N_TARGETS),
        "file, GB": size / 1e9,
        "seconds to write it": written,
        "largest difference between nait and the join": float(difference),
    }
    shutil.rmtree(store.path.parent)
    tell("Scoring all targets in one pass", rows, figures, arguments.json)


if __name__ == "__main__":
    main()
