"""What a block sees of one DuckDB file: its tables, read-only or to be written, and the versions of what was read.

Belongs here: queries and what they note. Does not belong here: when a file is opened and closed (`warehouse`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa

from nait_assets.digests import SLICE_ROWS, digest_of_columns
from nait_assets.errors import DamagedError, WarehouseError
from nait_assets.lineage import RECORD_COLUMNS, Record, reference
from nait_assets.resources.engines import MEMORY_MIB
from nait_assets.resources.spooled_rows import SpooledRows
from nait_assets.tables import INDICES, VECTOR, Table


class Snapshot:
    """A read-only view of one file that notes the version of everything read through it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path):
        self.connection = connection
        self.path = path
        self.inputs: dict[str, str] = {}
        self._records: dict[str, Record] | None = None

    def read(self, table: Table, **where: str) -> pl.DataFrame:
        """A table's slice, and its version noted in `inputs`.

        Args:
            table: Table, whose name is also the key of the asset that wrote it.
            **where: Values of the table's slice columns, which are the asset's partition.

        Raises:
            WarehouseError: The slice has not been materialized.
        """
        self.note(table.asset, "|".join(where.values()))
        return self.rows(table, **where)

    def read_partition(self, table: Table, partition: str) -> pl.DataFrame:
        """As `read`, the slice given by the partition key of the asset that wrote it, "" for one without partitions."""
        return self.read(table, **table.slice_of(partition))

    def rows(self, table: Table, **where: str) -> pl.DataFrame:
        """A table's rows where columns have these values; nothing is noted."""
        query = f"SELECT {self._columns(table)} FROM {table.name} WHERE {_condition(where)}"
        return self.connection.sql(query, params=list(where.values())).pl().cast(table.columns)

    def rows_of(self, table: Table, sample_ids: Collection[str], **where: str) -> pl.DataFrame:
        """As `rows`, those of some samples, in any order."""
        self.connection.register("wanted_ids", pa.table({"sample_id": pa.array(sample_ids, pa.string())}))
        found = f"{table.name} SEMI JOIN wanted_ids USING (sample_id)"
        query = f"SELECT {self._columns(table)} FROM {found} WHERE {_condition(where)}"
        rows = self.connection.sql(query, params=list(where.values())).pl().cast(table.columns)
        self.connection.unregister("wanted_ids")
        return rows

    def slices(self, table: Table, **where: str) -> Iterator[pl.DataFrame]:
        """As `read`, a part of the rows after the other; nothing else can be asked meanwhile."""
        self.note(table.asset, "|".join(where.values()))
        query = f"SELECT {self._columns(table)} FROM {table.name} WHERE {_condition(where)}"
        for batch in self.connection.sql(query, params=list(where.values())).to_arrow_reader(SLICE_ROWS):
            yield pl.DataFrame(batch).cast(table.columns)

    def reduced(self, table: Table, columns: Mapping[str, pl.Expr], **where: str) -> pl.DataFrame:
        """As `read`, of each row what expressions make of it, so that the rest need not lie in memory.

        Args:
            table: Table with the columns that the expressions look at.
            columns: Expressions by the name of what they make.
            **where: Values of the table's slice columns.
        """
        # by way of the disk: a column that is kept as DuckDB gave it keeps the whole part that it came in
        kept = SpooledRows(table.columns.to_frame().select(**columns).schema, self.path.parent)
        for part in self.slices(table, **where):
            kept.append(part.select(**columns))
        return kept.frame()

    def spooled(self, table: Table, **where: str) -> SpooledRows:
        """As `read`, on disk: whoever looks at the rows for long keeps nobody from writing meanwhile."""
        spooled = SpooledRows(table.columns, self.path.parent)
        for part in self.slices(table, **where):
            spooled.append(part)
        return spooled

    def digest(self, table: Table, **where: str) -> str:
        """SHA-256 of a table's rows where columns have these values, hex; of no rows where there is no table."""
        if not self.has_table(table.name):
            return digest_of_columns(table.columns, 0, lambda _: False, lambda _: ())
        return self._digest(table, table.columns, tuple(table.columns), where)

    def version(self, table: Table, **where: str) -> str:
        """`tables.content_version` of the rows that a materialization wrote, in bounded memory; 16 hex digits."""
        return self.content(table, **where)[:16]

    def content(self, table: Table, **where: str) -> str:
        """`tables.content_digest` of the rows that a materialization wrote, in bounded memory; 64 hex digits."""
        return self._digest(table, table.written_columns, table.key, where)

    def _digest(self, table: Table, columns: pl.Schema, key: Sequence[str], where: Mapping[str, str]) -> str:
        given = f"(SELECT {self._columns(table)} FROM {table.name} WHERE {_condition(where)})"
        values = list(where.values())
        order = ", ".join(f"{name} NULLS FIRST" for name in key)
        counts = ", ".join(f"count(*) - count({name}) AS {name}" for name in columns)
        ((n_rows, *counted),) = self.connection.sql(f"SELECT count(*), {counts} FROM {given}", params=values).fetchall()

        n_nulls = dict(zip(columns, counted, strict=True))
        self.make_room_to_sort(given, [name for name, kind in columns.items() if kind in (VECTOR, INDICES)], values)

        def parts(name: str) -> Iterator[pl.Series]:
            query = f"SELECT {name} FROM {given} ORDER BY {order}"
            for batch in self.connection.sql(query, params=values).to_arrow_reader(SLICE_ROWS):
                yield pl.DataFrame(batch)[name].cast(columns[name])

        return digest_of_columns(columns, n_rows, lambda name: n_nulls[name] > 0, parts)

    def make_room_to_sort(self, rows: str, columns: Sequence[str], values: Sequence[str | int] = ()) -> None:
        """Let DuckDB hold a column of numbers while it sorts it: beyond its limit it fails, and does not use the disk.

        490 MB in rows of 4,096 took more than 500 MiB; 800 sufficed. The limit ends with the block.

        Args:
            rows: What is sorted, in SQL.
            columns: Lists of numbers of four bytes, one of which is sorted at a time.
            values: Values of the parameters in `rows`.
        """
        if columns:
            longest = ", ".join(f"coalesce(max(len({name})), 0)" for name in columns)
            ((n_rows, *lengths),) = self.connection.execute(
                f"SELECT count(*), {longest} FROM {rows}", list(values)
            ).fetchall()
            most = 4 * n_rows * max(lengths)
            self.connection.execute(f"SET memory_limit = '{max(MEMORY_MIB, 5 * most // 2**21)}MiB'")

    def _columns(self, table: Table) -> str:
        """A table's columns as they are selected: one that an earlier version of this project did not write is null."""
        stored = self.connection.sql(f"FROM {table.name} LIMIT 0").columns
        return ", ".join(name if name in stored else f"NULL AS {name}" for name in table.columns)

    def n_rows(self, table: Table, **where: str) -> int:
        """How many rows a table has where columns have these values."""
        condition = _condition(where)
        query = f"SELECT count(*) FROM {table.name} WHERE {condition}"
        ((count,),) = self.connection.execute(query, list(where.values())).fetchall()
        return int(count)

    def counted(self, table: Table, column: str, **where: str) -> dict[str, int]:
        """The values of a column where others have these values, and how often each occurs."""
        condition = _condition(where)
        query = f"SELECT {column}, count(*) FROM {table.name} WHERE {condition} GROUP BY ALL"
        return {str(value): count for value, count in self.connection.execute(query, list(where.values())).fetchall()}

    def note(self, asset: str, partition: str = "") -> Record:
        """The record of an asset's partition, noted as read.

        Raises:
            WarehouseError: It has not been materialized.
        """
        name = reference(asset, partition)
        record = self.records().get(name)
        if record is None:
            raise WarehouseError(
                f"{name} has not been materialized in {self.path}. Materialize it first; `nait run` does so in order."
            )
        self.inputs[name] = record.data_version
        return record

    def records(self) -> dict[str, Record]:
        """Version records by reference, read once: nothing else writes while this is open."""
        if self._records is None:
            try:
                result = self.connection.execute("FROM lineage.versions")
            except duckdb.CatalogException:  # cheaper than to ask whether the table is there
                return {}
            names = [column[0] for column in result.description]
            try:
                records = [Record.from_row(dict(zip(names, row, strict=True))) for row in result.fetchall()]
            except (ValueError, RecursionError) as error:
                raise DamagedError(f"{self.path}: lineage.versions is damaged: {error}") from error
            self._records = {record.reference: record for record in records}
        return self._records

    def has_table(self, name: str) -> bool:
        """Whether the file holds the table `<schema>.<name>`."""
        query = """
            SELECT count(*) FROM (SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'store'
            UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'store')
            WHERE schema_name || '.' || table_name = ?
        """
        ((count,),) = self.connection.execute(query, [name]).fetchall()
        return count > 0


