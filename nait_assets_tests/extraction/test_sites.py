"""Sites: in every family that the README names, the value read is the one that the formula says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from nait_assets.extraction.encoding import EncodedSample
from nait_assets.extraction.reading import read_batch
from nait_assets.extraction.sites import resolve_site
from nait_assets.recipe import RecipeError
from nait_assets.resources.language_model import LoadedModel

N_LAYERS = 3
WIDTH, NEURONS = 16, 24
TOKEN_IDS = (1, 5, 9, 13, 17, 21, 25, 29, 33)  # more than the sliding windows below
SIZES = {
    "vocab_size": 64,
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
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
}


def silu_gated(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.silu(linear(x, mlp.gate_proj)) * linear(x, mlp.up_proj)


def gelu_gated(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gelu_tanh(linear(x, mlp.gate_proj)) * linear(x, mlp.up_proj)


def silu_gated_fused(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    gate, up = linear(x, mlp.gate_up_proj).split(NEURONS, dim=-1)
    return F.silu(gate) * up


def gelu_of_conv1d(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return gelu_tanh(x @ mlp.c_fc.weight.double() + mlp.c_fc.bias.double())


def gelu_of(
    name: str, gelu: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    return lambda mlp, x: gelu(linear(x, getattr(mlp, name)))


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def linear(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return F.linear(x, layer.weight.double(), None if layer.bias is None else layer.bias.double())


FAMILIES: dict[str, tuple[str, dict[str, Any], Callable[[nn.Module, torch.Tensor], torch.Tensor], str]] = {
    # family: configuration, its sizes, the neurons by hand from the MLP's input, the final norm
    "Llama": ("LlamaConfig", GROUPED, silu_gated, "norm"),
    "Mistral": ("MistralConfig", {**GROUPED, "sliding_window": 4}, silu_gated, "norm"),
    "Qwen2": ("Qwen2Config", GROUPED, silu_gated, "norm"),
    "Qwen3": ("Qwen3Config", GROUPED, silu_gated, "norm"),
    "Gemma": ("GemmaConfig", GROUPED, gelu_gated, "norm"),
    "Gemma 2": ("Gemma2Config", {**GROUPED, "sliding_window": 4}, gelu_gated, "norm"),
    "Gemma 3": ("Gemma3TextConfig", {**GROUPED, "sliding_window": 4}, gelu_gated, "norm"),
    "Phi": ("PhiConfig", SIZES, gelu_of("fc1", gelu_tanh), "final_layernorm"),
    "Phi-3": ("Phi3Config", {**SIZES, "num_key_value_heads": 2}, silu_gated_fused, "norm"),
    "GPT-NeoX": ("GPTNeoXConfig", SIZES, gelu_of("dense_h_to_4h", F.gelu), "final_layer_norm"),
    "GPT-2": ("GPT2Config", GPT2_SIZES, gelu_of_conv1d, "ln_f"),
}


def network_of(family: str) -> Any:
    name, sizes, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    network = transformers.AutoModel.from_config(getattr(transformers, name)(**sizes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # biases and norms begin as 0 and 1, which would hide that one is missed
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def read(network: Any, kind: Any, layers: Any = "all") -> dict[int, list[np.ndarray]]:
    """Mean, first and last token's activation by layer, as the system reads them."""
    site = resolve_site(network, kind, layers)
    model = LoadedModel(network, torch.device("cpu"), torch.float32)
    pooled = read_batch(model, site, [EncodedSample("sample", TOKEN_IDS, truncated=False)], ends=True)
    assert pooled.first is not None
    assert pooled.last is not None
    return {
        layer: [values[0, place] for values in (pooled.mean, pooled.first, pooled.last)]
        for place, layer in enumerate(site.layers)
    }


