"""How close does the engine come to a GPU's matrix products, on a model of Llama-2-7B's shape?

Random weights, bfloat16; lengths as Alpaca's (log-normal, mean 224 tokens, at most 1,024), 52,002 samples or a
fraction of them. The same reader as in production: packed batches, variable-length attention, pinned copies, the next
batch on its way before the last is taken. Activations are taken to the host and dropped.

    python benchmarks/extraction_gpu.py --fraction 0.1 --json extraction_gpu.json

Without a GPU it runs a tiny model on the CPU and says so: that shows that the script works, and nothing else.
"""

import time
from typing import Any

import numpy as np
from common import parser, tell

from nait_assets.extraction.neurons import Reader
from nait_assets.models.encoding import EncodedSample, plan
from nait_assets.models.running import BATCH_TOKENS, BATCH_TOKENS_ELSEWHERE
from nait_assets.models.sites import resolve_site
from nait_assets.resources.language_model import LoadedModel

N_SAMPLES, MEAN_TOKENS = 52_002, 224
LLAMA_2_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
TINY = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}


def lengths(n_samples: int) -> np.ndarray:
    """Tokens of each sample: log-normal as instruction data are, with Alpaca's mean."""
    spread = 0.7
    drawn = np.random.default_rng(0).lognormal(np.log(MEAN_TOKENS) - spread**2 / 2, spread, n_samples)
    return np.clip(drawn.round(), 8, 1024).astype(int)


def synchronize(model: LoadedModel) -> None:
    """Wait for the GPU."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()


def products_rate(model: LoadedModel, n_tokens: int) -> float:
    """Floating-point operations per second of the linear layers' matrix products, at the batch's size."""
    import torch
    from torch.nn import functional

    layer = model.network.layers[0]
    weights = [module.weight for module in layer.modules() if type(module).__name__ == "Linear"]
    inputs = {
        weight.shape[1]: torch.randn(n_tokens, weight.shape[1], dtype=model.dtype, device=model.device)
        for weight in weights
    }
    best = 0.0
    with torch.inference_mode():
        for _ in range(10):
            synchronize(model)
            begun = time.perf_counter()
            for _ in range(3):
                for weight in weights:
                    functional.linear(inputs[weight.shape[1]], weight)
            synchronize(model)
            operations = 3 * sum(2 * n_tokens * weight.numel() for weight in weights)
            best = max(best, operations / (time.perf_counter() - begun))
    return best


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--fraction", type=float, default=0.05, help="of the 52,002 samples")
    options.add_argument("--batch-tokens", type=int)
    arguments = options.parse_args()
    import torch
    from transformers import LlamaConfig, LlamaModel

    on_gpu = torch.cuda.is_available() and not arguments.smoke
    device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
    shape = LLAMA_2_7B if on_gpu else TINY
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        network = LlamaModel(LlamaConfig(**shape)).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    model = LoadedModel(network, device, dtype)
    n_samples = round(N_SAMPLES * arguments.fraction) if on_gpu else 64
    drawn = np.random.default_rng(1)
    samples = [
        EncodedSample(f"{number:016x}", drawn.integers(0, shape["vocab_size"], length).astype(np.int32))
        for number, length in enumerate(lengths(n_samples))
    ]
    n_tokens = sum(len(sample.token_ids) for sample in samples)
    batch_tokens = arguments.batch_tokens or (BATCH_TOKENS["cuda"] if on_gpu else BATCH_TOKENS_ELSEWHERE)
    batches = [batch for shard in plan(samples, batch_tokens, 10**9) for batch in shard.batches]
    peak = products_rate(model, batch_tokens)
    rows: list[dict[str, Any]] = []
    depth = len(network.layers)
    weights = sum(weight.numel() for name, weight in network.layers[0].named_parameters() if weight.dim() == 2)
    for name, layers in (("all", "all"), ("the middle one", [depth // 2])):
        reader = Reader(model, resolve_site(network, "mlp", layers), keep_first_and_last=False)
        for _ in reader.read(batches[:2]):  # kernels are chosen at the first call
            pass
        synchronize(model)
        begun = time.perf_counter()
        n_read = sum(len(reading.samples) for reading in reader.read(batches))
        seconds = time.perf_counter() - begun
        assert n_read == n_samples
        n_layers = depth if layers == "all" else depth // 2 + 1
        down = network.layers[0].mlp.down_proj.weight.numel()
        operations = 2 * n_tokens * (n_layers * weights - down)  # the last layer's down-projection is not run
        rows.append(
            {
                "layers": name,
                "seconds": seconds,
                "tokens/s": n_tokens / seconds,
                "share of the products' peak": f"{operations / seconds / peak:.1%}",
                f"minutes for {N_SAMPLES:,} samples": seconds / n_samples * N_SAMPLES / 60,
            }
        )
    figures = {
        "model": "Llama-2-7B's shape" if on_gpu else "a tiny one on the CPU: no GPU here, so the figures say nothing",
        "samples, tokens, tokens of a batch": (n_samples, n_tokens, batch_tokens),
        "matrix products' peak, TFLOP/s": peak / 1e12,
        "peak memory of the GPU, GB": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
    }
    tell("Extraction on a GPU", rows, figures, arguments.json)


if __name__ == "__main__":
    main()
