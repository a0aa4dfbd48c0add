"""What does it save to read all that a recipe needs of the model in one pass, and what does the head cost?

On the same samples, in turns, over several rounds, in the automatic dtype:

(a) activations of all layers alone;
(b) outputs alone: losses and the last hidden state, under the language-model head;
(c) the same with the softmax of 2^25 logits at once, 128 MiB in float32, instead of what stays in the cache;
(d) gates of the last but one layer alone; (e) codes of an autoencoder of 8 times the width with random weights alone;
(f) all of them, one pass each: the sum of a, b, d and e;
(g) all of them in one pass.

The matrix products alone, of the layers and of the head, are what no implementation can pass. Ratios are medians over
the rounds of what was measured within one round. Rates are of the processor's time, which other work on the machine
leaves alone; on a machine of one's own with one thread it is the time that passes.

    python benchmarks/one_pass.py --data FOLDER_WITH_ALPACA --json one_pass.json
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import conversations, demo_model, parser, random_model, tell

from nait_assets.extraction.neurons import Activations
from nait_assets.measurements.codes import encoder
from nait_assets.measurements.outputs import Outputs
from nait_assets.measurements.top_k import SparseMean, Sparsify, largest
from nait_assets.models import one_pass
from nait_assets.models.answers import AnsweredSample, encode_with_answers
from nait_assets.models.encoding import plan
from nait_assets.models.one_pass import Part, PassReader
from nait_assets.models.running import BATCH_TOKENS_ELSEWHERE
from nait_assets.models.sites import SiteKind, resolve_site
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import LoadedModel

Columns = dict[str, dict[str, np.ndarray]]
ALONE = {"a activations": "activations/", "b outputs": "outputs/", "d gates": "gates/", "e codes": "codes/"}
BEFORE, SUM, JOINED = "c outputs, 2^25 logits at once", "f one after the other", "g in one pass"
EXPANSION, K_GATES, K_CODES = 8, 192, 192


def parts_of(model: LoadedModel) -> dict[str, Part]:
    """What a recipe of activations, RDS+, perplexity, gates and codes reads of a pass."""
    import torch

    width, depth = int(model.base.config.hidden_size), len(model.base.layers)
    n_latents, generator = EXPANSION * width, torch.Generator().manual_seed(0)
    coder = SimpleNamespace(
        encoder=SimpleNamespace(
            weight=torch.randn(n_latents, width, generator=generator) * width**-0.5, bias=torch.zeros(n_latents)
        ),
        b_dec=torch.zeros(width),
    )
    gates = resolve_site(model.base, "gate", [depth - 2])

    def sparse(kind: SiteKind, sparsify: Sparsify, n_columns: int) -> Activations:
        site = resolve_site(model.base, kind, [depth - 2])
        return Activations(
            site, False, {}, model.device, pool=lambda packing, _: SparseMean(packing, sparsify, n_columns)
        )

    k_gates, k_codes = min(K_GATES, gates.width), min(K_CODES, n_latents)
    return {
        "activations/": Activations(resolve_site(model.base, "mlp", "all"), False, {}, model.device),
        "outputs/": Outputs(),
        "gates/": sparse("gate", lambda values: largest(values, k_gates), gates.width),
        "codes/": sparse("residual", encoder(coder, k_codes), n_latents),
    }


def read(reader: PassReader, samples: list[AnsweredSample], batch_tokens: int) -> Columns:
    """What the parts of a reader give, by part and column, the samples in the plan's order."""
    batches = [batch for shard in plan(samples, batch_tokens, 10**9) for batch in shard.batches]
    kept: list[Any] = [result.pooled for result in reader.read(batches)]
    return {
        part: {
            name: np.concatenate([reader.columns_of(part, pooled)[name] for pooled in kept])
            for name in reader.columns_of(part, kept[0])
        }
        for part in reader.parts
    }


def products_alone(model: LoadedModel, n_tokens: int, head: bool) -> float:
    """Tokens a second of the processor's time of the matrix products of the layers, or of the head, alone."""
    import torch
    from torch.nn import functional

    weights = [module.weight for module in model.base.layers.modules() if type(module).__name__ == "Linear"]
    if head:
        weights = [model.network.get_output_embeddings().weight]
    inputs = {weight.shape[1]: torch.randn(n_tokens, weight.shape[1]).to(model.dtype) for weight in weights}
    with torch.inference_mode():
        begun = time.process_time()
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)
        return n_tokens / (time.process_time() - begun)