def pooled_by_hand(values: torch.Tensor) -> list[np.ndarray]:
    """Mean over all tokens but the first, first, last."""
    tokens = values.double().numpy()
    return [tokens[1:].mean(axis=0), tokens[0], tokens[-1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_mlp_site_is_the_activated_neurons_of_every_family(family: str) -> None:
    """`mlp` means act(gate) * up, the neurons of the field; each family names and fuses its projections differently."""
    network, neurons = network_of(family), FAMILIES[family][2]
    inputs: dict[int, torch.Tensor] = {}
    stack = network.h if family == "GPT-2" else network.layers
    for layer, block in enumerate(stack):
        block.mlp.register_forward_pre_hook(lambda _, arguments, layer=layer: inputs.update({layer: arguments[0][0]}))
    with torch.inference_mode():
        network(input_ids=torch.tensor([TOKEN_IDS]))

    found = read(network, "mlp")

    assert sorted(found) == list(range(N_LAYERS))
    for layer, block in enumerate(stack):
        expected = pooled_by_hand(neurons(block.mlp, inputs[layer].double()).detach())
        assert expected[0].shape == (NEURONS,)
        np.testing.assert_allclose(found[layer], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_site_is_the_hidden_state_after_each_layer(family: str) -> None:
    """`residual` is the layer's output itself; the last of transformers' hidden states is already normalised."""
    network = network_of(family)
    with torch.inference_mode():
        output = network(input_ids=torch.tensor([TOKEN_IDS]), output_hidden_states=True)
    last: list[torch.Tensor] = []
    handle = getattr(network, FAMILIES[family][3]).register_forward_pre_hook(
        lambda _, inputs: last.append(inputs[0][0])
    )
    with torch.inference_mode():
        network(input_ids=torch.tensor([TOKEN_IDS]))
    handle.remove()

    found = read(network, "residual")

    for layer, states in enumerate([*(states[0] for states in output.hidden_states[1:-1]), last[0]]):
        assert states.shape == (len(TOKEN_IDS), WIDTH)
        np.testing.assert_allclose(found[layer], pooled_by_hand(states), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "GPT-2"])
@pytest.mark.parametrize(("kind", "width"), [("mlp", NEURONS), ("residual", WIDTH)])
def test_width_is_known_before_any_weight_is_loaded(family: str, kind: Any, width: int) -> None:
    """Sites are resolved without weights, so that a mistake costs a second; GPT-2 keeps its weights transposed."""
    name, sizes, _, _ = FAMILIES[family]
    with torch.device("meta"):
        skeleton = transformers.AutoModel.from_config(getattr(transformers, name)(**sizes))

    assert resolve_site(skeleton, kind, "all").width == width


def test_layers_asked_for_are_the_layers_read() -> None:
    """A layer's number must name the same layer whether or not the others are read too."""
    network = network_of("Llama")

    some, every = read(network, "mlp", (0, 2)), read(network, "mlp")

    assert sorted(some) == [0, 2]
    for layer in some:
        np.testing.assert_array_equal(some[layer], every[layer])


def test_layer_out_of_range_names_the_layers_that_exist(llama: Any) -> None:
    """Layer 2 of two layers is the commonest mistake, as they count from 0."""
    with pytest.raises(RecipeError, match=r"extraction\.layers: 2 is out of range; LlamaModel has layers 0 to 1"):
        resolve_site(llama, "mlp", (0, 2))


def test_unknown_list_of_layers_says_what_was_looked_for() -> None:
    """Whoever adds an architecture needs the names that were tried and those that the model has."""
    bert = transformers.AutoModel.from_config(transformers.BertConfig(**SIZES))

    with pytest.raises(RecipeError, match="unknown architecture BertModel") as raised:
        resolve_site(bert, "residual", "all")

    for word in ("layers", "gpt_neox.layers", "its modules are embeddings, encoder", "Llama, Mistral, Qwen, Gemma"):
        assert word in str(raised.value)


def test_unknown_down_projection_says_what_was_looked_for() -> None:
    """A mixture of experts has no single down-projection: an error, not the neurons of something else."""
    config = transformers.MixtralConfig(**{**GROUPED, "num_local_experts": 2})

    with pytest.raises(RecipeError, match=r"down-projection of layer 0 \(MixtralDecoderLayer\)") as raised:
        resolve_site(transformers.AutoModel.from_config(config), "mlp", "all")

    assert "mlp.down_proj, mlp.c_proj, mlp.dense_4h_to_h" in str(raised.value)


def test_network_whose_later_layers_have_other_modules_is_refused() -> None:
    """Some models begin with a plain layer and go on with experts; the first layer does not speak for all."""
    config = transformers.Qwen2MoeConfig(
        **GROUPED, mlp_only_layers=[0], num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8
    )
    network = transformers.AutoModel.from_config(config)

    assert resolve_site(network, "mlp", (0,)).layers == (0,)
    with pytest.raises(RecipeError, match=r"layer 1 .*mlp\.down_proj"):
        resolve_site(network, "mlp", "all")


def test_flattened_neurons_of_opt_are_refused() -> None:
    """OPT's MLP sees all tokens of a batch in one row of tokens, so that samples cannot be told apart there."""
    config = transformers.OPTConfig(
        vocab_size=64, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=4
    )

    with pytest.raises(RecipeError, match="unknown architecture OPTModel"):
        resolve_site(transformers.AutoModel.from_config(config), "mlp", "all")


def test_layers_of_different_widths_are_refused() -> None:
    """The table's vectors have one width; the message says which widths the model has."""
    network = network_of("Llama")
    network.layers[1].mlp.down_proj = nn.Linear(40, WIDTH)

    with pytest.raises(RecipeError, match=r"different numbers of neurons \[24, 40\]"):
        resolve_site(network, "mlp", "all")
    assert resolve_site(network, "mlp", (1,)).width == 40
