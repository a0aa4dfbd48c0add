"""The activation table of a corpus: one row per sample and layer, in a DuckDB file of its own.

DuckDB's arrays end at 100,000 elements and a model can have more neurons than that, so a row is one layer, never the
whole network; with a projection it is the whole network in few numbers, under the layer `projection.NETWORK`. A file
holds one extraction: what was read from which model is in `extraction.identity`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from nait_assets.resources.warehouse import Snapshot, Transaction, WarehouseError

CANDIDATE_ACTIVATIONS = "extraction/candidate_activations"
IN_DOMAIN_ACTIVATIONS = "extraction/in_domain_activations"
CALIBRATION = "extraction/calibration_statistics"
ACTIVATION = "extraction.activation"
SAMPLE = "extraction.sample"
IDENTITY = "extraction.identity"
SAMPLE_COLUMNS = ["sample_id", "n_tokens", "truncated"]
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


def shard_schema(width: int, ends: bool, n_strongest: int = 0) -> pa.Schema:
    """Columns of a shard.

    Args:
        width: Of an activation.
        ends: Whether the first and the last token's activations are kept.
        n_strongest: How many of a sample's strongest neurons are kept.

    Returns:
        sample_id, layer, n_tokens, truncated, activation; for `ends` those of both ends; for `n_strongest` the layer,
        number and value of each.
    """
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
    if n_strongest:
        types = {"strongest_layer": pa.int16(), "strongest_neuron": pa.int32(), "strongest_value": pa.float32()}
        fields += [(name, pa.list_(kind, n_strongest)) for name, kind in types.items()]
    return pa.schema(fields)


def contents(snapshot: Snapshot) -> Contents:
    """What a file holds; nothing where its tables are missing."""
    if not snapshot.has_table(IDENTITY):
        return Contents(None, frozenset())
    row = snapshot.connection.execute(f"SELECT extraction_id FROM {IDENTITY}").fetchone()
    ids = snapshot.connection.execute(f"SELECT sample_id FROM {SAMPLE}").fetchall()
    return Contents(row[0] if row else None, frozenset(name for (name,) in ids))


def fold(
    transaction: Transaction, extraction_id: str, wanted: Sequence[str], shards: Iterable[pa.Table], schema: pa.Schema
) -> None:
    """Make the table hold exactly the wanted samples: delete those that vanished, insert the shards' rows.

    Args:
        transaction: On the corpus' file.
        extraction_id: A table of another extraction is dropped first.
        wanted: Every sample that the table shall hold; those not in it yet are in the shards.
        shards: Tables in `schema`, looked at one after the other; rows of samples that the table has, or that are not
            wanted, are passed over, so folding twice is harmless.
        schema: `shard_schema` of this extraction.

    Raises:
        WarehouseError: A wanted sample is neither in the table nor in a shard.
    """
    connection = transaction.connection
    _bound_memory(connection, sum(field.type.list_size for field in schema if pa.types.is_fixed_size_list(field.type)))
    connection.execute("CREATE SCHEMA IF NOT EXISTS extraction")
    if contents(transaction).extraction_id != extraction_id:
        for table in (ACTIVATION, SAMPLE, IDENTITY):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    columns = ", ".join(name for name in schema.names if name not in SAMPLE_COLUMNS[1:])
    connection.register("incoming", schema.empty_table())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {ACTIVATION} AS SELECT {columns} FROM incoming")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {SAMPLE} AS SELECT {', '.join(SAMPLE_COLUMNS)} FROM incoming")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {IDENTITY} AS SELECT '{extraction_id}' AS extraction_id")
    connection.register("wanted", pa.table({"sample_id": pa.array(wanted, pa.string())}))
    for table in (ACTIVATION, SAMPLE):
        connection.execute(f"DELETE FROM {table} WHERE sample_id NOT IN (FROM wanted)")
    connection.unregister("wanted")
    missing = pa.array(sorted(set(wanted) - contents(transaction).sample_ids), pa.string())
    if not len(missing):  # the shards may have been folded by another run, and be gone
        return
    found: list[pa.Table] = []
    connection.register("incoming", pa.RecordBatchReader.from_batches(schema, _rows_of(shards, missing, found)))
    connection.execute(f"INSERT INTO {ACTIVATION} SELECT {columns} FROM incoming")
    connection.unregister("incoming")
    n_found = sum(map(len, found))
    if n_found != len(missing):
        raise WarehouseError(
            f"{transaction.path}: the shards hold {n_found} of the {len(missing)} samples that the table lacks: "
            "another run has changed it since this one began. Run again."
        )
    connection.register("incoming", pa.concat_tables(found))
    connection.execute(f"INSERT INTO {SAMPLE} FROM incoming ORDER BY sample_id")
    connection.unregister("incoming")


def _rows_of(shards: Iterable[pa.Table], wanted: pa.Array, found: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The shards' rows of the wanted samples, of one shard at a time; the samples are added to `found`."""
    for shard in shards:
        mask = pc.is_in(shard["sample_id"], wanted)
        rows = shard if pc.all(mask).as_py() else shard.filter(mask)  # filtering copies
        if len(rows):
            found.append(rows.filter(pc.equal(rows["layer"], rows["layer"][0])).select(SAMPLE_COLUMNS).combine_chunks())
            yield from rows.to_batches(max_chunksize=SCAN_ROWS)


def _bound_memory(connection: duckdb.DuckDBPyConnection, n_numbers: int) -> None:
    """Keep DuckDB from filling the memory with what it has read and written: by default it takes 80 % of it.

    Args:
        connection: Of the file.
        n_numbers: Of a row, four bytes each; a row group of 2,048 rows has to fit a few times.
    """
    connection.execute(f"SET memory_limit = '{max(128, 6 * 2048 * 4 * n_numbers // 2**20)}MiB'")


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
    names = pa.array(samples(snapshot)["sample_id"].to_list(), pa.string())
    _bound_memory(snapshot.connection, _width(snapshot, column))
    reader = snapshot.connection.sql(f"SELECT sample_id, layer, {column} AS vector FROM {ACTIVATION}").to_arrow_reader(
        SCAN_ROWS
    )
    for batch in reader:
        layers = batch["layer"].to_numpy()
        vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), -1)
        places = pc.index_in(batch["sample_id"], names).to_numpy()
        changes = [0, *(np.flatnonzero(np.diff(layers)) + 1).tolist(), len(layers)]
        for begin, end in itertools.pairwise(changes):
            yield int(layers[begin]), places[begin:end], vectors[begin:end]


def _width(snapshot: Snapshot, column: str) -> int:
    row = snapshot.connection.execute(f"SELECT len({column}) FROM {ACTIVATION} LIMIT 1").fetchone()
    return int(row[0]) if row else 0


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


def strongest_neurons(snapshot: Snapshot, sample_id: str | None = None) -> pl.DataFrame:
    """The strongest neurons of one sample, or of all: `sample_id`, `layer`, `neuron`, `value` in standard deviations.

    Only a table of projections has them.
    """
    query = f"""
        SELECT sample_id, unnest(strongest_layer) AS layer, unnest(strongest_neuron) AS neuron,
               unnest(strongest_value) AS value
        FROM {ACTIVATION} WHERE $sample_id IS NULL OR sample_id = $sample_id
    """
    return snapshot.connection.sql(query, params={"sample_id": sample_id}).pl()
