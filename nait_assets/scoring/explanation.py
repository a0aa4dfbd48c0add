"""Why a candidate scores as it does: its score and rank by each method, and the neurons that matter most."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from nait_assets.errors import NotFoundError, WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.extraction.projection import NETWORK
from nait_assets.extraction.statistics import NeuronStatistics, by_layer
from nait_assets.recipe import POOL, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.methods.nait_standardized import combined_centroids
from nait_assets.tables import CANDIDATE_POOL, NEURON_STATISTICS, STANDARDIZED_CENTROIDS


def contributions(
    activations: Mapping[int, np.ndarray],
    statistics: Mapping[int, NeuronStatistics],
    centroids: Mapping[int, np.ndarray],
    n: int,
) -> pl.DataFrame:
    """The neurons that contribute most to a sample's `nait_standardized` score.

    Args:
        activations: Of the sample, by layer, `(width,)`.
        statistics: Of the pool, by layer.
        centroids: Of the target, by layer, `(width,)`.
        n: How many neurons.

    Returns:
        Columns `layer`, `neuron`, `standardized_activation`, `centroid`, `contribution`, the largest first; all
        contributions of all neurons add up to the score.
    """
    layers = sorted(centroids)
    sample = np.stack([statistics[layer].standardize(activations[layer]) for layer in layers]).astype(np.float64)
    target = np.stack([centroids[layer] for layer in layers]).astype(np.float64)
    norm = np.linalg.norm(sample) * np.linalg.norm(target)
    shares = sample * target / norm if norm else np.zeros_like(sample)
    places = np.argsort(-shares, axis=None, kind="stable")[:n]
    rows, neurons = np.unravel_index(places, shares.shape)
    return pl.DataFrame(
        {
            "layer": np.asarray(layers)[rows],
            "neuron": neurons,
            "standardized_activation": sample[rows, neurons],
            "centroid": target[rows, neurons],
            "contribution": shares[rows, neurons],
        }
    )


def find_candidate(snapshot: Snapshot, sample_id: str) -> dict[str, Any]:
    """A candidate by a unique beginning of its id, columns of `tables.EXAMPLE`.

    Raises:
        NotFoundError: No candidate has it, or several begin so.
        WarehouseError: The pool has not been materialized.
    """
    pool = snapshot.read(CANDIDATE_POOL).filter(pl.col("sample_id").str.starts_with(sample_id))
    if len(pool) != 1:
        found = f"{len(pool)} samples begin so" if len(pool) else "no candidate has it"
        raise NotFoundError(
            f"sample id {sample_id!r}: {found} in {snapshot.path}. "
            "Ids are in scoring.scores and in every subset's train.jsonl."
        )
    return pool.row(0, named=True)


def explain(recipe: Recipe, warehouse: Warehouse, sample_id: str, target: str, n_neurons: int) -> str:
    """The text that `nait explain` prints.

    Raises:
        NotFoundError: There is no such target or sample, or several samples begin so.
        WarehouseError: Nothing has been materialized, or with a projection where the recipe has none, or the reverse.
    """
    if target not in recipe.targets:
        raise NotFoundError(f"{recipe.path} has no target {target!r}; its targets are {', '.join(recipe.targets)}.")
    with warehouse.tables.snapshot() as snapshot:
        sample = find_candidate(snapshot, sample_id)
        query = """
            SELECT method, score, rank, n_candidates, reason FROM (
                SELECT *, count(*) OVER (PARTITION BY method) AS n_candidates FROM scoring.scores WHERE target = ?
            ) WHERE sample_id = ? ORDER BY method
        """
        scores = (
            snapshot.connection.execute(query, [target, sample["sample_id"]]).fetchall()
            if snapshot.has_table("scoring.scores")
            else []
        )
        centroids, statistics = {}, {}
        if "nait_standardized" in recipe.methods and not recipe.extraction.projection:
            features = {
                capability: snapshot.read(STANDARDIZED_CENTROIDS, capability=capability)
                for capability in recipe.capabilities_of(target)
            }
            centroids, statistics = combined_centroids(features), by_layer(snapshot.read(NEURON_STATISTICS))
    lines = [
        f"sample {sample['sample_id']}, row {sample['source_row']} of {sample['source']}, topic {sample['topic']}",
        "",
        f"target {target}",
    ]
    lines += [
        f"  {method:<20} score {score:>12.5f}   rank {rank:>6,} of {n_candidates:,}"
        if reason is None
        else f"  {method:<20} no score: {reason}"
        for method, score, rank, n_candidates, reason in scores
        if method in recipe.methods
    ]
    if recipe.extraction.projection:
        lines += [
            "",
            "its strongest neurons (standardised against the calibration sample)",
            *_strongest_lines(recipe, warehouse, sample["sample_id"], target, n_neurons),
        ]
    elif centroids:
        lines += [
            "",
            "neurons that contribute most (standardised against the pool)",
            *_neuron_lines(warehouse, sample["sample_id"], centroids, statistics, n_neurons),
        ]
    return "\n".join([*lines, "", *(f"[{message['role']}] {message['content']}" for message in sample["messages"])])


def _neuron_lines(
    warehouse: Warehouse,
    sample_id: str,
    centroids: Mapping[int, np.ndarray],
    statistics: Mapping[int, NeuronStatistics],
    n_neurons: int,
) -> list[str]:
    with warehouse.activations(POOL).snapshot() as snapshot:
        _require(snapshot, projected=False)
        activations = activation_table.of_sample(snapshot, sample_id)
    if not activations:
        return ["  none: the sample was rejected when it was read"]
    frame = contributions(activations, statistics, centroids, n_neurons)
    return [
        f"  layer {row['layer']:>3}  neuron {row['neuron']:>6}  sample {row['standardized_activation']:+7.2f} sd"
        f"  target {row['centroid']:+6.2f}  share {row['contribution']:+.5f}"
        for row in frame.iter_rows(named=True)
    ]


def _require(snapshot: Snapshot, projected: bool) -> None:
    if (activation_table.layers_of(snapshot) == [NETWORK]) != projected:
        raise WarehouseError(
            f"{snapshot.path} holds {'neurons' if projected else 'projections'}, and the recipe's "
            f"`extraction.projection` asks for {'projections' if projected else 'neurons'}. `nait run` makes them."
        )


def shared_strength(sample: pl.DataFrame, examples: pl.DataFrame, n: int) -> pl.DataFrame:
    """A sample's strongest neurons, those first that are strong in the target's examples in the same direction.

    Args:
        sample: Columns `layer`, `neuron`, `value`.
        examples: The strongest neurons of the target's in-domain examples, with `sample_id`.
        n: How many neurons.

    Returns:
        Columns `layer`, `neuron`, `value`, `n_examples` that have it among their strongest, `mean_value` there (0
        where it is not), ordered by the product of `value` and the sum over examples.
    """
    among = examples.group_by("layer", "neuron").agg(
        n_examples=pl.col("sample_id").n_unique(), mean_value=pl.col("value").mean(), total=pl.col("value").sum()
    )
    joined = sample.join(among, on=["layer", "neuron"], how="left").with_columns(
        pl.col("n_examples", "mean_value", "total").fill_null(0)
    )
    ordered = joined.sort(
        [pl.col("value") * pl.col("total"), pl.col("value").abs(), "layer", "neuron"],
        descending=[True, True, False, False],
    )
    return ordered.select("layer", "neuron", "value", "n_examples", "mean_value").head(n)


def _strongest_lines(recipe: Recipe, warehouse: Warehouse, sample_id: str, target: str, n_neurons: int) -> list[str]:
    with warehouse.activations(POOL).snapshot() as snapshot:
        _require(snapshot, projected=True)
        sample = activation_table.strongest_neurons(snapshot, sample_id)
    if sample.is_empty():
        return ["  none: the sample was rejected when it was read"]
    examples = sample.clear()
    for capability in recipe.capabilities_of(target):
        if recipe.capabilities[capability].examples:  # a feature file has no examples
            with warehouse.activations(capability).snapshot() as snapshot:
                _require(snapshot, projected=True)
                examples = pl.concat([examples, activation_table.strongest_neurons(snapshot)])
    n_examples = examples["sample_id"].n_unique()
    return [
        f"  layer {row['layer']:>3}  neuron {row['neuron']:>6}  sample {row['value']:+7.2f} sd"
        f"  among the strongest of {row['n_examples']:>3} of {n_examples} examples, there {row['mean_value']:+6.2f} sd"
        for row in shared_strength(sample, examples, n_neurons).iter_rows(named=True)
    ]
