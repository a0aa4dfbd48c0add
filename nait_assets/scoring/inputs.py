"""From the warehouse to what a method may read: every output that `recipe.READS` names for it, by `sample_id`.

Belongs here: where each of them lies, and which versions were read. Does not belong here: what is made of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.statistics import by_layer
from nait_assets.lineage import reference
from nait_assets.measurements.catalogue import OUTPUTS
from nait_assets.measurements.engine import Measurement, rejected_of, rows_of
from nait_assets.recipe import ACTIVATIONS, POOL, STATISTICS, Recipe, is_by_capability
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.method import Block, ScoringInputs
from nait_assets.tables import (
    CANDIDATE_POOL,
    IN_DOMAIN_SET,
    NAIT_DIRECTIONS,
    NEURON_STATISTICS,
    STANDARDIZED_CENTROIDS,
    VECTOR,
    Table,
    published_table,
)

MEASUREMENT_OF: dict[str, Measurement] = {asset: output.measurement for asset, output in OUTPUTS.items()}
"""Every measurement by the keys of its assets."""
_TABLES = {table.asset: table for table in (CANDIDATE_POOL, IN_DOMAIN_SET, NAIT_DIRECTIONS, STANDARDIZED_CENTROIDS)}


@dataclass(frozen=True)
class MethodInputs:
    """What a method reads for a target, and on the way for the others.

    Attributes:
        inputs: What the method gets. Its targets are all those whose features are there, so that one pass will do.
        refused: Candidates that a measurement could not read, and why.
        versions: Of what the target's scores rest on.
        everything: Of all that was read.
    """

    inputs: ScoringInputs
    refused: Mapping[str, str]
    versions: Mapping[str, str]
    everything: Mapping[str, str]


@contextmanager
def gathered(recipe: Recipe, warehouse: Warehouse, method: str, target: str) -> Iterator[MethodInputs]:
    """What a method reads for a target; the activations can be streamed within the block.

    Raises:
        WarehouseError: Something has not been made.
    """
    reads = recipe.reads_of(method)
    by_capability = [asset for asset in reads if is_by_capability(asset)]
    assert len(by_capability) <= 1, f"{method} reads several outputs of each capability"
    frames: dict[str, pl.DataFrame] = {}
    refused: dict[str, str] = {}
    features: dict[str, dict[str, pl.DataFrame]] = {name: {} for name in recipe.targets}
    with warehouse.tables.snapshot() as tables:
        statistics = by_layer(tables.read(NEURON_STATISTICS)) if STATISTICS in reads else {}
        versions = dict(tables.inputs)
        for asset in sorted({*reads} - {ACTIVATIONS, STATISTICS, *by_capability}):
            frames[asset], found = _read(warehouse, tables, asset, "")
            versions |= found
            refused |= rejected_of(warehouse, MEASUREMENT_OF[asset], POOL) if asset in MEASUREMENT_OF else {}
        everything = dict(versions)
        if by_capability:
            features, own, of_all = _features(recipe, warehouse, tables, by_capability[0], target)
            versions, everything = {**versions, **own}, {**everything, **of_all}
    options = getattr(recipe.options, method, None)
    if ACTIVATIONS not in reads:
        sample_ids = _samples(frames)
        aligned = {asset: _aligned(frame, sample_ids) for asset, frame in frames.items()}
        inputs = ScoringInputs(sample_ids, (), features, statistics, recipe.seed, aligned, options)
        yield MethodInputs(inputs, refused, versions, everything)
        return
    assert not frames, f"{method} reads activations and other outputs of candidates"
    with warehouse.activations(POOL).snapshot() as activations:
        activations.note(ACTIVATIONS)
        names = activation_table.samples(activations)["sample_id"].to_list()
        inputs = ScoringInputs(names, _Blocks(activations), features, statistics, recipe.seed, {}, options)
        yield MethodInputs(inputs, {}, {**versions, **activations.inputs}, {**everything, **activations.inputs})


@dataclass(frozen=True)
class _Blocks:
    """As `scan`, which begins to read when the first block is asked for, and again for each one who asks."""

    activations: Snapshot

    def __iter__(self) -> Iterator[Block]:
        yield from activation_table.scan(self.activations)


def _features(
    recipe: Recipe, warehouse: Warehouse, tables: Snapshot, asset: str, target: str
) -> tuple[dict[str, dict[str, pl.DataFrame]], dict[str, str], dict[str, str]]:
    """Of what lies by capability: the rows of every target that can be had, the target's versions, and all versions."""
    frames: dict[str, pl.DataFrame] = {}
    own: dict[str, str] = {}
    for name in recipe.capabilities_of(target):
        frames[name], found = _read(warehouse, tables, asset, name)
        own |= found
    everything, wanted = dict(own), _shape(next(iter(frames.values())))
    for name in recipe.capability_names:  # for the other targets, so that one pass will do
        if name not in frames and _exists(warehouse, tables, asset, name):
            neighbour, found = _read(warehouse, tables, asset, name)
            if _shape(neighbour) == wanted:  # else it is of an earlier extraction, and will be made again
                frames[name] = neighbour
                everything |= found
    features = {
        name: {one: frames[one] for one in recipe.capabilities_of(name)}
        for name in recipe.targets
        if set(recipe.capabilities_of(name)) <= set(frames)
    }
    return features, own, everything


