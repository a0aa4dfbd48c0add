"""Faces of neurons: the rows that drive a neuron most, against a sort in NumPy."""

import numpy as np
import pytest

from nait_assets.extraction import activation_table
from nait_assets.resources import Warehouse
from nait_assets.scoring.faces import faces
from nait_assets.scoring.method import Face
from nait_assets_tests.small_home import LAYERS, UNREAD, WIDTH, activations, candidates

IDS = [name for name in candidates()["sample_id"].to_list() if name != UNREAD]


def literal(layer: int, neuron: int, inverted: bool, n: int) -> list[tuple[str, float]]:
    """The n most or least active rows, in standard deviations of the nine."""
    values = activations()[layer][:, neuron].astype(np.float64)
    scaled = (values - values.mean()) / values.std()
    order = np.argsort(scaled if inverted else -scaled)[:n]
    return [(IDS[place], float(scaled[place])) for place in order]


@pytest.mark.parametrize("inverted", [False, True])
def test_faces_are_the_rows_on_which_a_neuron_is_most_active(small_home: Warehouse, inverted: bool) -> None:
    """Or least, of a neuron that speaks for a row by its silence; each neuron by its own mean and spread."""
    wanted = {(layer, neuron): inverted for layer in LAYERS for neuron in range(WIDTH)}
    with activation_table.activations_of(small_home, "candidates").snapshot() as snapshot:
        found = faces(snapshot, wanted, "none", n=3)
    assert set(found) == set(wanted)
    for (layer, neuron), rows in found.items():
        expected = literal(layer, neuron, inverted, 3)
        assert [face.sample_id for face in rows] == [name for name, _ in expected]
        assert [face.deviations for face in rows] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_the_row_that_is_asked_about_is_shown_behind_those_that_drive_the_neuron(small_home: Warehouse) -> None:
    """To see whether it is one of them; it is not there twice, and a row that was not read is not there."""
    (best, *_), (worst, deviations) = literal(5, 1, False, 1)[0], literal(5, 1, False, 9)[-1]
    with activation_table.activations_of(small_home, "candidates").snapshot() as snapshot:
        of_worst, of_best, of_unread = (
            faces(snapshot, {(5, 1): False}, name, n=2)[5, 1] for name in (worst, best, UNREAD)
        )
    assert of_worst[-1] == Face(worst, pytest.approx(deviations, rel=1e-5))
    assert len(of_worst) == 3
    assert of_best == of_unread == of_worst[:2]


def test_nothing_is_asked_of_no_neurons(small_home: Warehouse) -> None:
    """A method whose reasons are words has none."""
    with activation_table.activations_of(small_home, "candidates").snapshot() as snapshot:
        assert faces(snapshot, {}, "c1") == {}
