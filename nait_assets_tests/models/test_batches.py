"""BatchResult: pooled activations against a slow reference, and what the forward pass does and leaves behind."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nait_assets.errors import NumericalError
from nait_assets.extraction.projection import Projector
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.models.batches import BatchResult
from nait_assets.models.encoding import EncodedSample
from nait_assets_tests.models import small_networks
from nait_assets_tests.models.small_networks import largest_error, pooled_by_hand, reader, tokens_by_hand

SITES = pytest.mark.parametrize("kind", ["mlp", "residual"])
BOTH_WAYS = pytest.mark.parametrize("packs", [True, False])
N_NEURONS = 48


def sample(name: str, n_tokens: int) -> EncodedSample:
    return small_networks.sample(name, n_tokens, vocabulary=400)


BATCH = [sample("long", 12), sample("middle", 7), sample("short", 2)]


@pytest.fixture
def network(llama: Any) -> Any:
    """A copy of the two-layer Llama that a test may change."""
    return copy.deepcopy(llama)


def read(network: Any, batch: list[EncodedSample], kind: Any = "mlp", *args: Any, **named: Any) -> BatchResult:
    """What comes of one batch."""
    (reading,) = reader(network, kind, *args, **named).read([batch])
    return reading


def columns(network: Any, batch: list[EncodedSample], kind: Any = "mlp", *args: Any, **named: Any) -> Any:
    """The activations of a batch of which every sample can be read."""
    reading = read(network, batch, kind, *args, **named)
    assert reading.samples == tuple(batch)
    assert reading.rejected == ()
    assert reading.pooled is not None
    return reading.pooled.columns


def names(reading: BatchResult) -> list[str]:
    return [one.sample_id for one in reading.samples]


def a_projector(layers: tuple[int, ...] = (0, 1)) -> Projector:
    random = np.random.default_rng(0)
    statistics = {
        layer: NeuronStatistics(
            random.normal(size=N_NEURONS).astype(np.float32), random.uniform(0.5, 2, N_NEURONS).astype(np.float32)
        )
        for layer in layers
    }
    return Projector(statistics, dimensions=16, seed=0)


def n_hooks(network: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@SITES
def test_pooled_activations_equal_a_slow_reference(llama: Any, kind: str) -> None:
    """The whole system rests on these numbers: packing, weights and layers have to be right for every row."""
    found = columns(llama, BATCH, kind)

    assert {name: column.dtype for name, column in found.items()} == dict.fromkeys(found, np.float32)
    for row, one in enumerate(BATCH):
        wanted = pooled_by_hand(tokens_by_hand(llama, one, kind))
        assert sorted(found) == sorted(wanted)
        for name in wanted:
            assert largest_error(found[name][row], wanted[name]) < 1e-5


@SITES
def test_first_token_is_left_out_of_the_mean(network: Any, kind: str) -> None:
    """It is an attention sink: averaged in, it makes every score a function of length."""
    before = columns(network, BATCH, kind)
    sinks = torch.zeros(1, 12 + 7 + 2, 1)
    sinks[0, [0, 12, 19]] = 1000
    network.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] + sinks,))

    after = columns(network, BATCH, kind, packs=True)

    first = "first_token_activation"
    assert np.abs(after[first][:, 1] - before[first][:, 1]).max(axis=-1).min() > 1
    np.testing.assert_array_equal(after["activation"], before["activation"])
    # Of two tokens, the mean is the second one.
    np.testing.assert_array_equal(after["activation"][2], after["last_token_activation"][2])


@SITES
@BOTH_WAYS
def test_batch_composition_has_no_influence(llama: Any, kind: str, packs: bool) -> None:
    """A sample's activation is a function of the sample: otherwise an added row would change the others' scores."""
    together = columns(llama, BATCH, kind, packs=packs)

    for row, one in enumerate(BATCH):
        for name, alone in columns(llama, [one], kind, packs=packs).items():
            assert largest_error(together[name][row], alone[0]) < 1e-6


def test_order_of_the_batch_is_the_order_of_the_rows(llama: Any) -> None:
    """Rows are named by their place in the batch."""
    there, back = columns(llama, BATCH), columns(llama, BATCH[::-1])

    for name in there:
        assert largest_error(there[name], back[name][::-1]) < 1e-6


def test_a_reading_comes_of_every_batch_in_order_and_when_it_is_asked_for(llama: Any) -> None:
    """A CPU computes nothing ahead: what a stopped run has computed is stored."""
    asked: list[str] = []

    def batches() -> Iterator[list[EncodedSample]]:
        for one in BATCH:
            asked.append(one.sample_id)
            yield [one]

    readings = reader(llama, "mlp").read(batches())

    assert asked == []
    for number, one in enumerate(BATCH):
        assert names(next(readings)) == [one.sample_id]
        assert len(asked) == number + 1
    assert next(readings, None) is None


def test_ends_are_kept_only_where_they_are_asked_for(llama: Any) -> None:
    """The pool's ends would triple the largest table for nothing."""
    with_ends, without = columns(llama, BATCH), columns(llama, BATCH, keep_first_and_last=False)

    assert sorted(with_ends) == ["activation", "first_token_activation", "last_token_activation"]
    assert list(without) == ["activation"]
    np.testing.assert_array_equal(without["activation"], with_ends["activation"])


