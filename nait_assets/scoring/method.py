"""What a method is, and how its scores become ranks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.tables import Table

Block = tuple[int, np.ndarray, np.ndarray]
"""Layer, places of samples `(n,)`, their activations `(n, width)`."""


@dataclass(frozen=True)
class ScoringInputs:
    """What a method may read.

    Attributes:
        sample_ids: Candidates, in ascending order; a block's places count along this list.
        blocks: The candidates' activations, to be read once; empty for a method without a feature.
        features: By target, and by capability of the target: the feature's rows, one per layer.
        statistics: By layer, over the pool; empty for a method that does not standardise.
        seed: The recipe's.
    """

    sample_ids: list[str]
    blocks: Iterable[Block]
    features: dict[str, dict[str, pl.DataFrame]]
    statistics: dict[int, NeuronStatistics]
    seed: int


@dataclass(frozen=True)
class Method:
    """A way to score candidates.

    Attributes:
        name: In recipes, asset keys and tables.
        description: Shown in Dagster.
        score: From inputs to `(n_candidates, n_targets)` float64, higher is better, targets as the features have them.
            A target's scores do not depend on the other targets.
        feature: The table of the feature that it reads, or None if it reads no activations.
        standardizes: Whether it reads the pool's neuron statistics.
    """

    name: str
    description: str
    score: Callable[[ScoringInputs], np.ndarray]
    feature: Table | None = None
    standardizes: bool = False


def stacked(vectors: Sequence[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Vectors of several targets, by layer `(width,)`, as one matrix for each layer, `(n_targets, width)`."""
    return {layer: np.stack([by_layer[layer] for by_layer in vectors]) for layer in vectors[0]}


def ranked(sample_ids: list[str], scores: np.ndarray) -> pl.DataFrame:
    """Scores with their ranks: 1 is the best, ties go to the smaller `sample_id`.

    Args:
        sample_ids: Distinct.
        scores: `(n_candidates,)`, in their order.

    Returns:
        Columns `sample_id`, `score`, `rank`, best first.

    Raises:
        ValueError: A score is NaN or infinite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        broken = [sample_ids[place] for place in np.flatnonzero(~np.isfinite(scores))[:10]]
        raise ValueError(f"scores are NaN or infinite for sample(s) {', '.join(broken)}")
    frame = pl.DataFrame(
        {"sample_id": sample_ids, "score": scores}, schema={"sample_id": pl.String, "score": pl.Float64}
    )
    return frame.sort(["score", "sample_id"], descending=[True, False]).with_columns(
        rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    )
