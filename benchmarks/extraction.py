"""How fast is the forward pass over a pool, on one machine, against the obvious implementation and the hardware?

On the same samples and layers, in turns, over several rounds:

(a) the obvious way: a Hugging Face loop in file order, batches of 8, float32, with the LM head, hooks that keep all
    tokens, and the mean afterwards;
(b) the engine in float32;
(c) the engine in its automatic dtype (bfloat16 where the CPU multiplies it, else the same as b);
(d) one layer in the middle alone, in float32;
and the rate of the matrix products alone, for the model's own shapes: what no implementation can pass.

Ratios are medians over the rounds of what was measured within one round.

    python benchmarks/extraction.py --data FOLDER_WITH_ALPACA --json extraction.json
"""

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import conversations, demo_model, parser, random_model, tell

from nait_assets.extraction.neurons import Reader
from nait_assets.models.encoding import EncodedSample, encode, plan
from nait_assets.models.running import BATCH_TOKENS_ELSEWHERE
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel

Means = dict[str, np.ndarray]
OBVIOUS, FLOAT32, AUTOMATIC = "a obvious", "b engine, float32", "c engine, bfloat16"
MIDDLE = "d engine, float32, middle layer alone"
ALL_LAYERS = (OBVIOUS, FLOAT32, AUTOMATIC)
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention"),
}


def obvious(network: Any, samples: list[EncodedSample], layers: tuple[int, ...]) -> Means:
    """Means over all tokens but the first, `(n_layers, width)` by sample, in the way that one writes down first."""
    import torch

    kept: list[torch.Tensor] = []
    hooks = [
        network.model.layers[layer].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        for layer in layers
    ]
    means = {}
    for begin in range(0, len(samples), 8):
        batch = samples[begin : begin + 8]
        longest = max(len(sample.token_ids) for sample in batch)
        ids, mask = torch.zeros(len(batch), longest, dtype=torch.long), torch.zeros(len(batch), longest)
        for row, sample in enumerate(batch):
            ids[row, : len(sample.token_ids)] = torch.from_numpy(sample.token_ids)
            mask[row, : len(sample.token_ids)] = 1
        kept.clear()
        with torch.inference_mode():
            network(input_ids=ids, attention_mask=mask)
        activations = torch.stack(kept, dim=1)
        for row, sample in enumerate(batch):
            means[sample.sample_id] = activations[row, :, 1 : len(sample.token_ids)].mean(dim=1).numpy()
    for hook in hooks:
        hook.remove()
    return means


def engine(reader: Reader, samples: list[EncodedSample], batch_tokens: int) -> Means:
    """The same by the engine."""
    batches = [batch for shard in plan(samples, batch_tokens, 10**9) for batch in shard.batches]
    means = {}
    for reading in reader.read(batches):
        assert reading.pooled is not None
        for row, sample in enumerate(reading.samples):
            means[sample.sample_id] = reading.pooled.columns["activation"][row]
    return means


def products_alone(model: LoadedModel, n_tokens: int) -> float:
    """Tokens per second of the linear layers' matrix products and nothing else, all layers."""
    import torch
    from torch.nn import functional

    weights = [
        module.weight
        for layer in model.network.layers
        for module in layer.modules()
        if type(module).__name__ == "Linear"
    ]
    inputs = {weight.shape[1]: torch.randn(n_tokens, weight.shape[1], dtype=model.dtype) for weight in weights}
    with torch.inference_mode():
        begun = time.perf_counter()
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)
    return n_tokens / (time.perf_counter() - begun)


def profile(reader: Reader, samples: list[EncodedSample], batch_tokens: int) -> dict[str, float]:
    """Share of the time by kind of operation."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        engine(reader, samples, batch_tokens)
    spent = {event.key: float(event.self_cpu_time_total) for event in profiler.key_averages()}
    total = sum(spent.values())
    shares = {part: sum(spent.pop(name, 0.0) for name in names) / total for part, names in PARTS.items()}
    largest = sorted(spent, key=lambda name: -spent[name])[:6]
    return {**shares, **{name.removeprefix("aten::"): spent[name] / total for name in largest}}


def models_of(work: Path, smoke: bool) -> dict[str, LanguageModel]:
    """The model in float32 and in the automatic dtype."""
    if not smoke:
        return {dtype: demo_model(work, dtype) for dtype in ("float32", "auto")}
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    source = str(random_model(work / "tiny", **shape, **heads))
    return {
        dtype: LanguageModel(source=source, home=str(work), dtype=dtype, device="cpu") for dtype in ("float32", "auto")
    }


def measure(
    ways: dict[str, Callable[[], Means]], loaded: dict[str, LoadedModel], n_tokens: int, batch_tokens: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, Means]]:
    """Tokens per second of each way and of the products alone around it, by round; and what each way found."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    products: dict[str, list[float]] = {name: [] for name in ways}
    means = {}
    for _ in range(rounds):
        for name, way in ways.items():
            alone = [products_alone(loaded[name], batch_tokens)]
            begun = time.perf_counter()
            means[name] = way()
            rates[name].append(n_tokens / (time.perf_counter() - begun))
            alone.append(products_alone(loaded[name], batch_tokens))
            products[name].append(statistics.mean(alone))
    return rates, products, means


