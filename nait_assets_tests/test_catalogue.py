"""The catalogue: what an output says of itself, and what of it is not as it was written."""

from pathlib import Path

import polars as pl
import pytest

from nait_assets.catalogue import Catalogue, FolderOutput, Output
from nait_assets.errors import WarehouseError
from nait_assets.lineage import Record
from nait_assets.resources import Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.tables import Table, content_version

TABLE = Table(
    "toys.sizes",
    pl.Schema({"capability": pl.String(), "sample_id": pl.String(), "size": pl.Int64()}),
    ("capability",),
    ("sample_id",),
)
SIZES = Output(TABLE.asset, "capability", TABLE, on_demand=True)
FRAME = pl.DataFrame({"sample_id": ["b", "a"], "size": [2, 1]})


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """A home with the sizes of one capability."""
    found = Warehouse(home=str(tmp_path))
    with found.tables.transaction() as tables:
        tables.replace(TABLE, FRAME, capability="math")
        tables.put_record(Record(SIZES.key, "math", "1", content_version(FRAME, TABLE.key)))
    return found


def test_a_table_says_what_it_holds(warehouse: Warehouse) -> None:
    """Rooms say only what is otherwise of theirs."""
    record = warehouse.records()["toys/sizes[math]"]
    with warehouse.tables.snapshot() as tables:
        frame, versions = SIZES.read(warehouse, tables, "math")
        assert SIZES.exists(warehouse, tables, "math")
        assert not SIZES.exists(warehouse, tables, "code")
        with pytest.raises(WarehouseError):
            SIZES.read(warehouse, tables, "code")
    assert sorted(frame["size"].to_list()) == [1, 2]
    assert versions == {"toys/sizes[math]": record.data_version}
    assert (SIZES.room, SIZES.by_capability) == ("toys", True)
    assert SIZES.refused(warehouse, "math") == {}


def test_rows_that_were_edited_are_a_fault(warehouse: Warehouse) -> None:
    """The record holds the hash of what was written, whatever the order of its rows."""
    record = warehouse.records()["toys/sizes[math]"]
    assert SIZES.faults(warehouse, record) == []
    with warehouse.tables.transaction() as tables:
        tables.replace(TABLE, FRAME.reverse(), capability="math")
    assert SIZES.faults(warehouse, record) == []
    with warehouse.tables.transaction() as tables:
        tables.replace(TABLE, FRAME.with_columns(size=3), capability="math")
    (fault,) = SIZES.faults(warehouse, record)
    assert "the 2 rows in toys.sizes have the hash" in fault


def test_a_folder_that_changed_is_a_fault(tmp_path: Path) -> None:
    """The version is that of all its files."""
    warehouse, output = Warehouse(home=str(tmp_path)), FolderOutput("toys/model", place="toys/model")
    folder = output.folder(warehouse)
    assert folder == tmp_path / "toys" / "model"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    record = Record(output.key, "", "1", folder_version(folder))
    assert output.faults(warehouse, record) == []
    (folder / "weights").write_bytes(b"2")
    assert output.faults(warehouse, record) == [f"the files in {folder} are not those that were written"]
    (folder / "weights").unlink()
    folder.rmdir()
    assert output.faults(warehouse, record) == [f"{folder} is gone"]


def test_a_catalogue_has_an_output_once_and_rooms_in_order() -> None:
    """Two outputs of one key would overwrite each other's tables; the order of rooms is the order of the stages."""
    catalogue = Catalogue([Output("b/x"), Output("a/y"), Output("b/z")])
    assert catalogue.rooms == ["b", "a"]
    assert list(catalogue) == ["b/x", "a/y", "b/z"]
    with pytest.raises(AssertionError, match="two outputs have the key a/y"):
        Catalogue([Output("a/y"), Output("a/y")])
