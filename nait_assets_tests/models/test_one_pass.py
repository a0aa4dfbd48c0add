"""One pass of which several parts are read: each gets what a pass of its own gives it, and the model runs once."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.errors import NumericalError
from nait_assets.extraction.neurons import Activations
from nait_assets.measurements.outputs import Outputs
from nait_assets.measurements.top_k import SparseMean, largest
from nait_assets.models import one_pass
from nait_assets.models.one_pass import Part, PassReader
from nait_assets.models.sites import SiteKind, resolve_site
from nait_assets_tests.models import small_networks
from nait_assets_tests.models.small_networks import N_LAYERS, answered, causal, loaded

BOTH_WAYS = pytest.mark.parametrize("packs", [True, False])
BATCH = [answered("long", 12, slice(5, 10)), answered("short", 7, slice(3, 4))]
FAMILIES = pytest.mark.parametrize("family", ["Llama", "Gemma 2", "Phi-3"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Rounding depends on how many threads share a product."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def network_of(family: str) -> Any:
    return causal(small_networks.FAMILIES[family].config, **small_networks.FAMILIES[family].sizes)


def activations(network: Any, kind: SiteKind, layers: Any, **named: Any) -> Activations:
    model = loaded(network)
    return Activations(resolve_site(model.base, kind, layers), named.pop("ends", False), {}, model.device, **named)


def parts_of(network: Any) -> dict[str, Part]:
    """What several methods read of one pass."""
    return {
        "activations/": activations(network, "mlp", "all", ends=True, poolings=("all", "answer")),
        "outputs/": Outputs(),
        "gates/": activations(
            network,
            "gate",
            [1],
            pool=lambda packing, _: SparseMean(packing, lambda values: largest(values, 3), small_networks.NEURONS),
        ),
        "residual/": activations(network, "residual", [0, 1]),
    }


def columns(reader: PassReader, batch: Any = tuple(BATCH)) -> dict[str, np.ndarray]:
    (result,) = reader.read([list(batch)])
    assert result.pooled is not None
    return result.pooled.columns


def passes(network: Any) -> list[int]:
    """A list that grows by the layer's number whenever the network runs one."""
    seen: list[int] = []
    for number, layer in enumerate(network.base_model.layers):
        layer.register_forward_pre_hook(lambda _module, _inputs, number=number: seen.append(number))
    return seen


@FAMILIES
@BOTH_WAYS
def test_each_part_is_what_a_pass_of_its_own_gives_to_the_bit(family: str, packs: bool) -> None:
    """Else a recipe's activations would depend on which other methods it has."""
    network = network_of(family)
    parts = parts_of(network)
    together = PassReader(loaded(network), parts, packs)
    (result,) = together.read([BATCH])
    assert result.pooled is not None

    for name, part in parts.items():
        alone = columns(PassReader(loaded(network), {"": part}, packs))
        found = together.columns_of(name, result.pooled)
        assert list(found) == list(alone)
        for column, values in alone.items():
            np.testing.assert_array_equal(found[column], values)
    assert set(result.pooled.columns) == {
        f"{name}{column}" for name in parts for column in together.columns_of(name, result.pooled)
    }


def test_the_model_runs_once_whatever_is_read() -> None:
    """That is what it is for."""
    network = network_of("Llama")
    reader = PassReader(loaded(network), parts_of(network), packs=True)
    seen = passes(network)

    columns(reader)

    assert seen == list(range(N_LAYERS))


@pytest.mark.parametrize(("kinds", "last"), [({"mlp": [0]}, 0), ({"mlp": [0], "residual": [1]}, 1), ({"gate": [1]}, 1)])
@BOTH_WAYS
def test_a_pass_ends_behind_the_last_layer_that_somebody_reads(kinds: Any, last: int, packs: bool) -> None:
    """Half of the layers are half of the time."""
    network = network_of("Llama")
    parts = {f"{kind}/": activations(network, kind, layers) for kind, layers in kinds.items()}
    reader = PassReader(loaded(network), parts, packs)
    seen = passes(network)

    columns(reader, BATCH[:1])

    assert seen == list(range(last + 1))


def test_without_losses_the_head_is_not_run() -> None:
    """It has a quarter of a small model's operations."""
    network = network_of("Llama")
    network.lm_head.register_forward_pre_hook(lambda *_: pytest.fail("the head was run"))
    for packs in (True, False):
        assert list(columns(PassReader(loaded(network), {"": Outputs(losses=False)}, packs))) == ["vector"]


def test_the_head_is_run_for_targets_alone_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of all logits in float32 would be 13 GB for a batch of a GPU and a vocabulary of 200,000."""
    network = network_of("Llama")
    reader = PassReader(loaded(network), parts_of(network), packs=True)
    monkeypatch.setattr(one_pass, "LOGITS", 5 * 64)
    sizes: list[int] = []
    network.lm_head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(len(logits)))

    columns(reader)

    assert max(sizes) == 5
    assert sum(sizes) == sum(len(one.token_ids) - 1 for one in BATCH)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("layers.1.mlp.up_proj", "activations at site 'mlp', first in layer 1, for 2 of 2 samples"),
        ("lm_head", "outputs for 2 of 2 samples"),
    ],
)
def test_what_is_not_finite_is_named(broken: str, said: str) -> None:
    """Of several tables, which; else one looks in the wrong place."""
    network = copy.deepcopy(network_of("Llama"))
    module = network.get_submodule(broken if broken == "lm_head" else f"model.{broken}")
    with torch.no_grad():
        module.weight.fill_(torch.nan)

    with pytest.raises(NumericalError, match=said):
        columns(PassReader(loaded(network), parts_of(network), packs=True))


@BOTH_WAYS
def test_a_pass_leaves_the_network_as_it_was(packs: bool) -> None:
    """The same network in memory is used for other things; a hook that stays reads every later pass."""
    network = network_of("Llama")
    before = network.config._attn_implementation

    columns(PassReader(loaded(network), parts_of(network), packs))

    assert network.config._attn_implementation == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_head_that_does_more_keeps_all_parts_from_being_packed() -> None:
    """One pass cannot be both ways at once."""
    network = causal("CohereConfig", **{**small_networks.GROUPED, "logit_scale": 0.25})
    parts = {"activations/": activations(network, "mlp", "all"), "outputs/": Outputs()}

    assert PassReader(loaded(network), {"": parts["activations/"]}).packs
    assert not PassReader(loaded(network), parts).packs
