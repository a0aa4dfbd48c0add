"""Bring a home of schema 1 to the present one: what still serves is kept, the rest is read and made again.

Schema 1 is that of the code up to commit 78c080b. Its per-sample measurements were assets of the rooms `extraction` and
`features`, in the folder `readings/`; they are renamed here, with every version record that names them. Activations,
corpora, the history of subsets and the costs are left as they are. Features, scores, subsets and reports are dropped:
`nait run` makes them from what is kept. The code of 78c080b did not note which releases of libraries read a text, so
the model reads the texts of its homes again; a home that only lost its `home.json` keeps what was read. Each step may
be repeated: one that was cut off, by a full disk or a kill, is done over by the next command, as `home.json` is
written last.
"""

from collections.abc import Callable
from pathlib import Path

from nait_assets.lineage import Record
from nait_assets.recipe import fingerprint
from nait_assets.resources import home as homes
from nait_assets.resources.warehouse import Store, Transaction, Warehouse

ACTIVATIONS = ("candidate_activations", "in_domain_activations", "calibration_statistics")
REMADE_ROOMS = ("features", "scoring", "selection", "report", "audit")
NO_RELEASES = "it does not say which releases of torch, transformers and tokenizers read them"
KEPT_TABLES = ("selection.history",)
ADDED_COLUMNS = {
    "corpora.candidate_pool": ("conversation VARCHAR",),
    "corpora.in_domain_set": ("conversation VARCHAR",),
    "corpora.evaluation_set": ("conversation VARCHAR",),
    "corpora.counts": ("n_excluded BIGINT DEFAULT 0", "n_cut BIGINT DEFAULT 0"),
}
"""Columns that tables of schema 1 lack; the next run reads the corpora again from their sources and fills them."""


def carry_over(home: Path, report: Callable[[Record], None]) -> str:
    """Bring a home of schema 1 to the present schema.

    Args:
        home: Home folder that no other command writes to now.
        report: Tells the home's Dagster instance of an output under its present name, which it would make again.

    Returns:
        What was done, in one line.

    Raises:
        WarehouseError: A file cannot be opened.
    """
    n_measurements, n_dropped = _rename_folders(home), 0
    for file in sorted((home / "measurements").rglob("*.duckdb")):
        with Store(file).transaction() as transaction:
            _rename_tables(transaction)
            _rename_records(transaction)
    if (home / "warehouse.duckdb").exists():
        with Store(home / "warehouse.duckdb").transaction() as transaction:
            _rename_records(transaction)
            _rename_costs(transaction)
            _add_columns(transaction)
            n_dropped = _drop_remade(transaction)
    records = Warehouse(home=str(home)).records().values()
    for record in records:
        if record.asset.startswith("measurements/"):
            report(record)
    homes.mark(home)
    read = "activations" + (f", {n_measurements} measurements" if n_measurements else "")
    again = any(map(_is_read_again, records))
    return (
        f"{home} was written by an earlier version of nait_assets and is carried over: corpora, "
        f"{'' if again else f'{read}, '}history and costs are kept; {n_dropped} features, scores, subsets and reports "
        f"are made again{f', and the model reads the texts again ({read}): {NO_RELEASES}' if again else ''}."
    )


def _is_read_again(record: Record) -> bool:
    """Whether a model read it, and the record does not say with which libraries."""
    of_model = record.asset.startswith("extraction/") or any(name.startswith("model:") for name in record.inputs)
    return of_model and "torch" not in record.inputs


def renamed(reference: str) -> str:
    """The present name of an output of schema 1, with or without its partition; other names stay."""
    room, _, rest = reference.partition("/")
    name = rest.partition("[")[0]
    of_extraction = room == "extraction" and name not in ACTIVATIONS
    of_features = room == "features" and (name == "sparse_autoencoder" or name.endswith("_codes"))
    return f"measurements/{rest}" if of_extraction or of_features else reference


