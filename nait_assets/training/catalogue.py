"""Outputs of the training: models of each cell, of the references and of the probes, and the rows of the probes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from nait_assets.catalogue import Output, PartitionedBy
from nait_assets.lineage import Record, reference
from nait_assets.models.libraries import library_versions
from nait_assets.models.running import model_inputs
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import hashes_of, remove, sha256
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import content_version
from nait_assets.training import models
from nait_assets.training.launch import launch_of
from nait_assets.training.preflight import require_fit
from nait_assets.training.runs import FOLDER, MANIFEST, TRAINERS, base_of, model_folder
from nait_assets.training.tables import LOSS_CURVES, PROBE_SUBSETS, TRAINED_MODELS

Rows = Literal["subset", "matched", "full", "random", "probes"]


@dataclass(frozen=True, eq=False)
class ModelsOutput(Output):
    """Trained models: rows of `tables.TRAINED_MODELS`, one a seed or draw, and a folder each, which outputs may share.

    Attributes:
        rows: what the models are trained on.
        method: method of the subset; "" where there is none.
    """

    rows: Rows = "subset"
    method: str = ""

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        base = base_of(recipe, model)
        return {
            **model_inputs(base, base.source),
            **library_versions(*TRAINERS),
            **launch_of(recipe).versions,
        }

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:  # noqa: ARG002, D102
        require_fit(recipe, model)

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:  # noqa: ARG002, D102
        if not warehouse.tables.path.exists():
            return []
        with warehouse.tables.snapshot() as tables:
            return [model_folder(warehouse.folder, key) for key in self.keys(tables, partition)]

    def keys(self, tables: Snapshot, partition: str) -> list[str]:
        """Keys of a partition's models, by number; none where it has not been made."""
        if not tables.has_table(TRAINED_MODELS.name):
            return []
        rows = tables.rows(TRAINED_MODELS, asset=self.key, partition=partition)
        return [str(key) for key in rows.sort("number")["key"]]

    def read(  # noqa: D102
        self,
        warehouse: Warehouse,  # noqa: ARG002
        tables: Snapshot,
        partition: str,
    ) -> tuple[pl.DataFrame, dict[str, str]]:
        record = tables.note(self.key, partition)
        rows = tables.rows(TRAINED_MODELS, asset=self.key, partition=partition)
        return rows, {record.reference: record.data_version}

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:
        """Whether the rows are the record's, and every model's files those of its manifest."""
        with warehouse.tables.snapshot() as tables:
            rows = tables.rows(TRAINED_MODELS, asset=self.key, partition=record.partition)
        if version_of(rows) != record.data_version:
            return [f"the {len(rows)} rows of {record.reference} in {TRAINED_MODELS.name} are not those recorded"]
        folders = [model_folder(warehouse.folder, str(key)) for key in rows["key"]]
        return [fault for folder in dict.fromkeys(folders) for fault in models.faults_of(folder)]

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: D102
        rows = stored.rows(TRAINED_MODELS, asset=self.key, partition=partition)
        found = {TRAINED_MODELS.name: content_version(rows, TRAINED_MODELS.key)}
        for key in self.keys(stored, partition):
            curve = stored.rows(LOSS_CURVES, key=key)
            found[f"{LOSS_CURVES.name} of {key}"] = content_version(curve, LOSS_CURVES.key)
            manifest = model_folder(warehouse.folder, key) / MANIFEST
            if manifest.is_file():
                found[f"{FOLDER}/{key}/{MANIFEST}"] = sha256(manifest)
        return found

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: D102
        folders = {key: model_folder(warehouse.folder, key) for key in self.keys(stored, partition)}
        return {f"{key}/{name}": digest for key, at in folders.items() for name, digest in hashes_of(at).items()}

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:  # noqa: ARG002, D102
        keys = self.keys(tables, partition)
        if keys:
            tables.delete(TRAINED_MODELS, asset=self.key, partition=partition)
        tables.forget(self.key, partition)
        drop_unused(warehouse, tables, keys)


def version_of(rows: pl.DataFrame) -> str:
    """Data version of some models: of what they were made from, as the last bits of weights are the machine's."""
    return content_version(rows.select("number", "key"), ("number",))


def drop_unused(warehouse: Warehouse, tables: Transaction, keys: Sequence[str]) -> list[str]:
    """Remove the folders and curves of those of some models that no output has any more; their keys."""
    used = set(tables.rows(TRAINED_MODELS)["key"]) if tables.has_table(TRAINED_MODELS.name) else set()
    unused = sorted(set(keys) - used)
    for key in unused:
        remove(model_folder(warehouse.folder, key))
        if tables.has_table(LOSS_CURVES.name):
            tables.delete(LOSS_CURVES, key=key)
    return unused


def restate(warehouse: Warehouse, tables: Transaction, keys: Collection[str]) -> None:
    """Bring the records of all outputs that have some models to the manifests that these have now.

    A model that was removed and is trained again has other costs, and on another machine other last bits.
    """
    rows = tables.rows(TRAINED_MODELS).filter(pl.col("key").is_in(list(keys)))
    records = tables.records()
    for asset, partition in rows.select("asset", "partition").unique().rows():
        record, output = records.get(reference(asset, partition)), output_named(asset)
        if record is not None and output is not None:
            tables.put_record(replace(record, beside=output.beside(warehouse, tables, partition)))


def models_output(method: str) -> ModelsOutput:
    """Models trained on the subsets of a method."""
    return ModelsOutput(f"training/{method}_model", "trained_cell", rows="subset", method=method)


def matched_output(method: str) -> ModelsOutput:
    """Models trained on random rows with the number of answer tokens of a method's subsets."""
    return ModelsOutput(f"training/{method}_random_matched", "trained_cell", rows="matched", method=method)


def _reference(name: str, rows: Rows, partitions: PartitionedBy | None = None) -> ModelsOutput:
    return ModelsOutput(f"training/{name}", partitions, rows=rows)


FULL_REFERENCE = _reference("full_reference", "full")
RANDOM_REFERENCE = _reference("random_reference", "random", "trained_ratio")
PROBE_MODELS = _reference("probe_models", "probes")
PROBE_SUBSETS_OUTPUT = Output(PROBE_SUBSETS.asset, None, PROBE_SUBSETS)


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the training of a recipe; none without its section `training`."""
    training = recipe.training
    if training is None:
        return []
    methods, reference = training.methods_of(recipe), training.reference
    return [
        *map(models_output, methods),
        *(map(matched_output, methods) if reference.random_matched else ()),
        *([FULL_REFERENCE] if reference.full else []),
        *([RANDOM_REFERENCE] if reference.random else []),
        *([PROBE_SUBSETS_OUTPUT, PROBE_MODELS] if training.probes else []),
    ]


def output_named(key: str) -> Output | None:
    """An output that a recipe may no longer have, by its key."""
    for output in (FULL_REFERENCE, RANDOM_REFERENCE, PROBE_MODELS, PROBE_SUBSETS_OUTPUT):
        if output.key == key:
            return output
    for make in (models_output, matched_output):
        begin, _, end = make("*").key.partition("*")
        if key.startswith(begin) and key.endswith(end):
            return make(key[len(begin) : -len(end)])
    return None
