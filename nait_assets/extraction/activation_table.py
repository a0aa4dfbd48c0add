"""The activation table of a corpus: one row per sample and layer, in a DuckDB file of its own.

DuckDB's arrays end at 100,000 elements and a model can have more neurons than that, so a row is one layer, never the
whole network; with a projection it is the whole network in few numbers, under the layer `projection.NETWORK`. A file
holds one extraction: what was read from which model is in `extraction.identity`.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from nait_assets.errors import WarehouseError
from nait_assets.extraction.stored_numbers import HALF, StoredAs, fields_of, scale_of, vectors
from nait_assets.models import cuts
from nait_assets.recipe import ALL, POOLINGS, Pooling, pooled
from nait_assets.resources import Warehouse
from nait_assets.resources.row_blocks import limit_memory, stream
from nait_assets.resources.warehouse import Snapshot, Store, Transaction
from nait_assets.tables import (
    REJECTED_SAMPLES,
    VECTOR,
    content_digest,
    content_version,
    version_with,
    version_with_refused,
)

CANDIDATE_ACTIVATIONS = "extraction/candidate_activations"
IN_DOMAIN_ACTIVATIONS = "extraction/in_domain_activations"
CALIBRATION = "extraction/calibration_statistics"
ACTIVATION = "extraction.activation"
SAMPLE = "extraction.sample"
IDENTITY = "extraction.identity"
SAMPLE_COLUMNS = ["sample_id", "n_tokens", *cuts.COLUMNS]
SCAN_ROWS = 4096
LENT_SAMPLES = 16


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        extraction_id: Id of the extraction that wrote it, or None.
        sample_ids: Ids of the samples that have activations.
    """

    extraction_id: str | None
    sample_ids: frozenset[str]


def activations_of(warehouse: Warehouse, corpus: str) -> Store:
    """The file of a corpus' activations: of the pool (`candidates`), or of a capability's in-domain set."""
    return warehouse.of_corpus("activations", corpus)


def shard_schema(
    width: int,
    keep_first_and_last: bool,
    n_strongest: int = 0,
    poolings: Sequence[Pooling] = (ALL,),
    store: StoredAs = "float32",
) -> pa.Schema:
    """Columns of a shard.

    Args:
        width: Width of an activation.
        keep_first_and_last: Whether the first and the last token's activations are kept.
        n_strongest: How many of a sample's strongest neurons are kept.
        poolings: Poolings of the extraction.
        store: How activations are stored; as float16 each column has one of scales beside it.

    Returns:
        sample_id, layer, n_tokens, cut, n_answers, n_answers_whole; of each pooling activation, with
        `keep_first_and_last` those of both tokens, with `n_strongest` the layer, number and value of each, under the
        names that `recipe.pooling.pooled` gives them.
    """
    fields = [
        ("sample_id", pa.string()),
        ("layer", pa.int16()),
        ("n_tokens", pa.int32()),
        ("cut", pa.string()),
        ("n_answers", pa.int32()),
        ("n_answers_whole", pa.int32()),
    ]
    kept = ["activation", *(["first_token_activation", "last_token_activation"] if keep_first_and_last else [])]
    of_pooling = [field for column in kept for field in fields_of(column, width, store)]
    if n_strongest:
        of_neurons = {"layer": pa.int16(), "neuron": pa.int32(), "value": pa.float32()}
        of_pooling += [(f"strongest_{what}", pa.list_(kind, n_strongest)) for what, kind in of_neurons.items()]
    return pa.schema([*fields, *((pooled(name, one), kind) for one in poolings for name, kind in of_pooling)])


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
    limit_memory(connection, _numbers_of_a_row(schema))
    connection.execute("CREATE SCHEMA IF NOT EXISTS extraction")
    if contents(transaction).extraction_id != extraction_id:
        for table in (ACTIVATION, SAMPLE, IDENTITY):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
    stored = schema.append(pa.field("digest", pa.uint64()))
    names = [name for name in stored.names if name not in SAMPLE_COLUMNS[1:]]
    columns = ", ".join(names)
    _create(connection, ACTIVATION, names, stored)
    _create(connection, SAMPLE, SAMPLE_COLUMNS, stored)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {IDENTITY} AS SELECT '{extraction_id}' AS extraction_id")
    connection.register("wanted", pa.table({"sample_id": pa.array(wanted, pa.string())}))
    for table in (ACTIVATION, SAMPLE):
        connection.execute(f"DELETE FROM {table} WHERE sample_id NOT IN (FROM wanted)")
    connection.unregister("wanted")
    missing = sorted(set(wanted) - contents(transaction).sample_ids)
    if not missing:  # the shards may have been folded by another run, and be gone
        return
    found: list[pa.Table] = []
    batches = map(with_digests, _rows_of(shards, set(missing), found))
    connection.register("incoming", pa.RecordBatchReader.from_batches(stored, batches))
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


