"""The activation table of a corpus: one row per sample and layer, in a DuckDB file of its own.

DuckDB's arrays end at 100,000 elements and a model can have more neurons than that, so a row is one layer, never the
whole network. A file holds one extraction: what was read from which model is in `extraction.identity`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from nait_assets.resources.warehouse import Snapshot, Transaction

CANDIDATE_ACTIVATIONS = "extraction/candidate_activations"
IN_DOMAIN_ACTIVATIONS = "extraction/in_domain_activations"
ACTIVATION = "extraction.activation"
SAMPLE = "extraction.sample"
IDENTITY = "extraction.identity"
SCAN_ROWS = 4096


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        extraction_id: Of the extraction that wrote it, or None.
        sample_ids: Of the samples that have activations.
    """

    extraction_id: str | None
    sample_ids: frozenset[str]


def shard_schema(width: int, ends: bool) -> pa.Schema:
    """Columns of a shard: sample_id, layer, n_tokens, truncated, activation, and for `ends` those of both ends."""
    vector = pa.list_(pa.float32(), width)
    fields = [
        ("sample_id", pa.string()),
        ("layer", pa.int16()),
        ("n_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("activation", vector),
    ]
    if ends:
        fields += [("first_token_activation", vector), ("last_token_activation", vector)]
    return pa.schema(fields)


def contents(snapshot: Snapshot) -> Contents:
    """What a file holds; nothing where its tables are missing."""
    if not snapshot.has_table(IDENTITY):
        return Contents(None, frozenset())
    row = snapshot.connection.execute(f"SELECT extraction_id FROM {IDENTITY}").fetchone()
    ids = snapshot.connection.execute(f"SELECT sample_id FROM {SAMPLE}").fetchall()
    return Contents(row[0] if row else None, frozenset(name for (name,) in ids))


def fold(
    transaction: Transaction, extraction_id: str, wanted: Sequence[str], shards: Sequence[pa.Table], schema: pa.Schema
) -> None:
    """Make the table hold exactly the wanted samples: delete those that vanished, insert the shards' rows.

    Args:
        transaction: On the corpus' file.
        extraction_id: A table of another extraction is dropped first.
        wanted: Every sample that the table shall hold; those not in it yet are in the shards.
        shards: Tables in `schema`; rows of samples that the table has are passed over, so folding twice is harmless.
        schema: `shard_schema` of this extraction.
    """
    connection = transaction.connection
    connection.execute("CREATE SCHEMA IF NOT EXISTS extraction")
    if contents(transaction).extraction_id != extraction_id:
        for table in (ACTIVATION, SAMPLE, IDENTITY):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.register("wanted", pa.table({"sample_id": pa.array(wanted, pa.string())}))
    connection.register("incoming", schema.empty_table())
    vectors = ", ".join(name for name in schema.names if name.endswith("activation"))
    connection.execute(f"CREATE TABLE IF NOT EXISTS {ACTIVATION} AS SELECT sample_id, layer, {vectors} FROM incoming")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {SAMPLE} AS SELECT sample_id, n_tokens, truncated FROM incoming")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {IDENTITY} AS SELECT '{extraction_id}' AS extraction_id")
    for table in (ACTIVATION, SAMPLE):
        connection.execute(f"DELETE FROM {table} WHERE sample_id NOT IN (FROM wanted)")
    if shards:
        connection.register("incoming", pa.concat_tables(shards))
        fresh = f"sample_id IN (FROM wanted) AND sample_id NOT IN (SELECT sample_id FROM {SAMPLE})"
        connection.execute(f"INSERT INTO {ACTIVATION} SELECT sample_id, layer, {vectors} FROM incoming WHERE {fresh}")
        distinct = f"SELECT DISTINCT sample_id, n_tokens, truncated FROM incoming WHERE {fresh} ORDER BY sample_id"
        connection.execute(f"INSERT INTO {SAMPLE} {distinct}")
    connection.unregister("incoming")
    connection.unregister("wanted")


def samples(snapshot: Snapshot) -> pl.DataFrame:
    """Every sample with activations, by `sample_id`: `sample_id`, `n_tokens`, `truncated`."""
    return snapshot.connection.sql(f"SELECT sample_id, n_tokens, truncated FROM {SAMPLE} ORDER BY sample_id").pl()


def layers_of(snapshot: Snapshot) -> list[int]:
    """The layers of the extraction, in order."""
    return [
        layer
        for (layer,) in snapshot.connection.execute(
            f"SELECT DISTINCT layer FROM {ACTIVATION} ORDER BY layer"
        ).fetchall()
    ]


def scan(snapshot: Snapshot, column: str = "activation") -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Stream the table once, in bounded memory.

    Yields:
        A layer, places of samples in the order of `samples` `(n,)`, and their activations `(n, width)` in float32.
    """
    place = {name: index for index, name in enumerate(samples(snapshot)["sample_id"].to_list())}
    reader = snapshot.connection.sql(f"SELECT sample_id, layer, {column} AS vector FROM {ACTIVATION}").to_arrow_reader(
        SCAN_ROWS
    )
    for batch in reader:
        layers = batch["layer"].to_numpy()
        vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), -1)
        places = np.fromiter((place[name] for name in batch["sample_id"].to_pylist()), dtype=np.int64, count=len(batch))
        for layer in np.unique(layers):
            rows = np.flatnonzero(layers == layer)
            yield int(layer), places[rows], vectors[rows]


def matrix(snapshot: Snapshot, layer: int, column: str = "activation") -> np.ndarray:
    """One layer's activations of all samples, `(n_samples, width)`, in the order of `samples`."""
    query = f"SELECT {column} AS vector FROM {ACTIVATION} WHERE layer = ? ORDER BY sample_id"
    table = snapshot.connection.sql(query, params=[layer]).to_arrow_table()
    vectors = table["vector"]
    return vectors.combine_chunks().flatten().to_numpy().reshape(len(table), vectors.type.list_size)


def of_sample(snapshot: Snapshot, sample_id: str) -> dict[int, np.ndarray]:
    """One sample's activations by layer, each `(width,)`; empty where it has none."""
    rows = snapshot.connection.execute(
        f"SELECT layer, activation FROM {ACTIVATION} WHERE sample_id = ? ORDER BY layer", [sample_id]
    ).fetchall()
    return {layer: np.asarray(vector, dtype=np.float32) for layer, vector in rows}
