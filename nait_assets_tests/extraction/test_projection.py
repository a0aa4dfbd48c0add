"""The projection and the strongest neurons against their definitions, written out in float64."""

import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from nait_assets.extraction.projection import N_STRONGEST, Projector, counted_signs, leading_components, signs
from nait_assets.extraction.statistics import NeuronStatistics

N_SAMPLES = 6


def network(*widths: int, n_samples: int = N_SAMPLES) -> tuple[dict[int, NeuronStatistics], dict[int, np.ndarray]]:
    """Statistics and mean activations of layers 3, 4, ... of these widths; the first neuron of each never varies."""
    random = np.random.default_rng(sum(widths))
    statistics, activations = {}, {}
    for layer, width in enumerate(widths, start=3):
        deviation = random.uniform(0.1, 5, width).astype(np.float32)
        deviation[0] = 0
        statistics[layer] = NeuronStatistics(random.normal(2, 3, width).astype(np.float32), deviation)
        activations[layer] = random.normal(2, 4, (n_samples, width)).astype(np.float32)
    return statistics, activations


def literal_z(statistics: Mapping[int, NeuronStatistics], activations: Mapping[int, np.ndarray]) -> np.ndarray:
    """Standardised activations of all layers, in their order, `(n_samples, n_neurons)`."""
    rows = []
    for sample in range(len(next(iter(activations.values())))):
        row: list[float] = []
        for layer, layer_activations in activations.items():
            for neuron, value in enumerate(layer_activations[sample]):
                deviation = float(statistics[layer].standard_deviation[neuron])
                difference = float(value) - float(statistics[layer].mean[neuron])
                row.append(difference / deviation if deviation else 0.0)
        rows.append(row)
    return np.array(rows)


def literal_projection(
    statistics: Mapping[int, NeuronStatistics], activations: Mapping[int, np.ndarray], dimensions: int, seed: int
) -> np.ndarray:
    """S z / sqrt(d), with one matrix S over the neurons of all layers."""
    matrix = np.concatenate([signs(seed, layer, a.shape[1], dimensions) for layer, a in activations.items()])
    return literal_z(statistics, activations) @ matrix.astype(np.float64) / np.sqrt(dimensions)


