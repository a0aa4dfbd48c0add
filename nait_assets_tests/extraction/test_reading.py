"""Reading: pooled activations against a slow reference, and what the forward pass does and leaves behind."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.extraction.encoding import EncodedSample
from nait_assets.extraction.reading import NonFiniteActivations, read_batch
from nait_assets.extraction.sites import resolve_site
from nait_assets.resources.language_model import LoadedModel

SITES = pytest.mark.parametrize("kind", ["mlp", "residual"])
BOS = 1


def sample(name: str, n_tokens: int) -> EncodedSample:
    """A sample of random tokens, none of them token 0, which pads batches."""
    ids = np.random.default_rng(n_tokens).integers(3, 400, size=n_tokens - 1)
    return EncodedSample(name, (BOS, *map(int, ids)), truncated=False)


BATCH = [sample("long", 12), sample("middle", 7), sample("short", 2)]


@pytest.fixture
def network(llama: Any) -> Any:
    """A copy of the two-layer Llama that a test may change."""
    return copy.deepcopy(llama)


def loaded(network: Any) -> LoadedModel:
    return LoadedModel(network, torch.device("cpu"), torch.float32)


def read(network: Any, batch: list[EncodedSample], kind: Any, layers: Any = "all", ends: bool = True) -> Any:
    return read_batch(loaded(network), resolve_site(network, kind, layers), batch, ends)


def tokens_by_hand(llama: Any, one: EncodedSample, kind: str) -> np.ndarray:
    """Every token's activations of one sample, `(n_layers, n_tokens, width)`, alone, unpadded and in float64."""
    network = copy.deepcopy(llama).double()
    caught: list[np.ndarray] = []
    for block in network.layers:
        if kind == "mlp":
            block.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0].numpy()))
        else:
            block.register_forward_hook(lambda _module, _inputs, output: caught.append(output[0].numpy()))
    with torch.no_grad():
        network(input_ids=torch.tensor([one.token_ids]))
    return np.stack(caught)


def n_hooks(network: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@SITES
def test_pooled_activations_equal_a_slow_reference(llama: Any, kind: str) -> None:
    """The whole system rests on these numbers: padding, weights and layers have to be right for every row."""
    pooled = read(llama, BATCH, kind)

    assert pooled.mean.dtype == np.float32
    for row, one in enumerate(BATCH):
        tokens = tokens_by_hand(llama, one, kind)
        np.testing.assert_allclose(pooled.mean[row], tokens[:, 1:].mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(pooled.first[row], tokens[:, 0], atol=1e-5)
        np.testing.assert_allclose(pooled.last[row], tokens[:, -1], atol=1e-5)


@SITES
def test_first_token_is_left_out_of_the_mean(llama: Any, kind: str) -> None:
    """It is an attention sink: averaged in, it makes every score a function of length."""
    network = copy.deepcopy(llama)
    read_before = read(network, BATCH[2:], kind)
    handle = network.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] + sink(inputs[0]),))

    pooled = read(network, BATCH[2:], kind)
    handle.remove()

    assert np.abs(pooled.first[0, 1] - read_before.first[0, 1]).max() > 1
    np.testing.assert_array_equal(pooled.mean, read_before.mean)
    np.testing.assert_array_equal(pooled.mean, pooled.last)  # two tokens: the mean is the second one


def sink(activations: torch.Tensor) -> torch.Tensor:
    """1000 for the first token of each row, 0 for the others."""
    return 1000.0 * (torch.arange(activations.shape[1]) == 0)[None, :, None]


@SITES
def test_batch_composition_and_padding_have_no_influence(llama: Any, kind: str) -> None:
    """A sample's activation is a function of the sample: otherwise an added row would change the others' scores."""
    together = read(llama, BATCH, kind)

    for row, one in enumerate(BATCH):
        alone = read(llama, [one], kind)
        for name in ("mean", "first", "last"):
            np.testing.assert_allclose(getattr(together, name)[row], getattr(alone, name)[0], atol=1e-6)


def test_order_of_the_batch_is_the_order_of_the_rows(llama: Any) -> None:
    """Rows are named by their place in the batch."""
    there, back = read(llama, BATCH, "mlp"), read(llama, BATCH[::-1], "mlp")

    np.testing.assert_allclose(there.mean, back.mean[::-1], atol=1e-6)
    np.testing.assert_allclose(there.last, back.last[::-1], atol=1e-6)


def test_ends_are_kept_only_where_they_are_asked_for(llama: Any) -> None:
    """The pool's ends would triple the largest table for nothing."""
    pooled = read(llama, BATCH, "mlp", ends=False)

    assert pooled.first is None
    assert pooled.last is None
    np.testing.assert_array_equal(pooled.mean, read(llama, BATCH, "mlp").mean)


