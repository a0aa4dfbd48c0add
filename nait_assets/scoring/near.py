"""The in-domain examples that a candidate is nearest to, by activations.

Belongs here: cosines of one candidate with examples. Does not belong here: scores by example (`reasons`), and texts of
the examples, which those read who show them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nait_assets.scoring.method import ExampleActivations, Near, ScoringInputs

Vectors = Callable[[Mapping[int, np.ndarray]], np.ndarray]
"""From activations by layer, `(n, width)` each, to the vectors that a method compares, `(n, d)`."""


def nearest_by_activations(
    inputs: ScoringInputs, sample_id: str, target: str, n: int, vectors: Vectors, what: str
) -> dict[str, Any]:
    """The examples of a target with the largest cosines to a candidate.

    What is compared of all examples of the target stays in memory beside their activations, for the next candidate.

    Args:
        inputs: With `examples`, and the candidate among its blocks.
        sample_id: The candidate.
        target: A capability, or `all`.
        n: How many.
        vectors: What of the activations is compared.
        what: What the cosines are of, in words.

    Returns:
        Fields `near`, `nearness` and `usual` of an explanation, ties in the order of `sample_id`; nothing where the
        target has no examples.
    """
    own = _units(vectors({layer: row[None] for layer, row in inputs.activations_of(sample_id).items()}))[0]
    found: list[Near] = []
    among: list[np.ndarray] = []
    for capability in inputs.targets[target]:
        if capability in inputs.examples:
            examples = inputs.examples[capability]
            rows, others = inputs.once(("near", capability), partial(_examples, examples, vectors))
            found += map(Near, examples.sample_ids, [capability] * len(rows), (rows @ own).tolist())
            among.append(others)
    if not found:
        return {}
    usual, to_others = mean_of(found), np.concatenate(among)
    if len(to_others):
        usual += f"; the median example has {np.median(to_others):+.3f} to its nearest other example"
    nearest = sorted(found, key=lambda one: (-one.value, one.sample_id))[:n]
    return {"near": nearest, "nearness": what, "usual": usual}


def _examples(examples: ExampleActivations, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """`(n, d)` unit vectors of a capability's examples, and their cosines to the nearest other one."""
    rows = _units(vectors(examples.by_layer))
    return rows, nearest_others(rows)


def mean_of(found: Sequence[Near]) -> str:
    """How near a candidate is to all examples on average, in words."""
    return f"it has {np.mean([one.value for one in found]):+.3f} on average to all {len(found)} examples"


def nearest_others(units: np.ndarray) -> np.ndarray:
    """`(n,)` cosines of each of `(n, d)` unit vectors to the nearest other one; none of a single vector."""
    if len(units) < 2:
        return np.empty(0)
    cosines = (units @ units.T).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.max(axis=1))


def _units(vectors: np.ndarray) -> np.ndarray:
    """`(n, d)` vectors over their norms; zeros stay."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
