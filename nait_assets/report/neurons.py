"""Which neurons contribute most to a chosen row's score; for `nait_standardized` only."""

import polars as pl

from nait_assets.report.page_data import PageData
from nait_assets.scoring.explanation import contributions, shared_strength
from nait_assets.scoring.methods.nait_standardized import combined_centroids

N_NEURONS = 5
Neuron = tuple[int, int, str]
"""Layer, number in the layer, and what it did."""


def contributing_neurons(reading: PageData) -> dict[tuple[str, str], list[Neuron]]:
    """By target and sample id, the neurons that contribute most to the target's best rows, the largest first."""
    if reading.candidates is None:
        return {}
    of_target = _strongest if reading.recipe.extraction.projection else _contributing
    return {
        (target, name): neurons
        for target, names in reading.neuron_rows().items()
        for name, neurons in of_target(reading, target, names).items()
    }


def _contributing(reading: PageData, target: str, names: list[str]) -> dict[str, list[Neuron]]:
    assert reading.candidates is not None
    wanted = {name: reading.centroids[name] for name in reading.recipe.capabilities_of(target)}
    centroids = combined_centroids(wanted)
    frames = {
        name: contributions(reading.candidates.of_sample(name), reading.statistics, centroids, N_NEURONS)
        for name in names
    }
    return {
        name: [
            (
                row["layer"],
                row["neuron"],
                f"{row['standardized_activation']:+.1f} sd here, {row['centroid']:+.2f} in the target, "
                f"{row['contribution']:+.4f} of the score",
            )
            for row in frame.iter_rows(named=True)
        ]
        for name, frame in frames.items()
    }


def _strongest(reading: PageData, target: str, names: list[str]) -> dict[str, list[Neuron]]:
    parts = [reading.strongest[name] for name in reading.recipe.capabilities_of(target) if name in reading.strongest]
    found = {}
    for name in names:
        sample = reading.strongest[name]
        examples = pl.concat([sample.clear(), *parts])
        n_examples = examples["sample_id"].n_unique()
        among = f"of the {n_examples} examples" if n_examples else "examples: the target comes from a feature file"
        found[name] = [
            (
                row["layer"],
                row["neuron"],
                f"{row['value']:+.1f} sd here, among the strongest of {row['n_examples']} {among}",
            )
            for row in shared_strength(sample, examples, N_NEURONS).iter_rows(named=True)
        ]
    return found
