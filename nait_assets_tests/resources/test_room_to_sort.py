"""A table that is wider than what DuckDB may hold is hashed in order all the same."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nait_assets.resources import snapshot
from nait_assets.resources.warehouse import Store
from nait_assets.tables import VECTOR, Table, content_digest

TABLE = Table("measurements.wide", pl.Schema({"sample_id": pl.String(), "vector": VECTOR}), (), ("sample_id",))
LIMIT_MIB = 128


def test_rows_in_no_order_are_hashed_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB fails where it sorts more than its limit, and does not go to the disk."""
    random = np.random.default_rng(0)
    ids = [f"{number:016x}" for number in random.permutation(12_000)]
    vectors = random.normal(size=(12_000, 4_096)).astype(np.float32)  # 188 MiB
    rows = pl.DataFrame({"sample_id": ids, "vector": list(vectors)}, schema=TABLE.columns)
    store = Store(tmp_path / "wide.duckdb")
    with store.transaction() as transaction:
        transaction.append(TABLE, rows)
    monkeypatch.setattr(snapshot, "MEMORY_MIB", LIMIT_MIB)
    with store.snapshot() as stored:
        stored.connection.execute(f"SET memory_limit = '{LIMIT_MIB}MiB'")
        assert stored.content(TABLE) == content_digest(rows, TABLE.key)
