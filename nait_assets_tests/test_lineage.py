"""Lineage: names of outputs, records and their way through the table, and the walk back to the sources."""

import dagster as dg
import polars as pl

from nait_assets.lineage import RECORD_COLUMNS, Record, column_schema, reference, result, table_metadata, upstream


def record(asset: str, partition: str = "", **inputs: str) -> Record:
    """A record whose versions are its own name."""
    return Record(asset, partition, f"code of {asset}", f"data of {asset}", inputs)


def test_an_output_is_named_by_asset_and_partition() -> None:
    """One spelling for records, inputs, reasons and manifests."""
    assert reference("features/nait_directions", "math") == "features/nait_directions[math]"
    assert reference("corpora/candidate_pool") == reference("corpora/candidate_pool", "") == "corpora/candidate_pool"


def test_a_record_survives_its_row() -> None:
    """Versions are compared for equality: a record that comes back otherwise makes everything stale."""
    original = Record("features/nait_directions", "math", "1:abc", "def", {"source:0:é.jsonl": "123", "b": "4"})
    assert Record.from_row(dict(zip(RECORD_COLUMNS, original.row(), strict=True))) == original


def test_upstream_walks_to_the_sources_and_not_beyond() -> None:
    """A subset rests on the pool by two ways; what rests on the subset, or beside it, is none of its lineage."""
    records = {
        "pool": record("pool", source="1"),
        "activations": record("activations", pool="2", model="3"),
        "scores[math]": record("scores", "math", activations="4", pool="2"),
        "scores[code]": record("scores", "code", activations="4"),
        "subset": record("subset", **{"scores[math]": "5", "pool": "2"}),
    }
    found = upstream(records, records["subset"].inputs)
    assert list(found) == ["activations", "pool", "scores[math]"]
    assert found["activations"] == {
        "code_version": "code of activations",
        "data_version": "data of activations",
        "inputs": {"pool": "2", "model": "3"},
    }


def test_dagster_gets_the_version_and_the_inputs() -> None:
    """Without an explicit version Dagster makes one up from the code version, blind to content."""
    made = result(record("pool", source="1"), {"n": 3})
    assert made.data_version == dg.DataVersion("data of pool")
    assert made.metadata == {"n": 3, "nait/inputs": dg.MetadataValue.json({"source": "1"})}


def test_a_frame_is_shown_with_its_types_and_values() -> None:
    """Numbers stay numbers, so that the UI can sort them; anything else is shown as text."""
    frame = pl.DataFrame(
        {"rank": [1], "score": [0.5], "topic": [None], "roles": [["user"]]}, schema_overrides={"topic": pl.String}
    )
    assert [(column.name, column.type) for column in column_schema(frame).columns] == [
        ("rank", "Int64"),
        ("score", "Float64"),
        ("topic", "String"),
        ("roles", "List(String)"),
    ]
    table = table_metadata(frame)
    assert isinstance(table, dg.TableMetadataValue)
    assert [row.data for row in table.records] == [{"rank": 1, "score": 0.5, "topic": "None", "roles": "['user']"}]
    (row,) = table_metadata(pl.DataFrame({"loss": [1.984699273109436], "n": [123456789]})).value.records
    assert row.data == {"loss": 1.9847, "n": 123456789}
