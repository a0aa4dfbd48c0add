"""What a home has and its recipe no longer, such as outputs of a renamed capability, and what is to be made anew.

Belongs here: finding such outputs, and removing them from tables and folders. Does not belong here: what an output
consists of, which it knows itself (`catalogue.Output.discard`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from nait_assets.catalogue import Output
from nait_assets.definitions import ROOMS, output_named
from nait_assets.errors import NotFoundError
from nait_assets.lineage import asset_path, reference
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.rooms import Room


@dataclass(frozen=True)
class Leftover:
    """A stored partition that the recipe does not have.

    Attributes:
        output: output that it is of.
        partition: partition key, or "".
    """

    output: Output
    partition: str

    @property
    def reference(self) -> str:
        """How it is named."""
        return reference(self.output.key, self.partition)


def leftovers(
    recipe: Recipe, defs: dg.Definitions, warehouse: Warehouse, rooms: Sequence[Room] = ROOMS
) -> list[Leftover]:
    """Stored outputs that no asset of the recipe makes, in alphabetical order.

    What was made for a method that the recipe no longer has, such as a measurement, is among them.

    Args:
        recipe: recipe of the home.
        defs: its definitions.
        warehouse: warehouse of the home.
        rooms: rooms that know how an output of another recipe is stored.
    """
    graph = defs.resolve_asset_graph()
    wanted: set[str] = set()
    for key in graph.get_all_asset_keys():
        definition = graph.get(key).partitions_def
        partitions = [str(name) for name in definition.get_partition_keys()] if definition else [None]
        wanted |= {reference(asset_path(key), partition) for partition in partitions}
    stored = [(record.asset, record.partition) for record in warehouse.records().values()]
    stored += [found for room in rooms for found in room.stored_files(warehouse)]
    found = {}
    for asset, partition in sorted(set(stored)):
        output = _output(asset, recipe, rooms) if reference(asset, partition) not in wanted else None
        if output is not None:
            found[reference(asset, partition)] = Leftover(output, partition)
    return list(found.values())


def _output(asset: str, recipe: Recipe, rooms: Sequence[Room]) -> Output | None:
    """The output that has a key, in this recipe or in another; None where no room knows it."""
    known: Output | None = recipe.outputs.get(asset)
    return known or output_named(rooms, asset)


def stored_under(what: str, catalogue: Mapping[str, Output], warehouse: Warehouse) -> list[Leftover]:
    """The stored partitions of the outputs that a name means, in alphabetical order.

    Args:
        what: `Output.reset_name`, an asset key, or an asset key with a partition, `features/nait_directions[math]`.
        catalogue: outputs of the recipe by key.
        warehouse: warehouse of the home.

    Raises:
        NotFoundError: No output has that name.
    """
    asset, _, partition = what.removesuffix("]").partition("[")
    meant = {output.key for output in catalogue.values() if asset in (output.key, output.reset_name)}
    if not meant:
        names = sorted({output.reset_name for output in catalogue.values()} - {""})
        raise NotFoundError(
            f"{what!r} is no output of the recipe: name {', '.join(names)}, or an asset, such as "
            f"{next(iter(catalogue))}; `nait status` lists them."
        )
    records = sorted(warehouse.records().values(), key=lambda record: record.reference)
    return [
        Leftover(catalogue[record.asset], record.partition)
        for record in records
        if record.asset in meant and partition in ("", record.partition)
    ]


def remove(found: Iterable[Leftover], recipe: Recipe, warehouse: Warehouse, rooms: Sequence[Room] = ROOMS) -> None:
    """Remove leftovers from tables and folders. What they cost, and the history of subsets, stays."""
    with warehouse.tables.transaction() as tables:
        for leftover in found:
            leftover.output.discard(recipe, warehouse, tables, leftover.partition)
        for room in rooms:
            room.refresh_views(tables, recipe)


def refresh_views(recipe: Recipe, warehouse: Warehouse, rooms: Sequence[Room] = ROOMS) -> None:
    """Bring the views of a home to what the recipe has, where they show something else."""
    if not warehouse.tables.path.exists():
        return
    with warehouse.tables.snapshot() as snapshot:
        stale = [room for room in rooms if not room.views_are_current(snapshot, recipe)]
    if stale:
        with warehouse.tables.transaction() as tables:
            for room in stale:
                room.refresh_views(tables, recipe)