def strongest(projector: Projector, activations: Mapping[int, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Layers, numbers and values of the strongest neurons, each `(n_samples, n)`."""
    batch = projector.to(torch.device("cpu")).start()
    for layer, means in activations.items():
        batch.add(layer, torch.from_numpy(means))
    columns = batch.columns()
    return tuple(columns[f"strongest_{name}"][:, 0].numpy() for name in ("layer", "neuron", "value"))


@pytest.mark.parametrize(
    ("arguments", "digest"),
    [((0, 3, 48, 32), "c8f744a1b1e7fd8c"), ((7, 0, 5, 17), "f66e24ed081f8569")],
    ids=["whole bytes", "a part of a byte"],
)
def test_signs_are_the_same_for_ever(arguments: tuple[int, int, int, int], digest: str) -> None:
    """A home that is kept for years, and the workers of one run, must not mix two projections."""
    drawn = signs(*arguments)
    assert drawn.shape == arguments[2:]
    assert drawn.dtype == np.int8
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


def test_signs_are_drawn_anew_for_every_seed_and_layer() -> None:
    """With the same signs in two layers, neuron 5 of one would cancel neuron 5 of the other in every dimension."""
    draws = [signs(seed, layer, 100, 64).astype(float).ravel() for seed in (0, 1) for layer in (0, 1)]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 4 / np.sqrt(draws[0].size)


def test_signs_are_plus_or_minus_one_and_balanced_in_every_dimension() -> None:
    """A dimension of more plus than minus would see what all neurons share, which is mostly length."""
    drawn = signs(0, 0, 4096, 16)
    assert set(np.unique(drawn)) == {-1, 1}
    assert np.abs(drawn.mean(axis=0)).max() < 4 / np.sqrt(4096)
    correlations = np.corrcoef(drawn.T.astype(float)) - np.eye(16)
    assert np.abs(correlations).max() < 4 / np.sqrt(4096)


def literal_sign(seed: int, row: int, column: int, dimensions: int) -> int:
    """A bit of splitmix64, as published, by Python's numbers."""
    most = (1 << 64) - 1
    key = int.from_bytes(hashlib.sha256(f"{seed}:{dimensions}".encode()).digest()[:8], "little")
    word = ((row * -(-dimensions // 64) + column // 64) * 0x9E3779B97F4A7C15 + key) & most
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & most
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & most
    return 2 * (((word ^ (word >> 31)) >> (column % 64)) & 1) - 1


@pytest.mark.parametrize(("first", "dimensions"), [(0, 64), (5, 130), (2_000_000_011, 16)])
def test_counted_signs_are_the_bits_of_splitmix64(first: int, dimensions: int) -> None:
    """The same on every machine, with every version of torch, and of rows whose numbers exceed 32 bits."""
    found = counted_signs(3, first, 4, dimensions, torch.device("cpu"))
    expected = [[literal_sign(3, first + row, column, dimensions) for column in range(dimensions)] for row in range(4)]
    assert found.dtype == torch.int8
    assert found.tolist() == expected


def test_counted_signs_do_not_depend_on_the_blocks_that_they_are_made_in() -> None:
    """A machine with less memory makes smaller blocks."""
    whole = counted_signs(0, 0, 1000, 100, torch.device("cpu"))
    parts = [counted_signs(0, first, min(7, 1000 - first), 100, torch.device("cpu")) for first in range(0, 1000, 7)]
    assert torch.equal(torch.cat(parts), whole)


def test_counted_signs_are_fair_and_independent() -> None:
    """Of rows, columns, seeds and numbers of dimensions alike: products of distinct ones are about zero."""
    one = counted_signs(0, 0, 2048, 64, torch.device("cpu")).double()
    others = [counted_signs(1, 0, 2048, 64, torch.device("cpu")), counted_signs(0, 0, 2048, 65, torch.device("cpu"))]
    assert one.mean().abs() < 5 * one.numel() ** -0.5
    for other in (*(other[:, :64].double() for other in others), one.roll(1, 0), one.roll(1, 1)):
        assert (one * other).mean().abs() < 5 * one.numel() ** -0.5
    products = one.T @ one / 2048
    assert (products - torch.eye(64)).abs().max() < 6 * 2048**-0.5


@pytest.mark.parametrize("widths", [(48, 48), (7,), (5, 3, 30)], ids=str)
@pytest.mark.parametrize("dimensions", [16, 33])
def test_projection_is_signs_times_standardised_neurons_over_the_root_of_the_dimensions(
    widths: tuple[int, ...], dimensions: int
) -> None:
    """Over all layers, whatever their number and width; a number of dimensions that fills no byte is no special one."""
    statistics, activations = network(*widths)
    found = Projector(statistics, dimensions, seed=5).project(activations)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, literal_projection(statistics, activations, dimensions, 5), rtol=1e-5, atol=1e-4)


def test_order_of_layers_does_not_matter() -> None:
    """A network may call its modules in another order than that of their numbers."""
    statistics, activations = network(48, 48)
    projector = Projector(statistics, 16, 0)
    backwards = dict(reversed(activations.items()))
    np.testing.assert_allclose(projector.project(backwards), projector.project(activations), rtol=1e-5, atol=1e-5)
    for found, expected in zip(strongest(projector, backwards), strongest(projector, activations), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_neuron_that_never_varied_adds_nothing() -> None:
    """Its distance in standard deviations is undefined; infinity would be in every dimension of every sample."""
    statistics, activations = network(8)
    projector = Projector(statistics, 16, 0)
    before = projector.project(activations)
    activations[3][:, 0] = 1e6
    np.testing.assert_array_equal(projector.project(activations), before)


def test_a_sample_at_the_mean_is_projected_to_zero() -> None:
    """Where the calibration sample lies is the origin, from which cosines are measured."""
    statistics, _ = network(8, 9)
    means = {layer: found.mean[None] for layer, found in statistics.items()}
    np.testing.assert_array_equal(Projector(statistics, 16, 0).project(means), np.zeros((1, 16)))


def test_projection_of_a_mean_is_the_mean_of_projections() -> None:
    """Why the mean activation in a feature file serves a home that keeps projections."""
    statistics, activations = network(8, 9)
    projector = Projector(statistics, 16, 0)
    means = {layer: found.mean(axis=0, keepdims=True) for layer, found in activations.items()}
    expected = projector.project(activations).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(projector.project(means), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dimensions", [64, 1024])
def test_cosines_are_kept_within_one_over_the_root_of_the_dimensions(dimensions: int) -> None:
    """The lemma of Johnson and Lindenstrauss, on which it rests that a projection ranks as the neurons do."""
    statistics, activations = network(300, 300, n_samples=30)
    shared = np.random.default_rng(1).normal(0, 4, 300).astype(np.float32)
    activations = {  # some samples resemble each other, as those of a capability do
        layer: found + np.linspace(0, 2, 30, dtype=np.float32)[:, None] * shared for layer, found in activations.items()
    }

    def cosines(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(30, 1)]

    exact = cosines(literal_z(statistics, activations))
    errors = cosines(Projector(statistics, dimensions, 0).project(activations)) - exact
    assert exact.max() - exact.min() > 0.5
    assert np.sqrt((errors**2).mean()) < 1 / np.sqrt(dimensions)
    assert np.abs(errors).max() < 4 / np.sqrt(dimensions)


@pytest.mark.parametrize("widths", [(48, 48), (200,), (5, 3), (70, 2, 30)], ids=str)
def test_strongest_neurons_are_those_of_a_full_sort_over_all_layers(widths: tuple[int, ...]) -> None:
    """Farthest from the mean on either side, at most 64, in order; every neuron of a network that has fewer."""
    statistics, activations = network(*widths)
    z = literal_z(statistics, activations)
    numbers = [(layer, neuron) for layer, found in activations.items() for neuron in range(found.shape[1])]
    layers, neurons, values = strongest(Projector(statistics, 16, 0), activations)
    n = min(N_STRONGEST, sum(widths))
    assert values.shape == layers.shape == neurons.shape == (N_SAMPLES, n)
    for sample in range(N_SAMPLES):
        order = np.argsort(-np.abs(z[sample]), kind="stable")[:n]
        order = order[z[sample][order] != 0]  # those that never vary come last, in any order
        found = list(zip(layers[sample].tolist(), neurons[sample].tolist(), strict=True))
        assert found[: len(order)] == [numbers[place] for place in order]
        np.testing.assert_allclose(values[sample][: len(order)], z[sample][order], rtol=1e-4)
        np.testing.assert_array_equal(values[sample][len(order) :], 0)
        assert len(set(found)) == n


def test_strongest_neurons_of_a_sample_do_not_depend_on_the_batch() -> None:
    """Else an explanation would depend on what happened to be read beside it."""
    statistics, activations = network(48, 48)
    projector = Projector(statistics, 16, 0)
    together = strongest(projector, activations)
    for sample in range(N_SAMPLES):
        alone = strongest(projector, {layer: found[[sample]] for layer, found in activations.items()})
        for part, whole in zip(alone, together, strict=True):
            np.testing.assert_array_equal(part[0], whole[sample])


def with_components(
    statistics: Mapping[int, NeuronStatistics], n: int, n_samples: int = 40
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Components of a sample that varies most in five directions: by layer, and as one matrix over all layers."""
    widths = [len(found.mean) for found in statistics.values()]
    random = np.random.default_rng(9)
    sample = random.normal(size=(n_samples, 5)) @ random.normal(0, 3, (5, sum(widths)))
    sample += random.normal(size=sample.shape)
    parts = np.split(sample.astype(np.float32), np.cumsum(widths)[:-1], axis=1)
    components = leading_components(dict(zip(statistics, parts, strict=True)), n)
    return components, np.concatenate(list(components.values()), axis=1).astype(np.float64)


@pytest.mark.parametrize("widths", [(48, 48), (5, 3, 30)], ids=str)
def test_components_are_kept_as_they_are_and_the_rest_is_projected(widths: tuple[int, ...]) -> None:
    """[V z, w S (z - V'V z) / sqrt(r)], with matrices over the neurons of all layers."""
    statistics, activations = network(*widths)
    components, matrix = with_components(statistics, n=4)
    found = Projector(statistics, 16, 5, components).project(activations)
    z = literal_z(statistics, activations)
    inside = np.array([[sum(v * x) for v in matrix] for x in z])
    drawn = np.concatenate([signs(5, layer, a.shape[1], 12) for layer, a in activations.items()]).astype(np.float64)
    outside = 0.7 * (z - inside @ matrix) @ drawn / np.sqrt(12)
    assert found.shape == (N_SAMPLES, 16)
    np.testing.assert_allclose(found, np.concatenate([inside, outside], axis=1), rtol=1e-4, atol=1e-3)


def test_inner_products_within_the_components_are_exact() -> None:
    """What candidates have in common, and differ in most, must not drown in the error of a random projection."""
    statistics, _ = network(48, 48)
    components, matrix = with_components(statistics, n=4)
    z = np.random.default_rng(0).normal(size=(N_SAMPLES, 4)) @ matrix
    activations = {}
    for layer, part in zip(statistics, np.split(z, 2, axis=1), strict=True):
        part[:, 0] = 0  # the neuron that never varies
        activations[layer] = (part * statistics[layer].standard_deviation + statistics[layer].mean).astype(np.float32)
    for values in components.values():
        values[:, 0] = 0
    found = Projector(statistics, 16, 0, components).project(activations)
    inside = literal_z(statistics, activations) @ np.concatenate(list(components.values()), axis=1).T
    np.testing.assert_allclose(found[:, :4], inside, atol=1e-5)
    np.testing.assert_allclose(found[:, :4] @ found[:, :4].T, inside @ inside.T, atol=1e-4)


def test_components_make_cosines_more_exact() -> None:
    """The random part errs by the norm of what it is given, and the components take most of that away."""
    statistics, activations = network(300, 300, n_samples=30)
    components, matrix = with_components(statistics, n=8)
    along = np.random.default_rng(1).normal(0, 300, (30, 5)) @ matrix[:5]
    for layer, part in zip(statistics, np.split(along, 2, axis=1), strict=True):
        activations[layer] += (part * statistics[layer].standard_deviation).astype(np.float32)

    def cosines(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(30, 1)]

    exact = cosines(literal_z(statistics, activations))
    random, both = (
        np.abs(cosines(Projector(statistics, 64, 0, chosen).project(activations)) - exact).mean()
        for chosen in ({}, components)
    )
    assert both < random / 2


@pytest.mark.parametrize("n", [1, 4])
def test_leading_components_are_those_of_a_singular_value_decomposition(n: int) -> None:
    """Over all layers at once, up to their signs; an inner product does not see a sign."""
    random = np.random.default_rng(0)
    z = random.normal(size=(9, 30)) * np.linspace(3, 1, 30)
    components = leading_components({2: z[:, :20].astype(np.float32), 5: z[:, 20:].astype(np.float32)}, n)
    assert {layer: found.shape for layer, found in components.items()} == {2: (n, 20), 5: (n, 10)}
    assert {found.dtype for found in components.values()} == {np.dtype(np.float32)}
    found = np.concatenate(list(components.values()), axis=1)
    expected = np.linalg.svd(z, full_matrices=False)[2][:n]
    np.testing.assert_allclose(np.abs((found * expected).sum(axis=1)), 1, atol=1e-5)


def test_there_are_no_more_components_than_the_samples_span() -> None:
    """A component of rounding error would be scaled to unit length like any other."""
    z = np.random.default_rng(0).normal(size=(6, 30)).astype(np.float32)
    assert len(leading_components({0: z - z.mean(axis=0)}, 10)[0]) == 5
    assert len(leading_components({0: np.zeros((6, 30), np.float32)}, 10)[0]) == 0


def test_a_projection_without_components_is_all_random() -> None:
    """As after a calibration of samples that are all the same."""
    statistics, activations = network(8, 9)
    none = {layer: np.zeros((0, found.shape[1]), np.float32) for layer, found in activations.items()}
    found = Projector(statistics, 16, 0, none).project(activations)
    np.testing.assert_array_equal(found, Projector(statistics, 16, 0).project(activations))