def with_large_blocks(way: Callable[[], Columns]) -> Columns:
    """What a way gives with 2^25 logits in memory at once."""
    usual = one_pass.LOGITS, one_pass.SOFTMAX
    try:
        one_pass.LOGITS = one_pass.SOFTMAX = 2**25
        return way()
    finally:
        one_pass.LOGITS, one_pass.SOFTMAX = usual


def measure(
    ways: dict[str, Callable[[], Columns]], n_tokens: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Columns]]:
    """Tokens a second of the processor's time of each way by round, and what each found."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.process_time()
            found[name] = way()
            rates[name].append(n_tokens / (time.process_time() - begun))
            print(f"{name}: {rates[name][-1]:,.0f} tokens a CPU second", flush=True)
    return rates, found


def model_of(work: Path, smoke: bool) -> LanguageModel:
    """The demo's model, or a tiny one."""
    if not smoke:
        return demo_model(work, "auto")
    shape = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    source = str(random_model(work / "tiny_causal", causal=True, **shape, **heads))
    return LanguageModel(source=source, home=str(work), dtype="auto", device="cpu")


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a folder with alpaca_52k.parquet; the demo's pool by default")
    options.add_argument("--samples", type=int, default=192)
    options.add_argument("--max-tokens", type=int, default=256)
    options.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS_ELSEWHERE)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    n_samples, rounds = (8, 1) if arguments.smoke else (arguments.samples, arguments.rounds)
    model = model_of(arguments.work, arguments.smoke)
    corpus = conversations(n_samples, arguments.data)
    pairs = list(zip(corpus["sample_id"].to_list(), corpus["messages"].to_list(), strict=True))
    samples, _ = encode_with_answers(pairs, model.tokenizer(), Extraction(max_tokens=arguments.max_tokens))
    n_tokens = sum(len(sample.token_ids) for sample in samples)

    loaded = model.load_causal()
    parts = parts_of(loaded)
    readers = {name: PassReader(loaded, {part: parts[part]}) for name, part in ALONE.items()}
    together = PassReader(loaded, parts)
    ways: dict[str, Callable[[], Columns]] = {
        name: lambda one=reader: read(one, samples, arguments.batch_tokens)  # type: ignore[misc]
        for name, reader in readers.items()
    }
    ways[BEFORE] = lambda: with_large_blocks(ways["b outputs"])
    ways[JOINED] = lambda: read(together, samples, arguments.batch_tokens)
    rates, found = measure(dict(sorted(ways.items())), n_tokens, rounds)
    rates[SUM] = [
        1 / sum(1 / rate for rate in of_round) for of_round in zip(*(rates[name] for name in ALONE), strict=True)
    ]
    rows = [
        {
            "way": name,
            "tokens a CPU second": statistics.median(rates[name]),
            "times f": statistics.median(own / one for own, one in zip(rates[name], rates[SUM], strict=True)),
        }
        for name in sorted(rates)
    ]
    layers = statistics.median(products_alone(loaded, arguments.batch_tokens, head=False) for _ in range(5))
    head = statistics.median(products_alone(loaded, arguments.batch_tokens, head=True) for _ in range(5))
    added = 1 / statistics.median(rates["b outputs"]) - 1 / statistics.median(rates["a activations"])
    apart = {part: found[name][part] for name, part in ALONE.items()}
    figures = {
        "samples, tokens, rounds, dtype": (len(samples), n_tokens, rounds, str(loaded.dtype)),
        "products of the layers alone, tokens a CPU second": layers,
        "products of the head alone, tokens a CPU second": head,
        "what b takes longer than a, in times of the head's products": added * head,
        "losses of b and c are the same to the bit": all(
            np.array_equal(column, found[BEFORE]["outputs/"][name])
            for name, column in found["b outputs"]["outputs/"].items()
        ),
        "g is what a, b, d and e are, to the bit": all(
            np.array_equal(column, found[JOINED][part][name])
            for part, columns in apart.items()
            for name, column in columns.items()
        ),
    }
    tell("What one pass over the pool saves", rows, figures, arguments.json)


if __name__ == "__main__":
    main()