@BOTH_WAYS
def test_projector_is_given_the_same_means(llama: Any, packs: bool) -> None:
    """A projected pool is compared with in-domain examples that are projected from their stored neurons."""
    projector = a_projector()
    means = columns(llama, BATCH, keep_first_and_last=False)["activation"]

    found = columns(llama, BATCH, keep_first_and_last=False, projectors={"all": projector}, packs=packs)

    assert found["activation"].shape == (3, 1, 16)
    wanted = projector.project({layer: means[:, layer] for layer in (0, 1)})
    assert largest_error(found["activation"][:, 0], wanted) < 1e-5
    dtypes = {"strongest_layer": np.int16, "strongest_neuron": np.int32, "strongest_value": np.float32}
    for name, dtype in dtypes.items():
        assert (found[name].shape, found[name].dtype) == ((3, 1, 64), dtype)
    for row, mean in enumerate(means):
        for layer, neuron, value in zip(*(found[name][row, 0, :5] for name in dtypes), strict=True):
            z = projector.statistics[int(layer)].standardize(mean[layer])[neuron]
            assert value == pytest.approx(z, rel=1e-4)


def test_bfloat16_is_reduced_in_float32(network: Any) -> None:
    """Added up in bfloat16, a mean over a hundred tokens loses its second digit."""
    network.bfloat16()
    batch = [sample("long", 300), sample("other", 200)]
    caught: list[torch.Tensor] = []
    network.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0]))

    found = columns(network, batch, "mlp", (0,), packs=True)["activation"]

    (tokens,) = caught
    assert tokens.dtype == torch.bfloat16
    for row, wanted in enumerate((tokens[1:300], tokens[301:])):
        assert largest_error(found[row, 0], wanted.double().mean(dim=0).numpy()) < 1e-6


@SITES
@BOTH_WAYS
def test_bfloat16_is_near_float32(llama: Any, kind: str, packs: bool) -> None:
    """Recipes for GPUs use it; what it loses should not be seen in a ranking."""
    exact = columns(llama, BATCH, kind)["activation"]

    rounded = columns(copy.deepcopy(llama).bfloat16(), BATCH, kind, packs=packs)["activation"]

    assert rounded.dtype == np.float32
    for one, other in zip(exact.reshape(3, -1), rounded.reshape(3, -1), strict=True):
        assert one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) >= 0.999


def test_bfloat16_is_packed(llama: Any) -> None:
    """The trial that decides has to forgive what bfloat16 rounds away, or no GPU would pack."""
    assert reader(copy.deepcopy(llama).bfloat16(), "mlp").packs


@BOTH_WAYS
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
def test_model_stops_after_the_last_layer_asked_for(
    network: Any, kind: str, layers: Any, called: list[str], packs: bool
) -> None:
    """Layer 15 of 30 costs half; the layers behind it, and the final norm, never run."""
    parts = ["layers.0", "layers.1", "norm"] + [
        f"layers.{n}.mlp.{part}_proj" for n in (0, 1) for part in ("up", "down")
    ]
    begun: list[str] = []
    ended: list[str] = []
    for part in parts:
        module = network.get_submodule(part)
        module.register_forward_pre_hook(lambda *_, part=part: begun.append(part))
        module.register_forward_hook(lambda *_, part=part: ended.append(part))

    read(network, BATCH, kind, layers, packs=packs)

    last_projection = f"layers.{layers[-1]}.mlp.down_proj"
    assert set(begun) - {last_projection} == set(called) - {last_projection}
    assert (last_projection in ended) == (kind == "residual")


@SITES
def test_no_hook_is_left_behind(network: Any, kind: str) -> None:
    """The model is loaded once for all corpora: a hook left would read every later batch as well."""
    read(network, BATCH, kind)

    assert n_hooks(network) == 0


@SITES
def test_nothing_is_left_behind_by_a_failure(network: Any, kind: str) -> None:
    """Dagster retries in the same process, with the same model."""
    given = reader(network, kind)

    def fail(*_: Any) -> None:
        raise MemoryError("no memory left")

    handle = network.layers[1].mlp.up_proj.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        next(given.read([BATCH]))
    handle.remove()

    assert n_hooks(network) == 0
    assert network.config._attn_implementation == "sdpa"