class Transaction(Snapshot):
    """A snapshot that can also be written."""

    def replace(self, table: Table, frame: pl.DataFrame | SpooledRows, **where: str) -> None:
        """Make a table's slice be exactly the frame.

        Args:
            table: Created if it is not there.
            frame: Rows with the table's columns, the slice columns excepted or equal to `where`.
            **where: Values of the table's slice columns.
        """
        if self.has_table(table.name):
            condition = _condition(where)
            self.connection.execute(f"DELETE FROM {table.name} WHERE {condition}", list(where.values()))
        self.append(table, frame, **where)

    def append(self, table: Table, frame: pl.DataFrame | SpooledRows, **where: str) -> None:
        """Add the frame's rows to a table; arguments as for `replace`."""

        def full(part: pl.DataFrame) -> pa.Table:
            filled = part.with_columns(pl.lit(value).alias(column) for column, value in where.items())
            rows = filled.select(list(table.columns)).cast(table.columns)
            return rows.to_arrow(compat_level=pl.CompatLevel.oldest())

        parts = frame.parts() if isinstance(frame, SpooledRows) else frame.iter_slices(SLICE_ROWS)
        none = full(frame.schema.to_frame())  # first: it fails where a column is missing
        self._create(table, none)
        # One reader for all: DuckDB keeps what is registered until the transaction ends.
        batches = (batch for part in parts for batch in full(part).to_batches())
        self.connection.register("incoming", pa.RecordBatchReader.from_batches(none.schema, batches))
        try:
            self.connection.execute(f"INSERT INTO {table.name} BY NAME FROM incoming")
        except duckdb.BinderException as error:
            raise WarehouseError(
                f"{self.path}: the table {table.name} has other columns than expected ({error}). If another "
                "version of nait_assets wrote it, use a new home."
            ) from error
        self.connection.unregister("incoming")

    def _create(self, table: Table, none: pa.Table) -> None:
        """Make a table, or those of its columns that are not there, of the types that DuckDB gives Arrow's columns."""
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.name.split('.')[0]}")
        self.connection.register("none", none)
        found = self.connection.sql("FROM none")
        kinds = [f"{name} {kind}" for name, kind in zip(found.columns, found.types, strict=True)]
        self.connection.unregister("none")
        # Spelt out: of a table made by CREATE TABLE AS, DuckDB 2.0 finds few rows until the transaction has ended.
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(kinds)})")
        for kind in kinds:
            self.connection.execute(f"ALTER TABLE {table.name} ADD COLUMN IF NOT EXISTS {kind}")

    def delete(self, table: Table, **where: str) -> None:
        """Remove a table's rows where columns have these values, and the table with its last row."""
        condition = _condition(where)
        self.connection.execute(f"DELETE FROM {table.name} WHERE {condition}", list(where.values()))
        if not self.n_rows(table):
            self.connection.execute(f"DROP TABLE {table.name}")

    def forget(self, asset: str, partition: str) -> None:
        """Remove the version record of an asset's partition, if there is one."""
        self._records = None
        if self.has_table("lineage.versions"):
            query = "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?"
            self.connection.execute(query, [asset, partition])

    def put_record(self, record: Record) -> None:
        """Replace the version record of an asset's partition."""
        self._records = None
        self.connection.execute("CREATE SCHEMA IF NOT EXISTS lineage")
        columns = ", ".join(f"{name} VARCHAR" for name in RECORD_COLUMNS)
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS lineage.versions ({columns})")
        for name in RECORD_COLUMNS[5:]:  # which tables of earlier versions of this project lack
            self.connection.execute(f"ALTER TABLE lineage.versions ADD COLUMN IF NOT EXISTS {name} VARCHAR DEFAULT ''")
        self.connection.execute(
            "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?", [record.asset, record.partition]
        )
        names, marks = ", ".join(RECORD_COLUMNS), ", ".join("?" * len(RECORD_COLUMNS))
        self.connection.execute(f"INSERT INTO lineage.versions ({names}) VALUES ({marks})", list(record.row()))


def _condition(where: Mapping[str, str]) -> str:
    return " AND ".join(f"{column} = ?" for column in where) or "true"