def test_bfloat16_is_reduced_in_float32(network: Any) -> None:
    """Added up in bfloat16, a mean over a hundred tokens loses its second digit."""
    network.bfloat16()
    batch = [sample("long", 300)]
    caught: list[torch.Tensor] = []
    handle = network.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0][0, 1:])
    )

    pooled = read(network, batch, "mlp", (0,))
    handle.remove()

    assert caught[0].dtype == torch.bfloat16
    np.testing.assert_allclose(pooled.mean[0, 0], caught[0].double().mean(dim=0).numpy(), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "layers", "called"),
    [
        ("mlp", (0,), ["layers.0", "layers.0.mlp.up_proj"]),
        ("residual", (0,), ["layers.0", "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"]),
        (
            "mlp",
            (1,),
            ["layers.0", "layers.0.mlp.up_proj", "layers.0.mlp.down_proj", "layers.1", "layers.1.mlp.up_proj"],
        ),
    ],
)
def test_model_stops_after_the_last_layer_asked_for(network: Any, kind: str, layers: Any, called: list[str]) -> None:
    """Layer 15 of 30 costs half; the layers behind it, and the final norm, never run."""
    names = ["layers.0", "layers.1", "norm"] + [
        f"layers.{n}.mlp.{part}_proj" for n in (0, 1) for part in ("up", "down")
    ]
    begun: list[str] = []
    ended: list[str] = []
    for name in names:
        module = network.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, name=name: begun.append(name))
        module.register_forward_hook(lambda *_, name=name: ended.append(name))

    read(network, BATCH, kind, layers)

    last_projection = f"layers.{layers[-1]}.mlp.down_proj"
    assert set(begun) - {last_projection} == set(called) - {last_projection}
    assert (last_projection in ended) == (kind == "residual")


@SITES
def test_no_hook_is_left_behind(network: Any, kind: str) -> None:
    """The model is loaded once for all corpora: a hook left would read every later batch as well."""
    read(network, BATCH, kind)

    assert n_hooks(network) == 0


@SITES
def test_no_hook_is_left_behind_by_a_failure(network: Any, kind: str) -> None:
    """Dagster retries in the same process, with the same model."""

    def fail(*_: Any) -> None:
        raise MemoryError("no memory left")

    handle = network.layers[1].mlp.up_proj.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        read(network, BATCH, kind)
    handle.remove()

    assert n_hooks(network) == 0


@SITES
def test_nan_names_the_samples_the_layer_and_what_to_try(network: Any, kind: str) -> None:
    """A NaN would spread into every mean and every score; the sample that has it can be looked at."""
    with torch.no_grad():
        network.embed_tokens.weight[BATCH[1].token_ids[3]] = torch.nan

    with pytest.raises(NonFiniteActivations, match=r"layer 0, for sample\(s\) middle\. Nothing was stored") as raised:
        read(network, BATCH, kind)

    assert "model.dtype: float32" in str(raised.value)


def test_layer_of_the_first_nan_is_named_by_its_number(network: Any) -> None:
    """Where only some layers are read, the second one read is not layer 1."""
    with torch.no_grad():
        network.layers[1].mlp.up_proj.weight.fill_(torch.inf)

    with pytest.raises(NonFiniteActivations, match=r"first in layer 1, for sample\(s\) long, middle, short\."):
        read(network, BATCH, "mlp", (1,))


def test_infinity_in_the_first_token_alone_fails_too(network: Any) -> None:
    """float16 overflows there first; the mean leaves the token out, but the activation change subtracts it."""
    overflow = torch.zeros(1, 12, 1)
    overflow[:, 0] = torch.inf
    network.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] + overflow,))

    with pytest.raises(NonFiniteActivations, match=r"layer 1, for sample\(s\) long\."):
        read(network, BATCH[:1], "mlp")


CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."


@pytest.mark.parametrize("error", [RuntimeError(CPU_MESSAGE), torch.OutOfMemoryError("CUDA out of memory.")])
def test_batch_that_does_not_fit_is_halved_and_gives_the_same(
    network: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A long tail of samples must not end an extraction of hours; the log says that the budget is too large."""
    whole = read(network, BATCH, "mlp")
    rows_tried = []

    def allocate(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        rows_tried.append(len(named["input_ids"]))
        if rows_tried[-1] > 1:
            raise error

    network.register_forward_pre_hook(allocate, with_kwargs=True)
    halved = read(network, BATCH, "mlp")

    assert rows_tried == [3, 1, 2, 1, 1]
    for name in ("mean", "first", "last"):
        np.testing.assert_allclose(getattr(halved, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    assert "a batch of 3 samples does not fit" in caplog.text
    assert n_hooks(network) == 1


def test_sample_that_does_not_fit_alone_is_named(network: Any) -> None:
    """Halving ends at one sample; then a person has to choose."""

    def refuse(*_: Any) -> None:
        raise RuntimeError(CPU_MESSAGE)

    network.register_forward_pre_hook(refuse)
    with pytest.raises(MemoryError, match=r"sample long of 12 tokens does not fit .* smaller `extraction\.max_tokens`"):
        read(network, BATCH[:1], "mlp")


def test_other_errors_are_not_taken_for_a_lack_of_memory(network: Any) -> None:
    """Trying again in halves would hide what is wrong."""
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        read(network, BATCH, "mlp")
    assert len(calls) == 1
