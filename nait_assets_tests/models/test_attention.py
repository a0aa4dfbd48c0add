"""Packed attention: by the formula, in every family as the family's own, and left alone where tokens mix otherwise."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.extraction.neurons import Reader
from nait_assets.models.attention import Packing, packed_attention
from nait_assets_tests.models.small_networks import (
    FAMILIES,
    GROUPED,
    SIZES,
    WINDOW,
    build,
    largest_error,
    network_of,
    pooled_by_hand,
    reader,
    sample,
    tokens_by_hand,
)

CPU = torch.device("cpu")
SITES = pytest.mark.parametrize("kind", ["mlp", "residual"])
LENGTHS = (23, 12, 7, 2)
BATCH = [sample(str(length), length) for length in LENGTHS]
LINEAR_LAYERS = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
OTHERS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    # a model with our module names that cannot be packed: configuration, sizes, names of its parts
    "without the interface": ("FalconConfig", SIZES, {"layers": "h", "down": "mlp.dense_4h_to_h"}),
    "local attention of its own": (
        "GPTNeoConfig",
        {
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "num_heads": 4,
            "window_size": WINDOW,
            "max_position_embeddings": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {"layers": "h", "down": "mlp.c_proj"},
    ),
    "linear attention between": ("Qwen3_5TextConfig", {**GROUPED, **LINEAR_LAYERS}, {}),
    "sees the following tokens": ("Gemma3TextConfig", {**GROUPED, "use_bidirectional_attention": True}, {}),
}


def columns_of(given: Reader, batch: Any = BATCH) -> dict[str, np.ndarray]:
    (reading,) = given.read([batch])
    assert reading.pooled is not None
    return reading.pooled.columns


def read_columns(network: Any, kind: str, batch: Any = BATCH, **arguments: Any) -> dict[str, np.ndarray]:
    return columns_of(reader(network, kind, **arguments), batch)


def assert_right(network: Any, kind: str, packs: bool, batch: Any = BATCH, **names: str) -> None:
    """The reader finds out whether to pack, and every row is the slow reference's."""
    given = reader(network, kind)
    assert given.packs == packs
    columns = columns_of(given, batch)
    for row, one in enumerate(batch):
        for name, wanted in pooled_by_hand(tokens_by_hand(network, one, kind, **names)).items():
            assert largest_error(columns[name][row], wanted) < 1e-5, (name, one.sample_id)