def _rename_folders(home: Path) -> int:
    """Move `readings/<name>` to `measurements/<name>`; how many measurements there are."""
    old, new = home / "readings", home / "measurements"
    for folder in sorted(old.iterdir()) if old.exists() else []:
        new.mkdir(exist_ok=True)
        if not (new / folder.name).exists():
            folder.rename(new / folder.name)
    if old.exists() and not any(old.iterdir()):
        old.rmdir()
    return sum(1 for _ in new.iterdir()) if new.exists() else 0


def _rename_tables(transaction: Transaction) -> None:
    """Move a measurement's tables into the schema `measurements`; the reasons of rejected samples stay in theirs."""
    for schema, name in _tables(transaction):
        if schema in ("extraction", "features") and f"{schema}.{name}" != "extraction.rejected":
            transaction.connection.execute("CREATE SCHEMA IF NOT EXISTS measurements")
            transaction.connection.execute(f"CREATE OR REPLACE TABLE measurements.{name} AS FROM {schema}.{name}")
            transaction.connection.execute(f"DROP TABLE {schema}.{name}")


def _rename_records(transaction: Transaction) -> None:
    """Give version records, and the inputs that they name, their present names."""
    for old in list(transaction.records().values()):
        inputs = {renamed(name): version for name, version in old.inputs.items()}
        new = Record(**{**vars(old), "asset": renamed(old.asset), "inputs": inputs})
        if new != old:
            _rename_identity(transaction, old, new)
            transaction.connection.execute(
                "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?", [old.asset, old.partition]
            )
            transaction.put_record(new)


def _rename_identity(transaction: Transaction, old: Record, new: Record) -> None:
    """Keep the rows of a measurement whose identity, a hash of its inputs' names and versions, changes with a name."""
    if transaction.has_table("measurements.identity"):
        transaction.connection.execute(
            "UPDATE measurements.identity SET identity = ? WHERE identity = ?", [_identity(new), _identity(old)]
        )


def _identity(record: Record) -> str:
    beside_corpus = {name: version for name, version in record.inputs.items() if not name.startswith("corpora/")}
    return fingerprint(record.code_version, beside_corpus)


def _rename_costs(transaction: Transaction) -> None:
    if transaction.has_table("lineage.costs"):
        for (asset,) in transaction.connection.execute("SELECT DISTINCT asset FROM lineage.costs").fetchall():
            transaction.connection.execute(
                "UPDATE lineage.costs SET asset = ? WHERE asset = ?", [renamed(asset), asset]
            )


def _add_columns(transaction: Transaction) -> None:
    """Give the tables of corpora the columns that they have now."""
    for table, columns in ADDED_COLUMNS.items():
        for column in columns if transaction.has_table(table) else ():
            transaction.connection.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")
    query = "SELECT table_name FROM duckdb_columns() WHERE schema_name = 'corpora' AND column_name = 'place'"
    for (published,) in transaction.connection.execute(query).fetchall():
        transaction.connection.execute(f"ALTER TABLE corpora.{published} RENAME COLUMN place TO position")


def _drop_remade(transaction: Transaction) -> int:
    """Drop the tables and records of what is made again; how many outputs they were."""
    outputs = [record for record in transaction.records().values() if record.asset.split("/")[0] in REMADE_ROOMS]
    for record in outputs:
        transaction.connection.execute(
            "DELETE FROM lineage.versions WHERE asset = ? AND partition = ?", [record.asset, record.partition]
        )
    transaction.connection.execute("DROP VIEW IF EXISTS scoring.scores")
    for schema, name in _tables(transaction):
        if schema in REMADE_ROOMS and f"{schema}.{name}" not in KEPT_TABLES:
            transaction.connection.execute(f"DROP TABLE {schema}.{name}")
    return len(outputs)


def _tables(transaction: Transaction) -> list[tuple[str, str]]:
    query = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'store' ORDER BY ALL"
    return transaction.connection.execute(query).fetchall()
