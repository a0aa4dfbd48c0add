"""The spool: a shard is there whole or it is not there, and comes back as it was written."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_assets.extraction.activation_table import shard_schema
from nait_assets.extraction.spool import Manifest, Spool
from nait_assets.models.batches import BatchResult, PooledActivations
from nait_assets.models.encoding import Cut, EncodedSample, Shard

LAYERS = (3, 5)
WIDTH = 4


def sample(name: str, n_tokens: int, cut: Cut = "") -> EncodedSample:
    return EncodedSample(name, np.arange(n_tokens, dtype=np.int32), cut)


def pooled(*samples: EncodedSample) -> PooledActivations:
    """Activations of which every one says its sample, layer and neuron."""
    values = [
        [[ord(one.sample_id) + layer / 10 + n / 100 for n in range(WIDTH)] for layer in LAYERS] for one in samples
    ]
    return PooledActivations({"activation": np.asarray(values, np.float32)})


A, B, C = sample("a", 9), sample("b", 7, cut="prompt"), sample("c", 5)
SHARD = Shard(((A, B), (C,)), "name")
MEASUREMENTS = [BatchResult((A, B), pooled(A, B)), BatchResult((C,), pooled(C))]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "candidates.spool" / "extraction", shard_schema(WIDTH, keep_first_and_last=False))


def write(spool: Spool) -> Manifest:
    return spool.write(SHARD, MEASUREMENTS, LAYERS, seconds=1.5, peak_memory_bytes=7)


def test_shard_comes_back_layer_by_layer(spool: Spool) -> None:
    """Each row says its sample and layer; a layer's rows lie side by side, for whoever reads one layer."""
    table = spool.table(write(spool))

    assert table.schema == spool.schema
    assert table["sample_id"].to_pylist() == ["a", "b", "c", "a", "b", "c"]
    assert table["layer"].to_pylist() == [3, 3, 3, 5, 5, 5]
    assert table["n_tokens"].to_pylist() == [9, 7, 5, 9, 7, 5]
    assert table["cut"].to_pylist() == ["", "prompt", "", "", "prompt", ""]
    expected = [
        [ord(name) + layer / 10 + n / 100 for n in range(WIDTH)] for layer in LAYERS for name in ("a", "b", "c")
    ]
    np.testing.assert_array_equal(np.asarray(table["activation"].to_pylist()), np.asarray(expected, np.float32))


def test_manifest_says_what_the_shard_holds_and_cost(spool: Spool) -> None:
    """A run that goes on counts with it what another has read."""
    written = write(spool)

    assert (written.n_samples, written.n_tokens, written.n_cut, written.seconds) == (3, 21, 1, 1.5)
    assert written.rejected == ()
    assert spool.manifest(SHARD) == written


def test_rejected_samples_are_in_the_manifest_and_not_in_the_rows(spool: Spool) -> None:
    """Their reasons must outlive the process that found them."""
    readings = [BatchResult((A,), pooled(A), (("b", "too long"),)), BatchResult((), None, (("c", "the same"),))]

    spool.write(SHARD, readings, LAYERS, 1.0, 7)

    found = spool.manifest(SHARD)
    assert found is not None
    assert (found.n_samples, found.n_tokens, found.rejected) == (1, 9, (("b", "too long"), ("c", "the same")))
    assert spool.table(found)["sample_id"].to_pylist() == ["a", "a"]


def test_shard_of_which_all_samples_were_rejected_has_no_rows(spool: Spool) -> None:
    """It is finished all the same: it would be read for ever."""
    readings = [BatchResult((), None, tuple((one.sample_id, "too long") for one in SHARD.samples))]

    spool.write(SHARD, readings, LAYERS, 1.0, 7)

    found = spool.manifest(SHARD)
    assert found is not None
    assert (found.n_samples, found.n_tokens) == (0, 0)
    assert spool.table(found).num_rows == 0
    assert spool.table(found).schema == spool.schema


def test_shard_that_was_never_written_is_not_there(spool: Spool) -> None:
    """Nor is its folder."""
    assert spool.manifest(SHARD) is None


def rewrite(manifest: Path, **changed: Any) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changed}))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrow, _: arrow.write_bytes(arrow.read_bytes()[:-100]),
        lambda arrow, _: flip_a_bit(arrow),
        lambda arrow, _: arrow.unlink(),
        lambda _, manifest: manifest.unlink(),
        lambda _, manifest: manifest.write_bytes(manifest.read_bytes()[:50]),
        lambda _, manifest: manifest.write_bytes(b"\xff\x00{"),
        lambda _, manifest: manifest.write_text("[]"),
        lambda _, manifest: manifest.write_text('{"shard": "name"}'),
        lambda _, manifest: rewrite(manifest, sha256="0" * 64),
        lambda _, manifest: rewrite(manifest, n_samples=2),
        lambda _, manifest: rewrite(manifest, n_samples=2, rejected=[["z", "a sample of another shard"]]),
        lambda _, manifest: rewrite(manifest, n_samples=2, rejected=[["c"]]),
        lambda _, manifest: rewrite(manifest, unknown=1),
    ],
    ids=[
        "Arrow file truncated",
        "bit flipped",
        "Arrow file missing",
        "manifest missing",
        "manifest truncated",
        "manifest no text",
        "manifest no mapping",
        "manifest without fields",
        "other hash",
        "fewer samples",
        "stranger rejected",
        "rejected without a reason",
        "unknown field",
    ],
)
def test_damaged_shard_is_not_there(spool: Spool, damage: Callable[[Path, Path], None]) -> None:
    """Read again it costs a minute; folded, it would be in every score."""
    write(spool)

    damage(spool.folder / "name.arrow", spool.folder / "name.json")

    assert spool.manifest(SHARD) is None
    write(spool)
    assert spool.manifest(SHARD) is not None


def test_files_of_another_shard_under_this_name_are_not_taken(spool: Spool) -> None:
    """The manifest is whole and so is its Arrow file, but neither is of the samples that are asked for."""
    write(spool)
    other = dataclasses.replace(SHARD, name="other")

    shutil.copy(spool.folder / "name.json", spool.folder / "other.json")

    assert spool.manifest(other) is None


def test_written_shard_leaves_nothing_beside_it(spool: Spool) -> None:
    """Temporary files are renamed or gone."""
    write(spool)

    assert sorted(file.name for file in spool.folder.iterdir()) == ["name.arrow", "name.json"]


def test_removal_takes_the_shards_of_every_extraction(spool: Spool) -> None:
    """Those of settings that nobody uses any more would lie there for ever."""
    write(spool)
    write(Spool(spool.folder.parent / "other", spool.schema))

    spool.remove()
    spool.remove()

    assert list(spool.folder.parent.parent.iterdir()) == []