def attention_by_hand(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, scaling: float, window: int | None, softcap: float | None
) -> np.ndarray:
    """`(n_heads, n_tokens, head_size)` causal attention of one sample, token by token, in float64."""
    output = np.zeros((*query.shape[:2], value.shape[-1]))
    group = len(query) // len(key)
    for head in range(len(query)):
        for place in range(query.shape[1]):
            seen = slice(0 if window is None else max(0, place - window + 1), place + 1)
            scores = key[head // group, seen] @ query[head, place] * scaling
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            output[head, place] = weights / weights.sum() @ value[head // group, seen]
    return output


@pytest.mark.parametrize("n_key_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 3, 5, 99])
@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_packed_attention_is_the_formula_within_each_sample(
    n_key_heads: int, window: int | None, softcap: float | None, scaling: float | None
) -> None:
    """Grouped heads, window, softcap and scale meet in few models, and every model is one of the combinations."""
    lengths, head_size = (5, 1, 3), 8
    tensors = np.random.default_rng(0).normal(size=(4 + 2 * n_key_heads, sum(lengths), head_size))
    query, key, value = np.split(tensors, [4, 4 + n_key_heads])
    packed = [torch.from_numpy(array).float()[None] for array in (query, key, value)]

    output, weights = packed_attention(
        None, *packed, None, Packing(lengths, CPU), scaling=scaling, sliding_window=window, softcap=softcap
    )

    assert weights is None
    assert output.shape == (1, sum(lengths), 4, head_size)
    for begin, end in ((0, 5), (5, 6), (6, 9)):
        one = (array[:, begin:end] for array in (query, key, value))
        wanted = attention_by_hand(*one, scaling or head_size**-0.5, window, softcap)
        np.testing.assert_allclose(output[0, begin:end].transpose(0, 1), wanted, atol=1e-5)


def test_packing_says_where_samples_begin_and_end() -> None:
    """Everything that separates samples is computed from these two."""
    packing = Packing((3, 1, 2), CPU)

    assert packing.bounds == [(0, 3), (3, 4), (4, 6)]
    assert packing.offsets.tolist() == [0, 3, 4, 6]
    assert packing.offsets.dtype == torch.int32


@SITES
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_packed_and_right(family: str, kind: str) -> None:
    """Packing is most of the speed; what it computes has to be what the family's own attention computes."""
    network, parts = network_of(family), FAMILIES[family]

    assert_right(network, kind, packs=True, layers=parts.layers, down=parts.down)


@pytest.mark.parametrize(
    ("family", "name", "no_matter"),
    [
        ("Mistral", "sliding_window", 1000),
        ("Gemma 2", "sliding_window", 1000),
        ("Gemma 2", "attn_logit_softcapping", 1000.0),
        ("Gemma 3", "sliding_window", 1000),
    ],
)
def test_windows_and_caps_of_these_tests_matter(family: str, name: str, no_matter: float) -> None:
    """A window longer than the samples, or a cap above the scores, would test nothing."""
    parts = FAMILIES[family]

    with_it, without = (
        read_columns(build(parts.config, **{**parts.sizes, name: value}), "mlp")["activation"]
        for value in (parts.sizes[name], no_matter)
    )

    assert largest_error(with_it[:1], without[:1]) > 1e-3


ACROSS = 16
"""A window that the first trial's samples do not reach."""


@pytest.mark.parametrize(
    ("config", "more", "packs"),
    [
        ("MistralConfig", {}, True),
        ("PhimoeConfig", {"num_local_experts": 2, "num_experts_per_tok": 1}, False),
    ],
)
def test_a_sample_that_is_longer_than_the_window_is_tried_before_it_is_packed(
    config: str, more: dict[str, Any], packs: bool
) -> None:
    """PhiMoE puts its window into a mask that the packed attention never sees: an error of 1.5, in silence."""
    network = build(config, **{**GROUPED, "max_position_embeddings": 64, "sliding_window": ACROSS}, **more)
    batch = [sample("long", 40), sample("short", 9)]
    given = reader(network, "residual")
    assert given.packs

    columns_of(given, batch[1:])
    assert given.packs
    found = columns_of(given, batch)

    assert given.packs == packs
    alone = [columns_of(reader(network, "residual", packs=False), [one])["activation"][0] for one in batch]
    for row, wanted in enumerate(alone):
        assert largest_error(found["activation"][row], wanted) < 1e-5


@SITES
@pytest.mark.parametrize("why", OTHERS)
def test_model_that_cannot_be_packed_is_read_one_by_one_and_right(why: str, kind: str) -> None:
    """In most of these, samples would flow into their neighbours; the user is not asked to know which they are."""
    config, sizes, names = OTHERS[why]
    network = build(config, **sizes)

    assert_right(network, kind, packs=False, **names)


def mix(_module: Any, _inputs: Any, output: torch.Tensor, share: float) -> torch.Tensor:
    """Adds to each token a share of the mean over the tokens up to it, wherever they come from."""
    counts = torch.arange(1, output.shape[1] + 1)[:, None]
    return output + share * output.cumsum(dim=1) / counts


@SITES
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_tokens_that_mix_outside_of_attention_are_noticed(kind: str, share: float) -> None:
    """Such a model has all the right names; only a trial tells that neighbours leak into each other."""
    network = network_of("Llama")
    network.layers[0].register_forward_hook(functools.partial(mix, share=share))

    assert largest_error(*(read_columns(network, kind, packs=p)["activation"] for p in (True, False))) > share / 10
    assert_right(network, kind, packs=False)


def test_a_leak_is_noticed_in_bfloat16_too() -> None:
    """What bfloat16 rounds away is larger than a small leak; the trial changes a neighbour and looks for the trace."""
    network = network_of("Llama").bfloat16()
    assert reader(network, "mlp").packs

    network.layers[0].register_forward_hook(functools.partial(mix, share=0.05))

    assert not reader(network, "mlp").packs


def test_only_layers_that_are_read_decide_whether_to_pack() -> None:
    """What layers behind the last one do to their tokens is of no interest."""
    network = network_of("Llama")
    network.layers[1].register_forward_hook(functools.partial(mix, share=1.0))

    assert reader(network, "residual", (0,)).packs
    assert not reader(network, "residual", (0, 1)).packs


def test_reading_one_by_one_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """It is several times slower, and nothing else would say why."""
    with caplog.at_level("INFO"):
        reader(build("FalconConfig", **SIZES), "mlp")
        reader(network_of("Llama"), "mlp")

    assert caplog.messages == ["FalconModel cannot be packed: reading one sample at a time"]


@pytest.mark.parametrize("packs", [True, False])
def test_packing_can_be_asked_for_without_a_trial(packs: bool) -> None:
    """The trial itself reads in both ways, before any reader has been made."""
    network = network_of("Llama")

    given = reader(network, "mlp", packs=packs)

    assert given.packs == packs
    wanted = read_columns(network, "mlp")["activation"]
    assert largest_error(columns_of(given)["activation"], wanted) < 1e-5


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_long_sample_does_not_change_the_rotary_frequencies_of_its_neighbours(rope: str) -> None:
    """Behind a length, Phi 3 takes other frequencies for all it is given; in one batch, short samples got them too."""
    kinds: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "longrope": (
            "Phi3Config",
            {**SIZES, "num_key_value_heads": 2, "original_max_position_embeddings": 16},
            {"short_factor": [1.0, 1.0], "long_factor": [4.0, 8.0], "original_max_position_embeddings": 16},
        ),
        "dynamic": ("LlamaConfig", {**GROUPED, "max_position_embeddings": 16}, {"factor": 4.0}),
    }
    config, sizes, more = kinds[rope]
    network = build(config, **sizes, rope_parameters={"rope_type": rope, "rope_theta": 10000.0, **more})

    assert_right(network, "mlp", packs=True)
    assert_right(network, "mlp", packs=True, batch=BATCH[1:])


def test_own_attention_is_back_after_reading() -> None:
    """The model is shared: whatever else uses it is given no packing."""
    network = network_of("Llama")
    token_ids = torch.tensor([BATCH[1].token_ids.tolist()])
    with torch.no_grad():
        before = network(token_ids).last_hidden_state
        read_columns(network, "mlp")
        after = network(token_ids).last_hidden_state

    assert network.config._attn_implementation == "sdpa"
    assert torch.equal(before, after)
