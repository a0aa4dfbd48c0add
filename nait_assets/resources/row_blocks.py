"""Rows of a stored table as blocks of Arrow, each row with its place along given samples, in bounded memory.

Belongs here: how a table is streamed, and where its rows belong. Does not belong here: what is made of a block.
"""

from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

from nait_assets.resources.snapshot import Snapshot
from nait_assets.tables import Table

MOST_ROWS = 4096
MOST_NUMBERS = 2**22
"""Numbers of one block, 17 MB in float32; a block has no fewer rows than `FEWEST_ROWS`, however wide they are."""
FEWEST_ROWS = 64
PROBED_ROWS = 64
RowBlock = tuple[np.ndarray, pl.DataFrame]
"""Places along the samples asked for `(n,)`, and the rows that stand there."""


def limit_memory(connection: duckdb.DuckDBPyConnection, n_numbers: int) -> None:
    """Let DuckDB hold what rows of a width take, and no more, until its engine is given back.

    Args:
        connection: Connection to the file.
        n_numbers: Numbers of a row, four bytes each; a row group of 2,048 rows has to fit a few times.
    """
    connection.execute(f"SET memory_limit = '{max(256, 6 * 2048 * 4 * n_numbers // 2**20)}MiB'")


def stream(
    connection: duckdb.DuckDBPyConnection, table: str, columns: str, sample_ids: Sequence[str], n_rows: int
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Columns of a table's rows of some samples, in the order in which they are stored.

    The names are looked up once, whatever the number of blocks: a block comes with the numbers that DuckDB gives rows.

    Args:
        connection: Connection to the file; it can stream one table at a time.
        table: Name of the table, with a column `sample_id`; a sample may have several rows, or none.
        columns: Expressions of SQL over it.
        sample_ids: Samples to read, each once.
        n_rows: Rows of a block.

    Yields:
        Places along `sample_ids`, `(n,)`, and the columns of these rows.
    """
    names = pa.table({"sample_id": pa.array(sample_ids, pa.string()), "place": np.arange(len(sample_ids))})
    connection.register("wanted", names)
    query = f"SELECT t.rowid AS stored_row, place FROM {table} t JOIN wanted USING (sample_id) ORDER BY stored_row"
    found = connection.sql(query).to_arrow_table()
    stored_rows, places = (found[name].to_numpy() for name in ("stored_row", "place"))
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    where = "" if len(places) == count else "WHERE sample_id IN (SELECT sample_id FROM wanted)"
    query = f"SELECT rowid AS stored_row, {columns} FROM {table} {where}"
    for batch in connection.sql(query).to_arrow_reader(n_rows):
        at = np.searchsorted(stored_rows, batch["stored_row"].to_numpy())
        yield places[at], batch.drop_columns(["stored_row"])


def blocks(snapshot: Snapshot, table: Table, columns: Sequence[str], sample_ids: Sequence[str]) -> Iterator[RowBlock]:
    """As `stream`, of a table with a row a sample: blocks of fewer rows the wider these are.

    Args:
        snapshot: Snapshot of the file.
        table: The table; a column that an earlier version of this project did not write is null.
        columns: Some of its columns.
        sample_ids: Samples to read, each once.
    """
    connection = snapshot.connection
    stored = connection.sql(f"FROM {table.name} LIMIT 0").columns
    expressions = [name if name in stored else f"NULL AS {name}" for name in columns]
    schema = pl.Schema({name: table.columns[name] for name in columns})
    n_numbers = _numbers_of_a_row(connection, table, [name for name in columns if name in stored])
    limit_memory(connection, n_numbers)
    n_rows = max(FEWEST_ROWS, min(MOST_ROWS, MOST_NUMBERS // max(1, n_numbers)))
    for places, batch in stream(connection, table.name, ", ".join(expressions), sample_ids, n_rows):
        yield places, pl.DataFrame(pl.from_arrow(batch)).cast(schema)


def _numbers_of_a_row(connection: duckdb.DuckDBPyConnection, table: Table, columns: Sequence[str]) -> int:
    """Numbers in the lists of a row, by the first rows: the most of each column."""
    lists = [name for name in columns if isinstance(table.columns[name], pl.List | pl.Array)]
    if not lists:
        return 0
    longest = ", ".join(f"max(len({name}))" for name in lists)
    (row,) = connection.execute(f"SELECT {longest} FROM (FROM {table.name} LIMIT {PROBED_ROWS})").fetchall()
    return sum(length or 0 for length in row)
