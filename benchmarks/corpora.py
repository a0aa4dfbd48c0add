"""What does it cost to read a pool of many rows in shards?

Half of the shards are Parquet files, half are compressed JSON Lines; rows are conversations of 240 words, one in a
thousand a duplicate, one in a thousand without a response. `nait run --select group:corpora` reads them in a process of
its own: corpora, what contaminates them, and their checks; then again with nothing to do.

    python benchmarks/corpora.py --json corpora.json
"""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from common import parser, tell

WORDS = [f"word{number}" for number in range(5000)]


def conversation(number: int) -> list[dict[str, str]]:
    """The conversation of a number: every thousandth repeats the one before, every thousand-and-first has no answer."""
    chance = random.Random(number - (number % 1000 == 999))
    question, answer = (" ".join(chance.choices(WORDS, k=n_words)) for n_words in (60, 180))
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns[:1] if number % 1000 == 500 else turns


def write_shards(folder: Path, n_rows: int, n_shards: int) -> None:
    """Shards of a pool, Parquet and compressed JSON Lines in turn, and four in-domain examples beside them."""
    (folder / "pool").mkdir(parents=True)
    size = n_rows // n_shards
    for shard in range(n_shards):
        rows = [{"id": number, "messages": conversation(number)} for number in range(shard * size, (shard + 1) * size)]
        place = folder / "pool" / f"train-{shard:05}-of-{n_shards:05}"
        if shard % 2:
            pq.write_table(pa.Table.from_pylist(rows), place.with_suffix(".parquet"), row_group_size=5000)
        else:
            with gzip.open(place.with_suffix(".jsonl.gz"), "wt", encoding="utf-8", compresslevel=1) as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    lines = [json.dumps({"messages": conversation(-number)}) + "\n" for number in range(1, 5)]
    (folder / "math.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(
        "name: corpora\nmodel: {source: none}\n"
        "candidates: [{source: pool/*.parquet}, {source: pool/*.jsonl.gz}]\n"
        "capabilities: {math: {source: math.jsonl}}\nmethods: [random]\nratios: [0.05]\n",
        encoding="utf-8",
    )


def measured(folder: Path) -> dict[str, Any]:
    """One run of the command: what it said of the pool, seconds, and the peak of its memory in megabytes."""
    command = [sys.executable, "-m", "nait_assets.cli", "run", "--select", "group:corpora"]
    begun = time.perf_counter()
    arguments = [*command, "--recipe", str(folder / "recipe.yaml"), "--home", str(folder / "home")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return {"seconds": time.perf_counter() - begun, "peak memory, MB": usage.ru_maxrss / 1024, "said": said}


def main() -> None:
    """Write the shards, read them twice, print the figures."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=300_000, help="rows of the pool")
    options.add_argument("--shards", type=int, default=12, help="files of the pool")
    arguments = options.parse_args()
    n_rows = 4000 if arguments.smoke else arguments.rows
    folder = arguments.work / "corpora"
    shutil.rmtree(folder, ignore_errors=True)
    write_shards(folder, n_rows, arguments.shards)
    n_bytes = sum(file.stat().st_size for file in (folder / "pool").iterdir())
    rows = [{"run": what, **measured(folder)} for what in ("first", "nothing changed")]
    for row in rows:
        print(row.pop("said"))
    figures = {"rows": n_rows, "shards": arguments.shards, "shards on disk, MB": n_bytes / 1e6}
    shutil.rmtree(folder)
    tell("A pool of many rows in shards", rows, figures, arguments.json)


if __name__ == "__main__":
    main()
