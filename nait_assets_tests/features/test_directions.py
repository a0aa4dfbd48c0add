"""NAIT's direction against a singular value decomposition in float64."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from nait_assets.features.directions import activation_change, principal_direction


def changes(n_samples: int = 12, width: int = 5, mean: float = 1.0) -> np.ndarray:
    """Changes of which one direction has most of the variance."""
    random = np.random.default_rng(0)
    along = random.normal(size=(n_samples, 1)) * np.linspace(-1, 1, width) * 4
    return (random.normal(mean, 1, (n_samples, width)) + along).astype(np.float32)


def literal_direction(change: np.ndarray) -> tuple[np.ndarray, float]:
    """Eq. 3 and 4, word for word: first right singular vector of the centred changes, turned towards their mean."""
    exact = change.astype(np.float64)
    _, singular_values, vectors = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)
    direction = vectors[0]
    if np.mean([sample @ direction for sample in exact]) < 0:
        direction = -direction
    return direction, singular_values[0] ** 2 / (singular_values**2).sum()


@pytest.mark.parametrize("shape", [(12, 5), (3, 40), (2, 4)], ids=str)
def test_direction_is_the_first_singular_vector_of_the_centred_changes(shape: tuple[int, int]) -> None:
    """More neurons than samples is the usual case: 64 examples, thousands of neurons."""
    change = changes(*shape)
    direction, explained = principal_direction(change)
    expected, expected_share = literal_direction(change)
    np.testing.assert_allclose(direction, expected, atol=1e-6)
    assert explained == pytest.approx(expected_share, rel=1e-9)
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-6)
    assert direction.dtype == np.float32


def test_sign_of_direction_follows_mean_change() -> None:
    """A principal component has no sign of its own; with the wrong one the worst candidates come first."""
    change = changes(mean=3.0)
    direction, _ = principal_direction(change)
    opposite, _ = principal_direction(-change)
    assert direction @ change.mean(axis=0) > 0
    np.testing.assert_allclose(opposite, -direction, atol=1e-7)


def test_direction_is_that_of_variance_not_of_the_mean_change() -> None:
    """The paper's rule: all examples move by 100 along the first neuron, and differ along the second."""
    change = np.array([[100, -1], [100, 0], [100, 4]])
    direction, explained = principal_direction(change)
    np.testing.assert_allclose(direction, [0, 1], atol=1e-7)
    assert explained == pytest.approx(1)


def test_explained_variance_is_the_share_along_the_direction() -> None:
    """Variances 16 and 4 along two neurons: the first has 80 %."""
    change = np.array([[5, 0], [-3, 0], [1, 2], [1, -2]])
    _, explained = principal_direction(change)
    assert explained == pytest.approx(0.8)


def test_a_large_common_change_does_not_drown_the_direction() -> None:
    """The first token's activations are enormous; in float32 the variance beside them would be rounding error."""
    change = np.array([[1e6, -1.0], [1e6, 0.5], [1e6 + 0.25, 2.0]], np.float32)
    direction, _ = principal_direction(change)
    np.testing.assert_allclose(direction, literal_direction(change)[0], atol=1e-6)


@pytest.mark.parametrize("change", [np.full((4, 3), 0.1), np.zeros((2, 3)), np.ones((1, 3))], ids=["equal", "0", "one"])
def test_changes_that_are_equal_have_no_direction(change: np.ndarray) -> None:
    """PCA would return an arbitrary unit vector, and every candidate would get a score from it."""
    with pytest.raises(
        ValueError, match=rf"all {len(change)} example\(s\) are equal.*let the method read the `pool` all"
    ):
        principal_direction(change)


def test_paper_eq_6_read_literally_is_a_zero_vector() -> None:
    """The trap of the paper's first version: PCA centres, so the centroid of the examples' scores is nothing at all."""
    change = changes(mean=3.0).astype(np.float64)
    pca = PCA(n_components=2).fit(change)
    centroid = pca.transform(change).mean(axis=0)
    np.testing.assert_allclose(centroid, 0, atol=1e-12)
    np.testing.assert_allclose(centroid @ pca.components_, 0, atol=1e-12)
    assert np.linalg.norm(principal_direction(change)[0]) == pytest.approx(1, abs=1e-6)


def test_activation_change_is_last_minus_first_or_mean_minus_first() -> None:
    """Eq. 2 of the final paper, and what the text of its first version describes."""
    mean, first, last = np.array([[5.0, 6.0]]), np.array([[1.0, 2.0]]), np.array([[10.0, 30.0]])
    np.testing.assert_array_equal(activation_change("last_minus_first", mean, first, last), [[9, 28]])
    np.testing.assert_array_equal(activation_change("mean_minus_first", mean, first, last), [[4, 4]])
