"""Faces of neurons: the pool's rows on which a neuron is most active, so that a number can be read as text.

Belongs here: which rows these are. Does not belong here: which neurons matter (`methods`), and the rows' texts.
"""

from collections.abc import Mapping

from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import ACTIVATION
from nait_assets.extraction.projection import NETWORK
from nait_assets.extraction.stored_numbers import number_in_sql
from nait_assets.recipe import ALL, Pooling, pooled
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.method import Face

Neuron = tuple[int, int]
"""Layer, and index within it."""


def faces(
    snapshot: Snapshot, neurons: Mapping[Neuron, bool], sample_id: str, n: int = 3, pooling: Pooling = ALL
) -> dict[Neuron, list[Face]]:
    """The rows of the pool that drive each neuron most, the same ones each time where rows are equal.

    One query looks at these neurons in every row, in bounded memory. Of a pool of projections, which has no neurons,
    only rows count that have the neuron among their strongest, and deviations are of the calibration sample.

    Args:
        snapshot: On the pool's activations.
        neurons: Whether the least active rows of a neuron are wanted, instead of the most active ones.
        sample_id: A row that is always shown, behind the others where it is none of them.
        n: How many rows of each.
        pooling: Pooling whose activations are looked at.
    """
    if not neurons:
        return {}
    column = pooled("activation", pooling)
    activation_table.bound_memory(snapshot, column)
    if activation_table.layers_of(snapshot) == [NETWORK]:
        layer, neuron, value = (pooled(f"strongest_{what}", pooling) for what in ("layer", "neuron", "value"))
        held = f"SELECT unnest({layer}) AS layer, unnest({neuron}) AS neuron, unnest({value}) AS value, sample_id "
        values, scale = f"SELECT * FROM ({held} FROM {ACTIVATION}) SEMI JOIN wanted USING (layer, neuron)", "0, 1"
    else:
        number = number_in_sql(column, "neuron", activation_table.is_half(snapshot, column))
        values = f"SELECT layer, neuron, {number} AS value, sample_id FROM {ACTIVATION} "
        values, scale = f"{values} JOIN wanted USING (layer)", "avg(value), stddev_pop(value)"
    wanted = ", ".join(f"({layer}, {neuron})" for layer, neuron in neurons)
    # without lists of all rows: the aggregates keep n of them
    query = f"""
        WITH wanted(layer, neuron) AS (VALUES {wanted})
        SELECT layer, neuron, {scale}, max({{'value': value, 'sample_id': sample_id}}, {n}),
            min({{'value': value, 'sample_id': sample_id}}, {n}), max(value) FILTER (sample_id = $sample_id)
        FROM ({values}) GROUP BY layer, neuron
    """
    found: dict[Neuron, list[Face]] = {}
    parameters = {"sample_id": sample_id}
    for layer, neuron, mean, deviation, most, least, own in snapshot.connection.execute(query, parameters).fetchall():
        rows = {row["sample_id"]: row["value"] for row in (least if neurons[layer, neuron] else most)}
        if own is not None:
            rows.setdefault(sample_id, own)
        found[layer, neuron] = [
            Face(name, (value - mean) / deviation if deviation else 0.0) for name, value in rows.items()
        ]
    return found
