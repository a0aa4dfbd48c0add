"""The home around the outputs: files that no output accounts for, rows without a record, remembered hashes, Dagster's.

Belongs here: what is wrong with a home and with no output of it. What an output holds is verified by `chain`.
"""

import functools
import re
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from nait_assets.audit.chain import UNREADABLE, Auditor, Link, told
from nait_assets.catalogue import FolderOutput
from nait_assets.corpora.catalogue import CorpusOutput
from nait_assets.lineage import reference
from nait_assets.resources import dagster_files, verified_folder
from nait_assets.resources import home as homes
from nait_assets.resources.files import hashes_from_bytes
from nait_assets.resources.warehouse import Snapshot, Store
from nait_assets.scoring.catalogue import THRESHOLDS, scores_output
from nait_assets.scoring.view import VIEW, view_is_as_made
from nait_assets.selection.catalogue import MANIFEST, subset_output
from nait_assets.tables import CORPUS_COUNTS, REJECTED_ROWS, SUBSETS, Table
from nait_assets.training.tables import LOSS_CURVES, TRAINED_MODELS

HOME = "home"
DAGSTER, CONVERTED = "dagster", "models"
LEFT_BEHIND = re.compile(r"\..+\.([0-9a-f]{8}|[0-9a-f]{12}|old)|\.lock|.+\.duckdb\.(tmp|wal)|.+\.spool")
"""Names of what a run writes to before it is finished, or left when it was killed."""
OWN_FILES = (homes.FILE, "hashes.json", "warehouse.duckdb")


def home_links(auditor: Auditor) -> list[Link]:
    """What is verified of a home beside its outputs, a link each; their output is `home`."""
    folder = auditor.warehouse.folder
    verified: dict[str, Callable[[], Iterable[str]]] = {
        homes.FILE: lambda: homes.faults(folder),
        "hashes.json": auditor.warehouse.hashes.faults,
        "files": lambda: _foreign(auditor),
        DAGSTER: lambda: dagster_files.faults(folder / DAGSTER),
        CONVERTED: lambda: _converted_faults(folder / CONVERTED),
    }
    auditor.records  # noqa: B018  finds what is damaged
    for file in auditor.warehouse.files():
        if file.exists():
            verified[file.relative_to(folder).as_posix()] = functools.partial(_database_faults, auditor, file)
    links = []
    for what, find in verified.items():
        with hashes_from_bytes(auditor.taken):
            try:
                faults = list(find())
            except UNREADABLE as error:
                faults = [told(error)]
        links.append(Link(HOME, what, not faults, "; ".join(faults) or "as it should be"))
    return links


def _converted_faults(models: Path) -> Iterator[str]:
    """What is wrong with converted weights; the next run that reads them makes them again."""
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        if not LEFT_BEHIND.fullmatch(folder.name):
            found = verified_folder.faults(folder)
            if found:
                yield f"{folder}: {'; '.join(found)}; delete it: it is made again"


def other_outputs(auditor: Auditor) -> list[str]:
    """References of the outputs that have a record and that no subset rests on, in alphabetical order."""
    return sorted(name for name in auditor.records if name not in auditor.verified)


def _foreign(auditor: Auditor) -> Iterator[str]:
    """Files that no output accounts for."""
    home = auditor.warehouse.folder
    known, folders = _accounted_for(auditor)
    ways = {above for path in (*known, *folders) for above in path.parents}
    for path in sorted(home.rglob("*")):
        parts = path.relative_to(home).parts
        is_way = path.is_dir() and (path in ways or not path.is_symlink())
        is_own = path in known or parts[0] in (DAGSTER, CONVERTED) or any(map(LEFT_BEHIND.fullmatch, parts))
        if not (is_way or is_own or path in folders or folders & set(path.parents)):
            yield f"{path} is no file that nait_assets wrote, or its record is gone"


