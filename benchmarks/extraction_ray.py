"""Two Ray workers against one, each on one core: how much of the second is used, and is the table the same?

python benchmarks/extraction_ray.py --data FOLDER_WITH_ALPACA --json extraction_ray.json
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from common import conversations, demo_model, parser, random_model, tell

from nait_assets.extraction import activation_table, ray_engine
from nait_assets.extraction.extractor import extract
from nait_assets.lineage import Record
from nait_assets.models.running import BATCH_TOKENS_ELSEWHERE, RunOptions
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.warehouse import Store


def rows_of(store: Store) -> pl.DataFrame:
    """A table's rows by their key."""
    with store.snapshot() as snapshot:
        query = f"SELECT sample_id, layer, activation FROM {activation_table.ACTIVATION} ORDER BY sample_id, layer"
        return snapshot.connection.sql(query).pl()


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a folder with alpaca_52k.parquet; the demo's pool by default")
    options.add_argument("--samples", type=int, default=256)
    arguments = options.parse_args()
    import torch

    corpus = conversations(16 if arguments.smoke else arguments.samples, arguments.data)
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    model = demo_model(arguments.work, "float32")
    if arguments.smoke:
        folder = random_model(arguments.work / "tiny", **shape, **heads)
        model = LanguageModel(source=str(folder), home=str(arguments.work), dtype="float32", device="cpu")
    model.identity(), model.tokenizer()  # a GGUF file is converted before anything is timed
    spans: dict[str, tuple[float, int]] = {}

    def timed(name: str, run: RunOptions) -> Store:
        store = Store(arguments.work / "ray" / f"{name}.duckdb")
        shutil.rmtree(store.path.parent / f"{name}.spool", ignore_errors=True)
        store.path.unlink(missing_ok=True)
        found = []

        def noted(*inputs: object) -> object:
            for manifest in read(*inputs):
                job = inputs[1]
                ended = (Path(job.folder) / f"{manifest.shard}.json").stat().st_mtime
                found.append((ended - manifest.seconds, ended, manifest.n_tokens))
                yield manifest

        read, ray_engine.read = ray_engine.read, noted
        try:
            settings = Extraction(max_tokens=256)
            record = Record("extraction/candidate_activations", "", "1", "")
            extract(corpus, name, model, settings, store, False, run, lambda _: record, lambda _: None)
        finally:
            ray_engine.read = read
        if found:
            begun, ended = min(begin for begin, _, _ in found), max(end for _, end, _ in found)
            spans[name] = ended - begun, sum(tokens for _, _, tokens in found)
        return store

    shard_tokens = 256 if arguments.smoke else 2048
    tables = {}
    for n_threads in (torch.get_num_threads(), 1):  # rounding depends on how many threads share a product
        torch.set_num_threads(n_threads)
        tables[f"local, {n_threads}"] = rows_of(timed("local", RunOptions(shard_tokens=shard_tokens)))
    for n_workers in (1, 2):
        name = f"{n_workers} worker(s)"
        run = RunOptions(shard_tokens=shard_tokens, engine="ray", ray_workers=n_workers)
        tables[name] = rows_of(timed(name, run))
    rows = [
        {"workers": name, "seconds of reading": seconds, "tokens/s": n_tokens / seconds}
        for name, (seconds, n_tokens) in spans.items()
    ]
    everywhere, alone = (np.stack(table["activation"].to_numpy()) for table in list(tables.values())[:2])
    difference = float(np.abs(everywhere - alone).max() / np.abs(alone).max())
    one, two = (seconds for seconds, _ in spans.values())
    figures = {
        "efficiency of 2 workers": one / two / 2,
        "same table as the local engine's on one thread, bit by bit": all(
            tables[name].equals(tables["local, 1"]) for name in spans
        ),
        "largest difference from the local engine's on every core, relative": difference,
        "batch tokens": BATCH_TOKENS_ELSEWHERE,
    }
    shutil.rmtree(arguments.work / "ray")
    tell("Ray workers, each on one core", rows, figures, arguments.json)


if __name__ == "__main__":
    main()
