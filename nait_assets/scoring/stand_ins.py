"""Rows in the place of a capability's examples, and examples in the place of candidates, for methods that allow it.

Belongs here: what a method would read of them. Does not belong here: what is concluded from such scores (`chance`).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from nait_assets.extraction.activation_table import IN_DOMAIN_ACTIVATIONS
from nait_assets.scoring.method import Rows, ScoringInputs, StandIns, blocks_at
from nait_assets.scoring.rows import in_memory
from nait_assets.tables import STANDARDIZED_CENTROIDS

EXAMPLES = IN_DOMAIN_ACTIVATIONS
CENTROIDS = STANDARDIZED_CENTROIDS.asset


def pool_rows(inputs: ScoringInputs, places: Sequence[int]) -> Rows:
    """Candidates of a method's inputs, in the order of their places; their activations are read in one pass."""
    ids = [inputs.sample_ids[place] for place in places]
    activations: dict[int, np.ndarray] = {}
    for layer, rows, block in blocks_at(inputs.blocks_of(ids), places, len(inputs.sample_ids)):
        of_layer = activations.setdefault(layer, np.zeros((len(ids), block.shape[1]), dtype=np.float32))
        of_layer[rows] = block
    return Rows(ids, activations, in_memory(inputs.frames, ids))


def _centroid(rows: Rows, inputs: ScoringInputs) -> pl.DataFrame:
    layers = sorted(rows.activations)
    means = (rows.activations[layer].mean(axis=0, dtype=np.float64) for layer in layers)
    centroids = [
        inputs.statistics[layer].standardize(mean).astype(np.float32) for layer, mean in zip(layers, means, strict=True)
    ]
    vectors = pl.Series("centroid", centroids, dtype=pl.List(pl.Float32))
    return pl.DataFrame({"layer": layers, "centroid": vectors})


def _activations(rows: Rows, _inputs: ScoringInputs) -> pl.DataFrame:
    ids, layers = list(rows.sample_ids), sorted(rows.activations)
    vectors = [vector for layer in layers for vector in rows.activations[layer]]
    return pl.DataFrame(
        {
            "sample_id": ids * len(layers),
            "layer": [layer for layer in layers for _ in ids],
            "activation": pl.Series(vectors, dtype=pl.List(pl.Float32)),
        }
    )


def _examples_by_activations(inputs: ScoringInputs, capability: str) -> Rows | None:
    frame = inputs.by_capability.get(EXAMPLES, {}).get(capability)
    if frame is None:
        return None
    ordered = frame.sort("sample_id", "layer")
    ids = ordered["sample_id"].unique(maintain_order=True).to_list()
    activations = {}
    for (layer,), rows in ordered.group_by("layer", maintain_order=True):
        activations[int(str(layer))] = rows["activation"].explode().to_numpy().reshape(len(ids), -1)
    return Rows(ids, activations, {})


def by_centroid() -> StandIns:
    """Of a method that reads activations of candidates and `standardized_centroids` of capabilities."""
    return StandIns(CENTROIDS, _centroid, _examples_by_activations)


def by_activations() -> StandIns:
    """Of a method that looks for the nearest examples by activations."""
    return StandIns(EXAMPLES, _activations, _examples_by_activations, nearest=True)


def by_rows(candidates: str, examples: str, nearest: bool) -> StandIns:
    """Of a method that reads the same columns of candidates and of examples, one row each.

    Args:
        candidates: Key of the output about candidates.
        examples: Key of the output about examples.
        nearest: As in `StandIns`.
    """

    def capability(rows: Rows, _inputs: ScoringInputs) -> pl.DataFrame:
        return rows.frames[candidates]

    def examples_of(inputs: ScoringInputs, name: str) -> Rows | None:
        frame = inputs.by_capability[examples][name].sort("sample_id")
        return Rows(frame["sample_id"].to_list(), {}, {candidates: frame})

    return StandIns(examples, capability, examples_of, nearest)