def lent(snapshot: Snapshot, sample_ids: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of some samples as `fold` takes them, a few samples at a time.

    Args:
        snapshot: On a file of the same extraction.
        sample_ids: Samples that it has.
        schema: `shard_schema` of the extraction.
    """
    columns = ", ".join(f"s.{name}" if name in SAMPLE_COLUMNS else f"a.{name}" for name in schema.names)
    query = f"SELECT {columns} FROM {ACTIVATION} a JOIN {SAMPLE} s USING (sample_id) WHERE sample_id IN (FROM wanted)"
    limit_memory(snapshot.connection, 2 * _numbers_of_a_row(schema))  # a join holds what it reads once more
    for begin in range(0, len(sample_ids), LENT_SAMPLES):
        names = pa.table({"sample_id": pa.array(sample_ids[begin : begin + LENT_SAMPLES], pa.string())})
        snapshot.connection.register("wanted", names)
        found = snapshot.connection.sql(f"{query} ORDER BY sample_id, layer").to_arrow_table()
        snapshot.connection.unregister("wanted")
        yield found.cast(schema)


def _numbers_of_a_row(schema: pa.Schema) -> int:
    return sum(field.type.list_size for field in schema if pa.types.is_fixed_size_list(field.type))


def _create(connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], schema: pa.Schema) -> None:
    """Create a table, if it is not there, with columns of a schema.

    Its columns are spelt out: of a table made by CREATE TABLE AS in the same transaction, DuckDB 2.0 finds none of more
    than 2,048 rows that were inserted from Arrow, until the transaction has ended.
    """
    connection.register("incoming", schema.empty_table())
    found = connection.sql(f"SELECT {', '.join(names)} FROM incoming")
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(found.columns, found.types, strict=True))
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    connection.unregister("incoming")


def with_digests(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with a column `digest`: the first eight bytes of the SHA-256 of a row's sample, layer and numbers.

    It shows later that a row is as it was written.
    """
    hashed = [field.name for field in rows.schema if _holds_numbers(field)]
    parts = [rows[name].flatten() if pa.types.is_fixed_size_list(rows[name].type) else rows[name] for name in hashed]
    vectors = [part.to_numpy().reshape(len(rows), -1) for part in parts]
    digests = np.empty(len(rows), np.uint64)
    names = zip(rows["sample_id"].to_pylist(), rows["layer"].to_pylist(), strict=True)
    for index, (sample_id, layer) in enumerate(names):
        digest = hashlib.sha256(f"{sample_id}:{layer}:".encode())
        for vector in vectors:
            digest.update(vector[index].tobytes())
        digests[index] = int.from_bytes(digest.digest()[:8], "little")
    return rows.append_column("digest", pa.array(digests, pa.uint64()))


def content_of(snapshot: Snapshot) -> str:
    """Data version of a file, 16 hex digits: all numbers, what is known of each sample, what was refused and why.

    Of the numbers it hashes the digests alone: whether they hold, `altered_rows` says. Which extraction wrote them is
    not covered: numbers that come out the same make nothing behind them stale.
    """
    rows = snapshot.connection.sql(f"SELECT sample_id, layer, digest FROM {ACTIVATION} ORDER BY sample_id, layer").pl()
    ((count,),) = snapshot.connection.execute(f"SELECT count(*) FROM {ACTIVATION}").fetchall()
    assert len(rows) == count, f"{ACTIVATION} has {count} rows, and {len(rows)} were found"
    of_numbers = content_version(rows, ("sample_id", "layer"))
    of_samples = version_with(of_numbers, snapshot.connection.sql(f"FROM {SAMPLE}").pl())
    return version_with_refused(of_samples, snapshot.rows(REJECTED_SAMPLES))


def digests_of(snapshot: Snapshot) -> dict[str, str]:
    """SHA-256 of each table of a file, of its numbers by the digests of their rows."""
    rows = snapshot.connection.sql(f"SELECT sample_id, layer, digest FROM {ACTIVATION}").pl()
    samples_of_file = snapshot.connection.sql(f"FROM {SAMPLE}").pl()
    return {
        ACTIVATION: content_digest(rows, ("sample_id", "layer")),
        SAMPLE: content_digest(samples_of_file, tuple(samples_of_file.columns)),
        REJECTED_SAMPLES.name: snapshot.digest(REJECTED_SAMPLES),
    }


def identity_of(snapshot: Snapshot) -> dict[str, str]:
    """Which extraction a file is of, as a record has it beside its data version: the next run goes by that."""
    return {IDENTITY: hashlib.sha256(str(contents(snapshot).extraction_id).encode()).hexdigest()}


def incomplete_samples(snapshot: Snapshot) -> list[str]:
    """Samples that lack a row of a layer, or have one too many."""
    query = f"""
        SELECT sample_id FROM {SAMPLE} LEFT JOIN {ACTIVATION} USING (sample_id) GROUP BY sample_id
        HAVING count(layer) <> (SELECT count(DISTINCT layer) FROM {ACTIVATION}) OR count(layer) <> count(DISTINCT layer)
        UNION SELECT sample_id FROM {ACTIVATION} WHERE sample_id NOT IN (SELECT sample_id FROM {SAMPLE})
    """
    return sorted(name for (name,) in snapshot.connection.execute(query).fetchall())


def altered_rows(snapshot: Snapshot) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Samples and layers whose numbers are no longer those that were written, and those with NaN or infinity.

    It reads the whole table once, in bounded memory.
    """
    row = snapshot.connection.sql(f"FROM {ACTIVATION} LIMIT 0").to_arrow_table().schema
    hashed = [field.name for field in row if _holds_numbers(field)]
    kinds = {name: row.field(name).type for name in hashed}
    numbers = [name for name, kind in kinds.items() if getattr(kind, "value_type", None) in (pa.float32(), HALF)]
    limit_memory(snapshot.connection, sum(_width(snapshot, name) for name in numbers))
    columns = ", ".join(["sample_id", "layer", *hashed])
    altered, broken = [], []
    for batch in snapshot.connection.sql(f"SELECT {columns}, digest FROM {ACTIVATION}").to_arrow_reader(SCAN_ROWS):
        names = list(zip(batch["sample_id"].to_pylist(), batch["layer"].to_pylist(), strict=True))
        again = with_digests(batch.drop_columns(["digest"]))["digest"].to_numpy()
        altered += [names[index] for index in np.flatnonzero(again != batch["digest"].to_numpy())]
        finite = np.all([np.isfinite(vectors(batch, name)).all(axis=1) for name in numbers], axis=0)
        broken += [names[index] for index in np.flatnonzero(~finite)]
    return altered, broken


def _holds_numbers(field: pa.Field) -> bool:
    """Whether a column is a row's vector, or the scale of one."""
    return pa.types.is_fixed_size_list(field.type) or field.name.endswith(scale_of(""))


def _rows_of(shards: Iterable[pa.Table], wanted: set[str], found: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The shards' rows of the wanted samples, of one shard at a time; the samples are added to `found`."""
    for shard in shards:
        mask = [name in wanted for name in shard["sample_id"].to_pylist()]  # `pc.is_in` would hash all names each time
        rows = shard if all(mask) else shard.filter(pa.array(mask))  # filtering copies
        if len(rows):
            found.append(rows.filter(pc.equal(rows["layer"], rows["layer"][0])).select(SAMPLE_COLUMNS).combine_chunks())
            yield from rows.to_batches(max_chunksize=SCAN_ROWS)


def n_samples(snapshot: Snapshot) -> int:
    """How many samples a file has activations of."""
    ((count,),) = snapshot.connection.execute(f"SELECT count(*) FROM {SAMPLE}").fetchall()
    return int(count)


def samples(snapshot: Snapshot) -> pl.DataFrame:
    """Every sample with activations, by `sample_id`: `sample_id`, `n_tokens`, and what is read (`models.cuts`)."""
    frame = snapshot.connection.sql(f"FROM {SAMPLE} ORDER BY sample_id").pl()
    if "truncated" in frame.columns:  # of a release whose ends were cut, and the answers not counted
        cut = pl.when("truncated").then(pl.lit("answer")).otherwise(pl.lit(""))
        frame = frame.with_columns(cut=cut, n_answers=pl.lit(1, pl.Int32), n_answers_whole=pl.lit(None, pl.Int32))
    return frame.select(SAMPLE_COLUMNS)


def rows(snapshot: Snapshot, column: str = "activation") -> pl.DataFrame:
    """All rows in memory, for a table of few samples: `sample_id`, `layer`, and the column as `activation`."""
    query = f"SELECT sample_id, layer, {_stored(snapshot, column)} FROM {ACTIVATION} ORDER BY sample_id, layer"
    snapshot.make_room_to_sort(ACTIVATION, [column])
    found = snapshot.connection.sql(query).to_arrow_table()
    frame = pl.DataFrame(pl.from_arrow(found.select(["sample_id", "layer"])))
    return frame.with_columns(activation=pl.Series(vectors(found, column)).cast(VECTOR))


def poolings_of(snapshot: Snapshot) -> tuple[Pooling, ...]:
    """The poolings that a file holds; none where its tables are missing."""
    if not snapshot.has_table(ACTIVATION):
        return ()
    columns = snapshot.connection.sql(f"FROM {ACTIVATION} LIMIT 0").columns
    return tuple(pooling for pooling in POOLINGS if pooled("activation", pooling) in columns)


def layers_of(snapshot: Snapshot) -> list[int]:
    """The layers of the extraction, in order."""
    return [
        layer
        for (layer,) in snapshot.connection.execute(
            f"SELECT DISTINCT layer FROM {ACTIVATION} ORDER BY layer"
        ).fetchall()
    ]


def scan(
    snapshot: Snapshot, column: str = "activation", sample_ids: Sequence[str] | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Stream the table once, in bounded memory.

    Args:
        snapshot: Snapshot of the file.
        column: Column of the table.
        sample_ids: Samples to read, each once; all in the order of `samples` by default.

    Yields:
        A layer, indices of samples in the order of `sample_ids` `(n,)`, their activations `(n, width)` in float32.
    """
    wanted = samples(snapshot)["sample_id"].to_list() if sample_ids is None else sample_ids
    bound_memory(snapshot, column)
    columns = f"layer, {_stored(snapshot, column)}"
    for indices, batch in stream(snapshot.connection, ACTIVATION, columns, wanted, SCAN_ROWS):
        layers, activations = batch["layer"].to_numpy(), vectors(batch, column)
        changes = [0, *(np.flatnonzero(np.diff(layers)) + 1).tolist(), len(layers)]
        for begin, end in itertools.pairwise(changes):
            yield int(layers[begin]), indices[begin:end], activations[begin:end]


def bound_memory(snapshot: Snapshot, column: str) -> None:
    """Keep DuckDB from filling the memory with what it reads of a column."""
    limit_memory(snapshot.connection, _width(snapshot, column))


def is_half(snapshot: Snapshot, column: str = "activation") -> bool:
    """Whether a file holds a column as float16."""
    return scale_of(column) in snapshot.connection.sql(f"FROM {ACTIVATION} LIMIT 0").columns


def _stored(snapshot: Snapshot, column: str) -> str:
    """What is read of a column, as SQL: it, and its scales where it has some."""
    return f"{column}, {scale_of(column)}" if is_half(snapshot, column) else column


def _width(snapshot: Snapshot, column: str) -> int:
    row = snapshot.connection.execute(f"SELECT len({column}) FROM {ACTIVATION} LIMIT 1").fetchone()
    return int(row[0]) if row else 0


def matrix(snapshot: Snapshot, layer: int, column: str = "activation") -> np.ndarray:
    """One layer's activations of all samples, `(n_samples, width)`, in the order of `samples`."""
    query = f"SELECT {_stored(snapshot, column)} FROM {ACTIVATION} WHERE layer = ? ORDER BY sample_id"
    snapshot.make_room_to_sort(f"{ACTIVATION} WHERE layer = ?", [column], [layer])
    return vectors(snapshot.connection.sql(query, params=[layer]).to_arrow_table(), column)


def of_sample(snapshot: Snapshot, sample_id: str) -> dict[int, np.ndarray]:
    """One sample's activations by layer, each `(width,)`; empty where it has none."""
    query = f"SELECT layer, {_stored(snapshot, 'activation')} FROM {ACTIVATION} WHERE sample_id = ? ORDER BY layer"
    found = snapshot.connection.sql(query, params=[sample_id]).to_arrow_table()
    return dict(zip(found["layer"].to_pylist(), vectors(found, "activation"), strict=True))


def strongest_neurons(snapshot: Snapshot, sample_id: str | None = None, pooling: Pooling = ALL) -> pl.DataFrame:
    """The strongest neurons of one sample, or of all: `sample_id`, `layer`, `neuron`, `value` in standard deviations.

    Only a table of projections has them.
    """
    layer, neuron, value = (pooled(f"strongest_{what}", pooling) for what in ("layer", "neuron", "value"))
    query = f"""
        SELECT sample_id, unnest({layer}) AS layer, unnest({neuron}) AS neuron, unnest({value}) AS value
        FROM {ACTIVATION} WHERE $sample_id IS NULL OR sample_id = $sample_id
    """
    return snapshot.connection.sql(query, params={"sample_id": sample_id}).pl()