def table_of(rates: dict[str, list[float]], products: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Medians over the rounds."""
    rows = []
    for name, measured in rates.items():
        times = [rate / base for rate, base in zip(measured, rates[OBVIOUS], strict=True)]
        shares = [rate / base for rate, base in zip(measured, products[name], strict=True)]
        rows.append(
            {
                "way": name,
                "tokens/s": statistics.median(measured),
                "times a": statistics.median(times),
                "of the products' rate": f"{statistics.median(shares):.1%}" if name in ALL_LAYERS else "",
            }
        )
    return rows


def agreement(means: dict[str, Means]) -> dict[str, float]:
    """How far what the engine found is from what the obvious way found."""
    figures = {}
    for name in ALL_LAYERS[1:]:
        pairs = [(means[name][sample], exact) for sample, exact in means[OBVIOUS].items()] if name in means else []
        if pairs:
            relative = max(np.abs(found - exact).max() / np.abs(exact).max() for found, exact in pairs)
            cosines = [(f * e).sum() / np.linalg.norm(f) / np.linalg.norm(e) for f, e in pairs]
            figures[f"{name[0]}: largest difference from a, relative"] = float(relative)
            figures[f"{name[0]}: smallest cosine to a"] = float(min(cosines))
    return figures


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a folder with alpaca_52k.parquet; the demo's pool by default")
    options.add_argument("--samples", type=int, default=256)
    options.add_argument("--max-tokens", type=int, default=256)
    options.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS_ELSEWHERE)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    import torch
    from transformers import AutoModelForCausalLM

    n_samples, rounds = (8, 1) if arguments.smoke else (arguments.samples, arguments.rounds)
    models = models_of(arguments.work, arguments.smoke)
    corpus = conversations(n_samples, arguments.data)
    pairs = list(zip(corpus["sample_id"].to_list(), corpus["messages"].to_list(), strict=True))
    samples, _ = encode(pairs, models["float32"].tokenizer(), Extraction(max_tokens=arguments.max_tokens))
    n_tokens = sum(len(sample.token_ids) for sample in samples)

    exact = models["float32"].load()
    folder = models["float32"].pretrained()["pretrained_model_name_or_path"]
    naive = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    has_bfloat16 = models["auto"].resolved_dtype() != torch.float32
    depth = len(exact.network.layers)
    loaded = {OBVIOUS: exact, FLOAT32: exact, MIDDLE: exact}
    if has_bfloat16:
        loaded[AUTOMATIC] = models["auto"].load()
    layers = {name: [depth // 2] if name == MIDDLE else "all" for name in loaded}
    readers = {
        name: Reader(model, resolve_site(model.network, "mlp", layers[name]), keep_first_and_last=False)
        for name, model in loaded.items()
        if name != OBVIOUS
    }
    ways: dict[str, Callable[[], Means]] = {OBVIOUS: lambda: obvious(naive, samples, tuple(range(depth)))}
    for name, reader in readers.items():
        ways[name] = functools.partial(engine, reader, samples, arguments.batch_tokens)
    rates, products, means = measure(ways, loaded, n_tokens, arguments.batch_tokens, rounds)
    middle = statistics.median(every / alone for every, alone in zip(rates[FLOAT32], rates[MIDDLE], strict=True))
    shares = profile(readers[FLOAT32], samples[:: max(1, len(samples) // 32)], arguments.batch_tokens)
    figures: dict[str, Any] = {
        "samples, tokens, rounds": (len(samples), n_tokens, rounds),
        **agreement(means),
        "d: share of b's time": middle,
        "where the time goes (b)": {name: round(share, 4) for name, share in shares.items()},
    }
    if not has_bfloat16:
        figures["c"] = "no bfloat16 instructions on this CPU: the automatic dtype is float32, so c is b"
    tell("Extraction on one machine", table_of(rates, products), figures, arguments.json)


if __name__ == "__main__":
    main()
