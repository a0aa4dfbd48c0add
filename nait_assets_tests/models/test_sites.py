"""Sites: in every family that the README names, the value read is the one that the formula says."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from nait_assets.errors import ModelError, RecipeError
from nait_assets.models.encoding import EncodedSample
from nait_assets.models.sites import resolve_site
from nait_assets_tests.models.small_networks import (
    FAMILIES,
    GROUPED,
    N_LAYERS,
    NEURONS,
    SIZES,
    WIDTH,
    largest_error,
    network_of,
    pooled_by_hand,
    reader,
)

TOKEN_IDS = [1, 5, 9, 13, 17, 21, 25, 29, 33]  # more than the sliding windows


def read(network: Any, kind: Any, layers: Any = "all") -> dict[str, np.ndarray]:
    """Mean, first and last token's activations of the sample `(n_layers, width)`, as the system reads them."""
    (reading,) = reader(network, kind, layers).read([[EncodedSample("sample", np.array(TOKEN_IDS, np.int32))]])
    assert reading.pooled is not None
    return {name: column[0] for name, column in reading.pooled.columns.items()}


def assert_same(found: dict[str, np.ndarray], tokens: torch.Tensor) -> None:
    """The pooled columns are those of `(n_layers, n_tokens, width)` activations."""
    for name, wanted in pooled_by_hand(tokens.double().numpy()).items():
        assert largest_error(found[name], wanted) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_mlp_site_is_the_activated_neurons_of_every_family(family: str) -> None:
    """`mlp` means act(gate) * up, the neurons of the field; each family names and fuses its projections differently."""
    network = network_of(family)
    stack = getattr(network, FAMILIES[family].layers)
    inputs: list[torch.Tensor] = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0][0])) for block in stack
    ]
    with torch.no_grad():
        network(input_ids=torch.tensor([TOKEN_IDS]))
        neurons = [FAMILIES[family].neurons(block.mlp, x.double()) for block, x in zip(stack, inputs, strict=True)]
    for handle in handles:
        handle.remove()

    found = read(network, "mlp")

    assert found["activation"].shape == (N_LAYERS, NEURONS)
    assert_same(found, torch.stack(neurons))


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_site_is_the_hidden_state_after_each_layer(family: str) -> None:
    """`residual` is the layer's output itself; the last of transformers' hidden states is already normalised."""
    network = network_of(family)
    with torch.inference_mode():
        output = network(input_ids=torch.tensor([TOKEN_IDS]), output_hidden_states=True)
    last: list[torch.Tensor] = []
    handle = getattr(network, FAMILIES[family].norm).register_forward_pre_hook(
        lambda _, inputs: last.append(inputs[0][0])
    )
    with torch.inference_mode():
        network(input_ids=torch.tensor([TOKEN_IDS]))
    handle.remove()

    found = read(network, "residual")

    assert found["activation"].shape == (N_LAYERS, WIDTH)
    assert_same(found, torch.stack([*(states[0] for states in output.hidden_states[1:-1]), last[0]]))


@pytest.mark.parametrize("family", ["Llama", "GPT-2"])
@pytest.mark.parametrize(("kind", "width"), [("mlp", NEURONS), ("residual", WIDTH)])
def test_width_is_known_before_any_weight_is_loaded(family: str, kind: Any, width: int) -> None:
    """Sites are resolved without weights, so that a mistake costs a second; GPT-2 keeps its weights transposed."""
    config = getattr(transformers, FAMILIES[family].config)(**FAMILIES[family].sizes)
    with torch.device("meta"):
        skeleton = transformers.AutoModel.from_config(config)

    assert resolve_site(skeleton, kind, "all").width == width


def test_layers_asked_for_are_the_layers_read() -> None:
    """A layer's number must name the same layer whether or not the others are read too."""
    network = network_of("Llama")

    some, every = read(network, "mlp", (0, 2)), read(network, "mlp")

    for name in every:
        np.testing.assert_array_equal(some[name], every[name][[0, 2]])


def test_layer_out_of_range_names_the_layers_that_exist(llama: Any) -> None:
    """Layer 2 of two layers is the commonest mistake, as they count from 0."""
    with pytest.raises(RecipeError, match=r"extraction\.layers: 2 is out of range; LlamaModel has layers 0 to 1"):
        resolve_site(llama, "mlp", (0, 2))


def test_unknown_list_of_layers_says_what_was_looked_for() -> None:
    """Whoever adds an architecture needs the names that were tried and those that the model has."""
    bert = transformers.AutoModel.from_config(transformers.BertConfig(**SIZES))

    with pytest.raises(ModelError, match="unknown architecture BertModel") as raised:
        resolve_site(bert, "residual", "all")

    for word in ("layers", "gpt_neox.layers", "its modules are embeddings, encoder", "Llama, Mistral, Qwen, Gemma"):
        assert word in str(raised.value)


def test_unknown_down_projection_says_what_was_looked_for() -> None:
    """A mixture of experts has no single down-projection: an error, not the neurons of something else."""
    config = transformers.MixtralConfig(**{**GROUPED, "num_local_experts": 2})

    with pytest.raises(ModelError, match=r"down-projection of layer 0 \(MixtralDecoderLayer\)") as raised:
        resolve_site(transformers.AutoModel.from_config(config), "mlp", "all")

    assert "mlp.down_proj, mlp.c_proj, mlp.dense_4h_to_h" in str(raised.value)


def test_network_whose_later_layers_have_other_modules_is_refused() -> None:
    """Some models begin with a plain layer and go on with experts; the first layer does not speak for all."""
    config = transformers.Qwen2MoeConfig(
        **GROUPED, mlp_only_layers=[0], num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8
    )
    network = transformers.AutoModel.from_config(config)

    assert resolve_site(network, "mlp", (0,)).layers == (0,)
    with pytest.raises(ModelError, match=r"layer 1 .*mlp\.down_proj"):
        resolve_site(network, "mlp", "all")


def test_flattened_neurons_of_opt_are_refused() -> None:
    """OPT's MLP sees all tokens of a batch in one row of tokens, so that samples cannot be told apart there."""
    config = transformers.OPTConfig(
        vocab_size=64, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=4
    )

    with pytest.raises(ModelError, match="unknown architecture OPTModel"):
        resolve_site(transformers.AutoModel.from_config(config), "mlp", "all")


def test_layers_of_different_widths_are_refused() -> None:
    """The table's vectors have one width; the message says which widths the model has."""
    network = network_of("Llama")
    network.layers[1].mlp.down_proj = nn.Linear(40, WIDTH)

    with pytest.raises(RecipeError, match=r"different numbers of neurons \[24, 40\]"):
        resolve_site(network, "mlp", "all")
    assert resolve_site(network, "mlp", (1,)).width == 40