def poison(network: Any, one: EncodedSample, value: float) -> None:
    """Give the sample's fourth token a broken embedding."""
    with torch.no_grad():
        network.embed_tokens.weight[one.token_ids[3]] = value


@SITES
@BOTH_WAYS
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_sample_is_named_and_its_neighbours_are_not(network: Any, kind: str, packs: bool, value: float) -> None:
    """A NaN would spread into every mean and every score; the sample that has it can be looked at."""
    poison(network, BATCH[1], value)

    with pytest.raises(NumericalError, match=r"layer 0, for 1 of 3 samples of a batch: middle\. ") as raised:
        read(network, BATCH, kind, packs=packs)

    assert f"at site '{kind}'" in str(raised.value)
    assert "Nothing was stored" in str(raised.value)
    assert "model.dtype: float32" in str(raised.value)


@BOTH_WAYS
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_sample_is_named_behind_a_projector_too(network: Any, packs: bool, value: float) -> None:
    """A projection adds all layers up, and its strongest neurons are sorted: neither may hide a NaN."""
    poison(network, BATCH[1], value)

    with pytest.raises(NumericalError, match=r"layer 0, for 1 of 3 samples of a batch: middle\."):
        read(network, BATCH, keep_first_and_last=False, projectors={"all": a_projector()}, packs=packs)


def test_projection_that_overflows_fails_and_names_the_sample(network: Any) -> None:
    """A neuron that hardly varied in the calibration, yet does now, is infinitely many deviations away."""
    exact = a_projector()
    statistics = {
        layer: dataclasses.replace(found, mean=found.mean + 1e3, standard_deviation=0 * found.mean + np.float32(1e-37))
        for layer, found in exact.statistics.items()
    }
    overflowing = dataclasses.replace(exact, statistics=statistics)

    with pytest.raises(NumericalError, match="for 3 of 3 samples"):
        read(network, BATCH, keep_first_and_last=False, projectors={"all": overflowing})


@pytest.mark.parametrize("projector", [None, a_projector()])
@pytest.mark.parametrize("broken_before_the_trial", [True, False])
def test_broken_weight_is_said_with_its_layer_and_all_samples(
    network: Any, projector: Projector | None, broken_before_the_trial: bool
) -> None:
    """Then it is the model: float16 that overflows, or a damaged file."""
    settings: dict[str, Any] = {"keep_first_and_last": False, "projectors": {"all": projector} if projector else {}}
    given = None if broken_before_the_trial else reader(network, "mlp", **settings)
    with torch.no_grad():
        network.layers[1].mlp.up_proj.weight[5, 5] = torch.nan
    given = given or reader(network, "mlp", **settings)

    with pytest.raises(NumericalError, match=r"first in layer 1, for 3 of 3 samples .*: long, middle, short\."):
        next(given.read([BATCH]))


def test_layer_of_the_first_nan_is_named_by_its_number(network: Any) -> None:
    """Where only some layers are read, the first one read is not layer 0."""
    with torch.no_grad():
        network.layers[1].mlp.up_proj.weight.fill_(torch.inf)

    with pytest.raises(NumericalError, match=r"first in layer 1, for 3 of 3 samples .*: long, middle, short\."):
        read(network, BATCH, "mlp", (1,))


@pytest.mark.parametrize("ends", [True, False])
def test_infinity_in_the_first_token_alone_fails_too(network: Any, ends: bool) -> None:
    """float16 overflows there first; the mean leaves the token out, but the activation change subtracts it."""
    overflow = torch.zeros(1, 12, 1)
    overflow[:, 0] = torch.inf
    network.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] + overflow,))

    with pytest.raises(NumericalError, match=r"layer 1, for 1 of 1 samples of a batch: long\."):
        read(network, BATCH[:1], keep_first_and_last=ends, packs=True)


CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
NO_MEMORY = pytest.mark.parametrize(
    "error", [RuntimeError(CPU_MESSAGE), torch.OutOfMemoryError("CUDA out of memory."), MemoryError()]
)


def limit(network: Any, n_tokens: int, error: Exception) -> list[int]:
    """Let the network fail, in its second layer, where it is given more tokens; returns all numbers it was given."""
    tried: list[int] = []

    def allocate(_module: Any, inputs: Any) -> None:
        tried.append(inputs[0].shape[1])
        if tried[-1] > n_tokens:
            raise error

    network.layers[1].register_forward_pre_hook(allocate)
    return tried


