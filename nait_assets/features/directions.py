"""The NAIT direction of a capability: the principal direction of its activation changes (arXiv 2603.13201, eq. 2-4).

Trap: eq. 6 of the first version, the centroid of the examples' scores in a centred PCA, is a vector of zeros. The final
version takes the first principal component itself and lets the mean change fix its sign.
"""

from typing import Literal

import numpy as np

ChangeKind = Literal["last_minus_first", "mean_minus_first"]
LEAST_CHANGING = 2
"""Examples that change: of a single one the first component would be that one's change."""

OF_ONE_TOKEN = "In answers of one token the first is the last, and nothing changes: let the method read the `pool` all"


def activation_change(kind: ChangeKind, mean: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """`(n_samples, width)` change of activation over each example.

    Eq. 2: the last token's activation less the first token's. The text of the paper's first version describes the mean
    over the tokens less the first token's instead.

    Args:
        kind: Which of the two changes.
        mean: Mean over the pooling's tokens, `(n_samples, width)`.
        first: Activations of their first token, same shape; of the pooling `all`, of the sample's, which is no part of
            the mean.
        last: Activations of their last token, same shape.
    """
    return (last if kind == "last_minus_first" else mean) - first


def principal_direction(change: np.ndarray) -> tuple[np.ndarray, float]:
    """The unit vector `(width,)` along which the changes vary most, pointing where they go on average (eq. 3 and 4).

    Args:
        change: `(n_samples, width)`, at least two samples.

    Returns:
        The direction, float32, and the share of the changes' variance along it.

    Raises:
        ValueError: The changes do not vary, or but one is a change, so that no direction is theirs.
    """
    from sklearn.decomposition import PCA

    change = np.asarray(change, dtype=np.float64)
    if np.ptp(change, axis=0).max(initial=0.0) == 0:
        raise ValueError(
            f"the activation changes of all {len(change)} example(s) are equal: they have no principal component. "
            f"{OF_ONE_TOKEN}"
        )
    n_changing = int(change.any(axis=1).sum())
    if n_changing < LEAST_CHANGING:
        raise ValueError(f"of {len(change)} examples the activations of {n_changing} change. {OF_ONE_TOKEN}")
    pca = PCA(n_components=1, svd_solver="full").fit(change)
    direction = pca.components_[0]
    if direction @ change.mean(axis=0) < 0:
        direction = -direction
    return (direction / np.linalg.norm(direction)).astype(np.float32), float(pca.explained_variance_ratio_[0])
