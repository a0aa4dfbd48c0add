"""The spool: finished shards beside the table, until they are folded into it.

A shard is an Arrow file and a manifest, written last: a shard without a matching manifest is not there. Any process
that sees the folder may write shards.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nait_assets.extraction.stored_numbers import HALF, halved, scale_of
from nait_assets.models import cuts
from nait_assets.models.batches import BatchResult
from nait_assets.models.encoding import EncodedSample, Shard
from nait_assets.resources.files import replacing, sha256


@dataclass(frozen=True)
class Manifest:
    """What a shard holds, and what it cost.

    Attributes:
        shard: Its name.
        n_samples: Samples that were read.
        n_tokens: Their tokens.
        n_cut: Number of samples that were cut.
        seconds: Wall time of reading them.
        peak_memory_bytes: Most memory that the process that read them had held by then: the GPU's on a GPU, else
            resident.
        rejected: Pairs of `sample_id` and reason.
        sha256: SHA-256 of the Arrow file.
    """

    shard: str
    n_samples: int
    n_tokens: int
    n_cut: int
    seconds: float
    peak_memory_bytes: int
    rejected: tuple[tuple[str, str], ...]
    sha256: str


class Spool:
    """A folder of shards of one extraction.

    Args:
        folder: Named after the extraction, so that no other finds its shards.
        schema: Schema of every shard.
    """

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema

    def manifest(self, shard: Shard) -> Manifest | None:
        """The manifest of a shard that lies here whole, else None."""
        try:
            fields = json.loads(self._manifest_path(shard.name).read_text())
            found = Manifest(**{**fields, "rejected": tuple(map(tuple, fields["rejected"]))})
            strangers = {sample_id for sample_id, _ in found.rejected} - {sample.sample_id for sample in shard.samples}
            n_samples = found.n_samples + len(found.rejected)
            its_own = found.shard == shard.name and not strangers and n_samples == len(shard.samples)
            whole = its_own and found.sha256 == sha256(self.path(found))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if whole else None

    def path(self, manifest: Manifest) -> Path:
        """A shard's Arrow file."""
        return self.folder / f"{manifest.shard}.arrow"

    def table(self, manifest: Manifest) -> pa.Table:
        """A shard's rows, in memory only as far as they are looked at."""
        with pa.memory_map(str(self.path(manifest))) as source:
            return pa.ipc.open_file(source).read_all()

    def write(
        self, shard: Shard, results: Sequence[BatchResult], rows: Sequence[int], seconds: float, peak_memory_bytes: int
    ) -> Manifest:
        """Store a shard.

        Args:
            shard: The shard.
            results: Results of its batches, in order.
            rows: Layers that the rows of a sample are.
            seconds: Wall time that reading took.
            peak_memory_bytes: Most memory that the process has held.
        """
        samples = [sample for result in results for sample in result.samples]
        with replacing(self.folder / f"{shard.name}.arrow") as temporary:
            table = _table(self.schema, samples, results, rows)
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
                writer.write_table(table)
            digest = sha256(temporary)
        manifest = Manifest(
            shard=shard.name,
            n_samples=len(samples),
            n_tokens=sum(len(sample.token_ids) for sample in samples),
            n_cut=sum(sample.cut != "" for sample in samples),
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes,
            rejected=tuple(pair for result in results for pair in result.rejected),
            sha256=digest,
        )
        with replacing(self._manifest_path(shard.name)) as temporary:
            temporary.write_text(json.dumps(asdict(manifest)))
        return manifest

    def remove(self) -> None:
        """Delete the shards of this and of every other extraction of the corpus."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _manifest_path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _table(
    schema: pa.Schema, samples: Sequence[EncodedSample], results: Sequence[BatchResult], rows: Sequence[int]
) -> pa.Table:
    """Samples as rows, layer by layer, so that whoever reads one layer finds it in one piece."""
    pooled = [result.pooled.columns for result in results if result.pooled is not None]
    if not pooled:
        return schema.empty_table()
    columns: dict[str, Any] = {
        "sample_id": [sample.sample_id for sample in samples] * len(rows),
        "layer": np.repeat(np.asarray(rows, np.int16), len(samples)),
        "n_tokens": [len(sample.token_ids) for sample in samples] * len(rows),
        **{name: values * len(rows) for name, values in cuts.columns_of(samples).items()},
    }
    arrays = []
    for field in schema:
        if field.name in columns:
            arrays.append(pa.array(columns.pop(field.name), field.type))
            continue
        width = field.type.list_size
        values = np.empty((len(rows), len(samples), width), pooled[0][field.name].dtype)
        begin = 0
        for part in (of_batch[field.name] for of_batch in pooled):
            values[:, begin : begin + len(part)] = part.swapaxes(0, 1)
            begin += len(part)
        if field.type.value_type == HALF:
            values, columns[scale_of(field.name)] = halved(values.reshape(-1, width))
        flat = pa.array(values.reshape(-1), field.type.value_type)
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, width))
    return pa.table(arrays, schema=schema)
