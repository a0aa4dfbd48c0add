"""A map of the candidates: those that activate the same neurons lie beside each other (arXiv 2603.13201, figure 6).

Belongs here: from activations to points in the plane. Does not belong here: which samples, and how they are drawn.
"""

from collections.abc import Iterable

import numpy as np
import polars as pl

MOST_CANDIDATES = 1_500
MOST_EXAMPLES = 40  # of a capability
N_COMPONENTS = 50
PERPLEXITY = 30.0
N_ITERATIONS = 500
SEED = 0


def sampled(sample_ids: pl.Series, most: int) -> list[str]:
    """At most so many of the ids, drawn by a fixed seed, in ascending order; the order they come in has no say."""
    ordered = sample_ids.sort()
    if len(ordered) > most:
        ordered = ordered[np.sort(np.random.default_rng(SEED).choice(len(ordered), size=most, replace=False))]
    return ordered.to_list()


def similarities(layers: Iterable[np.ndarray], n_candidates: int) -> np.ndarray:
    """`(n_points, n_points)` cosines between points, each neuron standardised against the candidates.

    The products of one layer are added up after the other, so that all neurons never lie in memory together.

    Args:
        layers: Activations of each layer, `(n_points, width)`, candidates first.
        n_candidates: How many of the points are candidates.
    """
    products: np.ndarray | None = None
    for activations in layers:
        values = np.array(activations, dtype=np.float32)
        spread = values[:n_candidates].std(axis=0, dtype=np.float64)
        values -= values[:n_candidates].mean(axis=0, dtype=np.float64).astype(np.float32)
        values *= np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-30).astype(np.float32)
        product = (values @ values.T).astype(np.float64)
        products = product if products is None else products + product
    assert products is not None, "no layer"
    lengths = np.sqrt(np.diag(products))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return products * np.outer(inverse, inverse)


def principal_components(products: np.ndarray, n_components: int) -> np.ndarray:
    """`(n_points, n_components)` coordinates whose inner products, centred, come closest to those given.

    It is a PCA of the points, which are known by their inner products alone. The largest coordinate of each component
    is positive: a sign that a library chose would be another one elsewhere.
    """
    from scipy.linalg import eigh

    n_points = len(products)
    means = products.mean(axis=0)
    centred = products - means[None, :] - means[:, None] + means.mean()
    kept = min(n_components, n_points)
    values, vectors = eigh(centred, subset_by_index=[n_points - kept, n_points - 1])
    coordinates = vectors[:, ::-1] * np.sqrt(np.clip(values[::-1], 0, None))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), np.arange(kept)])
    return coordinates * np.where(signs == 0, 1, signs)


def plane(components: np.ndarray) -> np.ndarray:
    """`(n_points, 2)` by t-SNE, seeded and begun from the first two components; those themselves for a few points."""
    n_points = len(components)
    if n_points < 8 or components.shape[1] < 2:
        return np.pad(components, ((0, 0), (0, 2)))[:, :2]
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    begin = components[:, :2] / (components[:, 0].std() or 1.0) * 1e-4
    with threadpool_limits(1):  # threads add up in another order each time
        return TSNE(
            perplexity=min(PERPLEXITY, (n_points - 1) / 3),
            init=begin.astype(np.float32),
            max_iter=N_ITERATIONS,
            random_state=SEED,
        ).fit_transform(components.astype(np.float32))


def coordinates(layers: Iterable[np.ndarray], n_candidates: int) -> np.ndarray:
    """`(n_points, 2)`: where each point lies on the map; arguments as for `similarities`."""
    return plane(principal_components(similarities(layers, n_candidates), N_COMPONENTS)).astype(np.float64).round(2)
