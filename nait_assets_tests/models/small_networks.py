"""Random networks of a few neurons, one of each family that the README names, and what they compute, by hand."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from nait_assets.extraction.neurons import Reader
from nait_assets.models.answers import AnsweredSample
from nait_assets.models.encoding import EncodedSample
from nait_assets.models.sites import resolve_site
from nait_assets.resources.language_model import LoadedModel

BOS = 1
N_LAYERS = 3
WIDTH, NEURONS = 16, 24
WINDOW = 4
"""Of the families that slide one; shorter than samples."""
SIZES = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": BOS,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 4}
GPT2_SIZES = {
    "vocab_size": 64,
    "n_embd": WIDTH,
    "n_inner": NEURONS,
    "n_layer": N_LAYERS,
    "n_head": 4,
    "n_positions": 32,
    "bos_token_id": BOS,
    "eos_token_id": 2,
}
CAPPED = {**GROUPED, "sliding_window": WINDOW, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 4}
BOTH_KINDS = {
    **GROUPED,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}


def linear(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return F.linear(x, layer.weight.double(), None if layer.bias is None else layer.bias.double())


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def silu_gated(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.silu(linear(x, mlp.gate_proj)) * linear(x, mlp.up_proj)


def gelu_gated(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gelu_tanh(linear(x, mlp.gate_proj)) * linear(x, mlp.up_proj)


def silu_gated_fused(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    gate, up = linear(x, mlp.gate_up_proj).split(NEURONS, dim=-1)
    return F.silu(gate) * up


def gelu_of_conv1d(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gelu_tanh(x @ mlp.c_fc.weight.double() + mlp.c_fc.bias.double())


def gelu_of_fc1(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gelu_tanh(linear(x, mlp.fc1))


def gelu_of_4h(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(linear(x, mlp.dense_h_to_4h))


@dataclass(frozen=True)
class Family:
    """How a family is built, and the names that it gives to its parts."""

    config: str
    sizes: dict[str, Any]
    neurons: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    """By hand, from the MLP's input."""
    layers: str = "layers"
    down: str = "mlp.down_proj"
    norm: str = "norm"


FAMILIES = {
    "Llama": Family("LlamaConfig", GROUPED, silu_gated),
    "Mistral": Family("MistralConfig", {**GROUPED, "sliding_window": WINDOW}, silu_gated),
    "Qwen2": Family("Qwen2Config", GROUPED, silu_gated),
    "Qwen3": Family("Qwen3Config", GROUPED, silu_gated),
    "Gemma": Family("GemmaConfig", GROUPED, gelu_gated),
    "Gemma 2": Family("Gemma2Config", CAPPED, gelu_gated),
    "Gemma 3": Family("Gemma3TextConfig", BOTH_KINDS, gelu_gated),
    "Phi": Family("PhiConfig", SIZES, gelu_of_fc1, down="mlp.fc2", norm="final_layernorm"),
    "Phi-3": Family("Phi3Config", {**SIZES, "num_key_value_heads": 2}, silu_gated_fused),
    "GPT-NeoX": Family("GPTNeoXConfig", SIZES, gelu_of_4h, down="mlp.dense_4h_to_h", norm="final_layer_norm"),
    "GPT-2": Family("GPT2Config", GPT2_SIZES, gelu_of_conv1d, layers="h", down="mlp.c_proj", norm="ln_f"),
}


def build(config: str, kind: Any = transformers.AutoModel, **sizes: Any) -> Any:
    """A base model; biases and norms begin as 0 and 1, which would hide that one is missed, so all are moved."""
    torch.manual_seed(0)
    network = kind.from_config(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def causal(config: str, **sizes: Any) -> Any:
    """As `build`, under a head."""
    return build(config, transformers.AutoModelForCausalLM, **sizes)


def network_of(family: str) -> Any:
    return build(FAMILIES[family].config, **FAMILIES[family].sizes)


def sample(name: str, n_tokens: int, vocabulary: int = 64) -> EncodedSample:
    """A sample of random tokens, others for every length."""
    ids = np.random.default_rng(n_tokens).integers(3, vocabulary, size=n_tokens - 1)
    return EncodedSample(name, np.array([BOS, *ids], np.int32))


def answered(name: str, n_tokens: int, answer: slice, vocabulary: int = 64) -> AnsweredSample:
    """A sample some tokens of which are an answer."""
    answers = np.zeros(n_tokens, bool)
    answers[answer] = True
    return AnsweredSample(name, sample(name, n_tokens, vocabulary).token_ids, answers=answers)


def loaded(network: Any) -> LoadedModel:
    return LoadedModel(network, torch.device("cpu"), network.dtype)


def reader(network: Any, kind: Any, layers: Any = "all", keep_first_and_last: bool = True, **arguments: Any) -> Reader:
    return Reader(loaded(network), resolve_site(network, kind, layers), keep_first_and_last, **arguments)


def tokens_by_hand(
    network: Any, one: EncodedSample, kind: str, layers: str = "layers", down: str = "mlp.down_proj"
) -> np.ndarray:
    """Every token's activations of one sample, `(n_layers, n_tokens, width)`, alone, in float64, by eager attention."""
    network = copy.deepcopy(network).double()
    network.set_attn_implementation("eager")
    caught: list[np.ndarray] = []

    def keep(value: Any) -> None:
        caught.append((value[0] if isinstance(value, tuple) else value)[0].numpy())

    for block in getattr(network, layers):
        if kind == "mlp":
            attrgetter(down)(block).register_forward_pre_hook(lambda _, inputs: keep(inputs))
        else:
            block.register_forward_hook(lambda _module, _inputs, output: keep(output))
    with torch.no_grad():
        network(input_ids=torch.from_numpy(one.token_ids.astype(np.int64))[None], use_cache=False)
    return np.stack(caught)


def pooled_by_hand(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Of `(n_layers, n_tokens, width)`: the mean over all tokens but the first, the first, the last."""
    return {
        "activation": tokens[:, 1:].mean(axis=1),
        "first_token_activation": tokens[:, 0],
        "last_token_activation": tokens[:, -1],
    }


def largest_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of the vectors of the last axis: the norm of the difference over the wanted norm, where it is largest."""
    assert found.shape == wanted.shape
    difference = np.linalg.norm(found.astype(np.float64) - wanted, axis=-1)
    return float((difference / np.linalg.norm(wanted, axis=-1)).max())