def _accounted_for(auditor: Auditor) -> tuple[set[Path], set[Path]]:
    """Files that belong to the home or an output, and folders whose files an output verifies all."""
    warehouse = auditor.warehouse
    known = {warehouse.folder / name for name in OWN_FILES} | set(auditor.damaged)
    folders = {  # which a run that was cut off leaves unfinished, and the next goes on with
        output.folder(warehouse) for output in auditor.catalogue.values() if isinstance(output, FolderOutput)
    }
    for record in auditor.records.values():
        found = auditor.output_of(record.asset)
        if found is not None:
            files = found.files(auditor.recipe, warehouse, record.partition)
            known |= {found.store(warehouse, record.partition).path, *files}
            folders |= {file for file in files if file.is_dir()}
            folders |= {file.parent for file in files if file.name == MANIFEST}
    return known, folders


def _database_faults(auditor: Auditor, file: Path) -> Iterator[str]:
    """What is wrong with a DuckDB file beside the rows of outputs."""
    if file in auditor.damaged:
        yield auditor.damaged[file]
        return
    with Store(file).snapshot() as snapshot:
        query = "SELECT asset, partition FROM lineage.versions GROUP BY ALL HAVING count(*) > 1"
        if snapshot.has_table("lineage.versions"):
            for asset, partition in snapshot.connection.execute(query).fetchall():
                yield f"{reference(asset, partition)} has several records"
        for record in snapshot.records().values():
            output = auditor.output_of(record.asset)
            if output is not None and output.store(auditor.warehouse, record.partition).path != file:
                yield f"the record of {record.reference} does not belong into {file}"
        if file == auditor.warehouse.tables.path:
            yield from _orphans(auditor, snapshot)
            if not view_is_as_made(snapshot, auditor.recipe):
                yield f"the view {VIEW} shows something else than the scores of the recipe's methods"


def _orphans(auditor: Auditor, snapshot: Snapshot) -> Iterator[str]:
    """Rows of the tables of outputs that no record accounts for."""
    records = auditor.records
    for output in auditor.catalogue.values():
        table = output.table
        if table is not None and output.store(auditor.warehouse, "").path == auditor.warehouse.tables.path:
            for partition in _slices(snapshot, table):
                if reference(output.key, partition) not in records:
                    yield f"{table.name} holds rows of {partition or output.key}, of which there is no record"
    for table, output_of in ((SUBSETS, subset_output), (THRESHOLDS, scores_output)):
        for cell in _slices(snapshot, table):
            method, _, partition = cell.partition("|")
            if reference(output_of(method).key, partition) not in records:
                yield f"{table.name} holds rows of {cell}, of which there is no record"
    yield from _orphaned_models(snapshot, records)
    outputs = ((auditor.output_of(record.asset), record.partition) for record in records.values())
    corpora = {output.corpus(partition) for output, partition in outputs if isinstance(output, CorpusOutput)}
    for table in (REJECTED_ROWS, CORPUS_COUNTS):
        for corpus in set(_slices(snapshot, table)) - corpora:
            yield f"{table.name} holds rows of {corpus}, of which there is no record"


def _orphaned_models(snapshot: Snapshot, records: Container[str]) -> Iterator[str]:
    """Trained models of which there is no record, and curves of models that are no output's."""
    known = snapshot.has_table(TRAINED_MODELS.name)
    models = snapshot.rows(TRAINED_MODELS) if known else TRAINED_MODELS.columns.to_frame()
    for asset, partition in models.select("asset", "partition").unique().sort("asset", "partition").rows():
        if reference(asset, partition) not in records:
            yield f"{TRAINED_MODELS.name} holds rows of {reference(asset, partition)}, of which there is no record"
    for key in sorted(set(_slices(snapshot, LOSS_CURVES)) - set(models["key"])):
        yield f"{LOSS_CURVES.name} holds the training of {key}, which is of no output"


def _slices(snapshot: Snapshot, table: Table) -> list[str]:
    """Partitions that a table has rows of; "" for a table without partitions that has rows."""
    if not snapshot.has_table(table.name):
        return []
    columns = ", ".join(table.slice_columns) or "''"
    rows = snapshot.connection.execute(f"SELECT DISTINCT {columns} FROM {table.name} ORDER BY ALL").fetchall()
    return ["|".join(map(str, row)) for row in rows]
