"""Every SQL statement of the tamperings names tables and columns that are there: seen in seconds, without audits."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.measurements import codes, outputs
from nait_assets.measurements.engine import IDENTITIES, store_of
from nait_assets.resources import Warehouse
from nait_assets.tables import EVALUATION_SET, REJECTED_SAMPLES, Table, published_table
from nait_assets_tests.audit.tamperings import NOT_COVERED, TAMPERINGS, Statement

STATEMENTS = {
    name: tamper
    for name, tamper in {**{name: tamper for name, (tamper, _) in TAMPERINGS.items()}, **NOT_COVERED}.items()
    if isinstance(tamper, Statement)
}


@pytest.fixture
def work(home: Path) -> Path:
    """A folder with a home of a few methods, and the tables of those that it lacks, without rows."""
    warehouse = Warehouse(home=str(home))
    more: list[tuple[Table, str, str]] = [
        (measurement.table_of(corpus), measurement.name, corpus)
        for measurement, corpus in ((outputs.MEASUREMENTS[0], "candidates"), (codes.MEASUREMENT, "math"))
    ]
    for table, name, corpus in more:
        with store_of(warehouse, name, corpus).transaction() as transaction:
            for one in (table, IDENTITIES, REJECTED_SAMPLES):
                transaction.append(one, pl.DataFrame(schema=one.columns))
    with warehouse.tables.transaction() as transaction:
        for table in (EVALUATION_SET, FILTERED_CANDIDATES, published_table("cherry")):
            transaction.append(table, pl.DataFrame(schema=table.columns))
    return home.parent


def test_every_statement_fits_the_tables_of_today(work: Path) -> None:
    """A column that was renamed would else be found by the slow tests alone."""
    wrong = {}
    for name, statement in STATEMENTS.items():
        with duckdb.connect(str(work / statement.file)) as connection:
            connection.execute("BEGIN")
            try:
                connection.execute(statement.statement)
            except duckdb.Error as error:
                wrong[name] = str(error)
            else:
                connection.execute("ROLLBACK")
    assert not wrong
    assert len(STATEMENTS) > 50
