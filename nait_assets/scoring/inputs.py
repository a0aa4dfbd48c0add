"""From the warehouse to what a method may read: every output that it declares, by `sample_id`.

Belongs here: where each of them lies, and which versions were read. Does not belong here: what is made of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from nait_assets.catalogue import Output
from nait_assets.extraction import activation_table
from nait_assets.extraction.statistics import NeuronStatistics, by_layer
from nait_assets.recipe import ACTIVATIONS, POOL, STATISTICS, Recipe, pooled
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.method import Block, ScoringInputs
from nait_assets.scoring.rows import CandidateRows, StoredRows
from nait_assets.tables import NEURON_STATISTICS, VECTOR


@dataclass(frozen=True)
class MethodInputs:
    """What a method reads for a target, and on the way for the others.

    Attributes:
        inputs: What the method gets. Its targets are all those whose outputs are there, so that one pass will do.
        refused: Candidates that some output could not be made of, and why.
        versions: Versions of what the target's scores rest on.
        everything: Versions of all that was read.
    """

    inputs: ScoringInputs
    refused: Mapping[str, str]
    versions: Mapping[str, str]
    everything: Mapping[str, str]


@contextmanager
def gathered(
    recipe: Recipe, warehouse: Warehouse, method: str, target: str, stream_only: Sequence[str] | None = None
) -> Iterator[MethodInputs]:
    """What a method reads for a target; the activations can be streamed within the block.

    Args:
        recipe: The recipe.
        warehouse: Where its outputs are.
        method: The method's name.
        target: A capability, or `all`.
        stream_only: Candidates whose activations are wanted; by default those of all. Their other rows are all there.

    Raises:
        WarehouseError: Something has not been made.
    """
    found = _tables_of(recipe, warehouse, method, target)
    if ACTIVATIONS not in recipe.reads_of(method):
        yield found.for_method(recipe, method)
        return
    # A block of its own: the other files are free while these are streamed.
    with activation_table.activations_of(warehouse, POOL).snapshot() as activations:
        activations.note(ACTIVATIONS)
        found.versions |= activations.inputs
        found.refused |= recipe.outputs[ACTIVATIONS].refused(warehouse, "")
        stored = activation_table.samples(activations)["sample_id"].to_list()
        found.held.append(stored)
        column = pooled("activation", recipe.pooling_of(method))
        blocks = _Blocks(activations, column, len(stored), found.sample_ids, stream_only)
        yield found.for_method(recipe, method, blocks)


@dataclass
class _Found:
    """What was read so far.

    Attributes:
        scratch: Folder for what does not fit the memory.
        held: Candidates that each output has.
        neighbours: Versions of what only other targets rest on.
    """

    scratch: Path
    statistics: dict[int, NeuronStatistics] = field(default_factory=dict)
    frames: dict[str, CandidateRows] = field(default_factory=dict)
    by_capability: dict[str, dict[str, pl.DataFrame]] = field(default_factory=dict)
    held: list[list[str]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, str] = field(default_factory=dict)

    @property
    def sample_ids(self) -> list[str]:
        """Candidates that every output has, in ascending order."""
        return sorted(set.intersection(*map(set, self.held)))

    def for_method(self, recipe: Recipe, method: str, blocks: Iterable[Block] = ()) -> MethodInputs:
        """As the method gets it."""
        sample_ids = self.sample_ids
        known = [set(frames) for frames in self.by_capability.values()]
        targets = {name: recipe.capabilities_of(name) for name in recipe.targets}
        inputs = ScoringInputs(
            sample_ids=sample_ids,
            targets={name: those for name, those in targets.items() if all(one.issuperset(those) for one in known)},
            frames={
                key: rows.of(sample_ids) if isinstance(rows, StoredRows) else rows for key, rows in self.frames.items()
            },
            by_capability=self.by_capability,
            blocks=blocks,
            statistics=self.statistics,
            seed=recipe.seed,
            options=recipe.options_of(method),
            scratch=self.scratch,
        )
        return MethodInputs(inputs, self.refused, self.versions, {**self.neighbours, **self.versions})


def _tables_of(recipe: Recipe, warehouse: Warehouse, method: str, target: str) -> _Found:
    """Everything that a method reads but the activations."""
    reads, pooling, found = recipe.declared_reads(method), recipe.pooling_of(method), _Found(warehouse.folder)
    with warehouse.tables.snapshot() as tables:
        if STATISTICS in reads:
            found.statistics = by_layer(tables.read(NEURON_STATISTICS.of_pooling(pooling)))
            found.versions |= tables.inputs
        for key in sorted({*reads} - {ACTIVATIONS, STATISTICS}):
            output = recipe.outputs[reads[key]].of_pooling(pooling)
            if output.by_capability:
                frames, own, of_all = _of_capabilities(recipe, warehouse, tables, output, target)
                found.by_capability[key] = frames
                found.versions |= own
                found.neighbours |= of_all
                continue
            found.refused |= output.refused(warehouse, "")
            if not output.one_row_each:
                found.frames[key], versions = output.read(warehouse, tables, "")
                found.versions |= versions
                continue
            held, version = output.samples(warehouse, tables)
            found.held.append(held)
            found.versions[output.key] = version
            stream = partial(output.blocks, warehouse, version)
            found.frames[key] = StoredRows(output.stored_table("").columns, held, stream)
    return found


@dataclass(frozen=True)
class _Blocks:
    """As `scan` of some samples, which begins to read when the first block is asked for, and again for each who asks.

    Attributes:
        activations: Activations of the pool.
        column: Column of the pooling that is read.
        n_stored: Samples that the table has.
        sample_ids: Those of them along which indices count.
        only: Those of these that are read; all by default.
    """

    activations: Snapshot
    column: str
    n_stored: int
    sample_ids: list[str]
    only: Sequence[str] | None

    def of(self, sample_ids: Sequence[str]) -> "_Blocks":
        """Those of some candidates, indices counted as before."""
        return replace(self, only=sample_ids)

    def __iter__(self) -> Iterator[Block]:
        if self.only is None:
            everything = len(self.sample_ids) == self.n_stored
            wanted = None if everything else self.sample_ids
            yield from activation_table.scan(self.activations, column=self.column, sample_ids=wanted)
            return
        some = sorted(set(self.only) & set(self.sample_ids))
        indices = np.searchsorted(np.asarray(self.sample_ids), np.asarray(some))
        for layer, places, rows in activation_table.scan(self.activations, column=self.column, sample_ids=some):
            yield layer, indices[places], rows


def _of_capabilities(
    recipe: Recipe, warehouse: Warehouse, tables: Snapshot, output: Output, target: str
) -> tuple[dict[str, pl.DataFrame], dict[str, str], dict[str, str]]:
    """By capability the rows that can be had, the versions of those of the target, and the versions of all."""
    frames: dict[str, pl.DataFrame] = {}
    own: dict[str, str] = {}
    for name in recipe.capabilities_of(target):
        frames[name], found = output.read(warehouse, tables, name)
        own |= found
    everything, wanted = dict(own), _shape(next(iter(frames.values())))
    for name in recipe.in_domain_names:  # for the other targets, so that one pass will do
        if name not in frames and output.exists(warehouse, tables, name):
            neighbour, found = output.read(warehouse, tables, name)
            if _shape(neighbour) == wanted:  # else it is of an earlier extraction, and will be made again
                frames[name] = neighbour
                everything |= found
    return frames, own, everything


def _shape(frame: pl.DataFrame) -> object:
    """Layers of a feature and the widths of its vectors; of one row an example, the width where all have the same."""
    vectors = [name for name, kind in frame.schema.items() if kind == VECTOR]
    if "layer" in frame.columns:
        widths = frame.group_by("layer").agg(pl.col(name).list.len().first() for name in vectors)
        return sorted(widths.rows())
    lengths = {name: frame[name].list.len().unique().to_list() for name in vectors}
    return sorted((name, found[0] if len(found) == 1 else None) for name, found in lengths.items())