@NO_MEMORY
def test_batch_that_does_not_fit_is_halved_and_gives_the_same(
    network: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A long tail of samples must not end an extraction of hours; the log says that the budget is too large."""
    whole = columns(network, BATCH, packs=True)
    tried = limit(network, 12, error)

    halved = columns(network, BATCH, packs=True)

    assert tried == [12 + 7 + 2, 12, 7 + 2]
    for name in whole:
        assert largest_error(halved[name], whole[name]) < 1e-6
    assert caplog.messages == ["a batch of 3 samples does not fit in memory: reading it in two halves"]
    assert n_hooks(network) == 1


@NO_MEMORY
@BOTH_WAYS
def test_sample_that_does_not_fit_alone_is_rejected_and_the_others_are_read(
    network: Any, error: Exception, packs: bool
) -> None:
    """One endless conversation must not stop a pool, and must not disappear from it without a word."""
    whole = columns(network, BATCH, packs=packs)
    limit(network, 9, error)

    reading = read(network, BATCH, packs=packs)

    assert names(reading) == ["middle", "short"]
    assert reading.rejected == (("long", "its 12 tokens do not fit in the memory of cpu by themselves"),)
    assert reading.pooled is not None
    for name, column in reading.pooled.columns.items():
        assert largest_error(column, whole[name][1:]) < 1e-6


def test_half_of_which_nothing_fits_does_not_stop_the_other_half(network: Any) -> None:
    """Batches are sorted by length, so the first half is where all may be too long."""
    limit(network, 9, MemoryError())
    batch = [sample("longest", 13), *BATCH]

    reading = read(network, batch, packs=True)

    assert names(reading) == ["middle", "short"]
    assert [name for name, _ in reading.rejected] == ["longest", "long"]


def test_single_sample_that_does_not_fit_is_rejected(network: Any) -> None:
    """A sample longer than the budget is a batch of its own, and no reason to stop the others."""
    limit(network, 9, MemoryError())

    with_short = list(reader(network, "mlp", packs=True).read([BATCH[:1], BATCH[2:]]))

    assert [names(reading) for reading in with_short] == [[], ["short"]]
    assert with_short[0].pooled is None
    assert [name for name, _ in with_short[0].rejected] == ["long"]


@NO_MEMORY
def test_memory_that_is_too_small_for_anything_says_what_to_do(network: Any, error: Exception) -> None:
    """To reject a whole pool, sample by sample, would take hours and help nobody."""
    limit(network, 1, error)

    with pytest.raises(MemoryError, match=r"not one of 3 samples of at most 12 tokens .* `extraction\.max_tokens`"):
        read(network, BATCH, packs=True)


def with_token(one: EncodedSample, token: int) -> EncodedSample:
    """The sample with another third token."""
    token_ids = one.token_ids.copy()
    token_ids[2] = token
    return EncodedSample(one.sample_id, token_ids, one.cut)


@BOTH_WAYS
def test_sample_at_which_the_model_fails_is_rejected_and_its_neighbours_are_read(
    network: Any, packs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that the model does not know is in one row; a GPU that is handed one is lost to the process."""
    whole = columns(network, BATCH, packs=packs)

    reading = read(network, [BATCH[0], with_token(BATCH[1], 400), BATCH[2]], packs=packs)

    assert names(reading) == ["long", "short"]
    assert reading.rejected == (
        ("middle", "the model fails on it: IndexError: token 400 is not among the model's 400"),
    )
    assert reading.pooled is not None
    for name, column in reading.pooled.columns.items():
        assert largest_error(column, whole[name][[0, 2]]) < 1e-6
    assert (
        "a batch of 3 samples fails (token 400 is not among the model's 400): reading them one by one"
        in caplog.messages
    )


def test_model_that_fails_on_every_sample_is_an_error(network: Any) -> None:
    """Then it is not the samples; the message is the model's own."""
    given = reader(network, "mlp")

    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="fails on every one of 3 samples: RuntimeError: mat1 and mat2 shapes"):
        next(given.read([BATCH]))


def test_batch_of_bad_samples_is_rejected_while_good_ones_can_still_be_read(network: Any) -> None:
    """Rows of one length may be bad together; hours of reading must not end there."""
    bad = [with_token(sample, 400) for sample in BATCH[:2]]

    first, second = reader(network, "mlp").read([BATCH, bad])

    assert names(first) == ["long", "middle", "short"]
    assert second.samples == ()
    assert second.pooled is None
    assert [name for name, _ in second.rejected] == ["long", "middle"]


def test_model_that_fails_from_some_moment_on_is_an_error(network: Any) -> None:
    """A GPU that is lost must not have the rest of the pool rejected."""
    given = reader(network, "mlp").read([BATCH, BATCH])
    next(given)

    def fail(*_: Any) -> None:
        raise RuntimeError("unspecified launch failure")

    network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="fails on every one of 3 samples"):
        next(given)


def test_mistake_in_a_program_is_not_taken_for_a_bad_sample(network: Any) -> None:
    """To try again sample by sample would hide what is wrong."""
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise TypeError("unexpected keyword argument")

    network.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(TypeError, match="unexpected keyword"):
        read(network, BATCH, packs=True)
    assert len(calls) == 1
