"""Activations of a few samples: those that the map shows.

They are read in one pass over the table into a file without a name, so that memory does not grow with the model.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nait_assets.extraction import activation_table
from nait_assets.resources.warehouse import Snapshot


@dataclass(frozen=True)
class MethodInputs:
    """Activations of some samples.

    Attributes:
        sample_ids: Ids in ascending order.
        layers: Layers in ascending order.
        values: `(n_samples, n_layers, width)`, float32.
    """

    sample_ids: list[str]
    layers: list[int]
    values: np.ndarray

    def indices(self, sample_ids: Sequence[str]) -> list[int]:
        """Indices of samples along the first axis of `values`.

        Raises:
            KeyError: One of them is not there.
        """
        index_of = {sample_id: index for index, sample_id in enumerate(self.sample_ids)}
        return [index_of[sample_id] for sample_id in sample_ids]

    def of_sample(self, sample_id: str) -> dict[int, np.ndarray]:
        """One sample's activations by layer, each `(width,)`.

        Raises:
            KeyError: The sample is not among them.
        """
        index = self.indices([sample_id])[0]
        return {layer: self.values[index, row] for row, layer in enumerate(self.layers)}


def gather(snapshot: Snapshot, sample_ids: Sequence[str], folder: Path, column: str = "activation") -> MethodInputs:
    """Activations of those of the samples that the table has.

    Args:
        snapshot: Snapshot of an activation table.
        sample_ids: Ids to look for.
        folder: On a disk with room for them.
        column: Column of the table.
    """
    query = f"SELECT sample_id FROM {activation_table.SAMPLE} WHERE sample_id IN (SELECT unnest(?)) ORDER BY sample_id"
    wanted = [name for (name,) in snapshot.connection.execute(query, [list(sample_ids)]).fetchall()]
    layers = activation_table.layers_of(snapshot)
    values = np.zeros((0, len(layers), 0), np.float32)
    for layer, indices, block in activation_table.scan(snapshot, column, sample_ids=wanted):
        if not values.size:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps it when the block ends
                shape = (len(wanted), len(layers), block.shape[1])
                values = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
        values[indices, layers.index(layer)] = block
    return MethodInputs(wanted, layers, values)