def _samples(frames: Mapping[str, pl.DataFrame]) -> list[str]:
    """Candidates that every output has a row of, in ascending order."""
    held = [set(frame["sample_id"].to_list()) for frame in frames.values() if "place" not in frame.columns]
    return sorted(set.intersection(*held))


def _read(warehouse: Warehouse, tables: Snapshot, asset: str, capability: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """The rows of an output, and the version of what was read."""
    if asset in MEASUREMENT_OF:
        return rows_of(warehouse, MEASUREMENT_OF[asset], capability or POOL)
    if asset == IN_DOMAIN_ACTIVATIONS:
        with warehouse.activations(capability).snapshot() as snapshot:
            snapshot.note(asset, capability)
            return activation_table.rows(snapshot), snapshot.inputs
    frame = tables.read_partition(_table_of(asset), capability)
    name = reference(asset, capability)
    return frame, {name: tables.inputs[name]}


def _exists(warehouse: Warehouse, tables: Snapshot, asset: str, capability: str) -> bool:
    if asset in MEASUREMENT_OF:
        records = warehouse.measurement(MEASUREMENT_OF[asset].name, capability).records()
    else:
        at_activations = asset == IN_DOMAIN_ACTIVATIONS
        records = warehouse.activations(capability).records() if at_activations else tables.records()
    return reference(asset, capability) in records


def _table_of(asset: str) -> Table:
    return _TABLES[asset] if asset in _TABLES else published_table(asset.removeprefix("corpora/published_"))


def _aligned(frame: pl.DataFrame, sample_ids: list[str]) -> pl.DataFrame:
    """The rows of these samples, in their order; a published list has places of its own, and stays as it is."""
    if "place" in frame.columns:
        return frame
    return pl.DataFrame({"sample_id": sample_ids}).join(frame, on="sample_id", how="left", maintain_order="left")


def _shape(frame: pl.DataFrame) -> object:
    """Layers of a feature and the widths of its vectors; of one row an example, the width where all have the same."""
    vectors = [name for name, kind in frame.schema.items() if kind == VECTOR]
    if "layer" in frame.columns:
        widths = frame.group_by("layer").agg(pl.col(name).list.len().first() for name in vectors)
        return sorted(widths.rows())
    lengths = {name: frame[name].list.len().unique().to_list() for name in vectors}
    return sorted((name, found[0] if len(found) == 1 else None) for name, found in lengths.items())
