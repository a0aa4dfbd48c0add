"""The worker: shards in, manifests out; a job travels to another process as it is."""

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nait_assets.errors import ModelError, SetupError
from nait_assets.extraction.neurons import Reader
from nait_assets.extraction.projection import NETWORK, Projector
from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.extraction.worker import Job, Worker
from nait_assets.models.encoding import EncodedSample, plan
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Extraction
from nait_assets.resources import LanguageModel
from nait_assets.resources.language_model import _load

LENGTHS = {"a": 9, "b": 8, "c": 5, "d": 5, "e": 2}
SAMPLES = [
    EncodedSample(name, np.asarray([1, *range(20, 19 + length)], np.int32), cut="answer" if name == "b" else "")
    for name, length in LENGTHS.items()
]
SHARDS = plan(SAMPLES, batch_tokens=10, shard_tokens=15)


@pytest.fixture
def job(tmp_path: Path, model_folder: Path) -> Iterator[Job]:
    """For the two-layer Llama."""
    _load.cache_clear()
    model = LanguageModel(source=str(model_folder), dtype="float32", home=str(tmp_path / "home"), device="cpu")
    folder = tmp_path / "candidates.spool" / "extraction"
    yield Job(model, model.identity(), Extraction(), False, {}, 48, (0, 1), str(folder))
    _load.cache_clear()


def test_shards_are_stored_one_by_one_in_order(job: Job) -> None:
    """A manifest that is given out lies in the spool already, and no later shard does: that is what a kill loses."""
    assert [[one.sample_id for one in shard.samples] for shard in SHARDS] == [["a"], ["b"], ["c", "d", "e"]]
    for n_stored, manifest in enumerate(Worker(job).read(SHARDS), start=1):
        shard = SHARDS[n_stored - 1]
        assert job.spool.manifest(shard) == manifest
        assert (manifest.shard, manifest.n_samples, manifest.n_tokens) == (
            shard.name,
            len(shard.samples),
            shard.n_tokens,
        )
        assert len(list(job.spool.folder.glob("*.json"))) == n_stored


def test_rows_are_those_of_their_shard_samples(job: Job) -> None:
    """Batches of all shards go through the model in one stream: a row under another's name would be found here."""
    manifests = list(Worker(job).read(SHARDS))

    loaded = job.model.load()
    reader = Reader(loaded, resolve_site(loaded.network, "mlp", "all"), keep_first_and_last=False, packs=False)
    for shard, manifest in zip(SHARDS, manifests, strict=True):
        table = job.spool.table(manifest)
        names = [one.sample_id for one in shard.samples]
        assert table["sample_id"].to_pylist() == [*names, *names]
        values = np.asarray(table["activation"].to_pylist(), np.float32).reshape(2, len(names), 48)
        for place, one in enumerate(shard.samples):
            (reading,) = reader.read([[one]])
            assert reading.pooled is not None
            np.testing.assert_allclose(values[:, place], reading.pooled.columns["activation"][0], atol=1e-6)


def test_every_batch_is_told_of_with_its_samples_and_tokens(job: Job) -> None:
    """Progress moves while a large shard is read, and adds up to all that there is."""
    told: list[tuple[int, int]] = []

    list(Worker(job).read(SHARDS, lambda *counts: told.append(counts)))

    assert told == [(1, 9), (1, 8), (2, 10), (1, 2)]


def test_shards_can_be_read_one_call_after_another(job: Job) -> None:
    """A Ray actor is handed a shard at a time; the model is loaded once for all."""
    worker = Worker(job)

    manifests = [manifest for shard in SHARDS for manifest in worker.read([shard])]

    assert [manifest.shard for manifest in manifests] == [shard.name for shard in SHARDS]
    assert _load.cache_info().misses == 1


def test_no_shards_need_no_model(job: Job) -> None:
    """Loading takes a minute."""
    worker = Worker(job)

    assert _load.cache_info().misses == 0
    worker.load()
    assert _load.cache_info().misses == 1


def test_job_travels_to_another_process(job: Job) -> None:
    """Ray pickles it; what came out there must store the same rows in the same place."""
    here = [job.spool.table(manifest).to_pylist() for manifest in Worker(job).read(SHARDS)]

    there = Worker(pickle.loads(pickle.dumps(job)))
    shards = pickle.loads(pickle.dumps(SHARDS))

    assert [there.job.spool.table(manifest).to_pylist() for manifest in there.read(shards)] == here


def test_worker_with_other_libraries_reads_nothing(job: Job) -> None:
    """Rows that another release of transformers has read would lie among those of this one."""
    other = dataclasses.replace(job, libraries={**job.libraries, "transformers": "4.99"})

    with pytest.raises(SetupError, match=r"has other libraries than the run: transformers \d+\.\d+ for 4\.99\."):
        Worker(other).load()


def test_worker_with_other_files_reads_nothing(job: Job) -> None:
    """A cluster's machine may have last week's model in the folder of that name: its rows would fit in well."""
    elsewhere = dataclasses.replace(job, model_identity="folder:0123")

    with pytest.raises(ModelError, match=r"is folder:\w+, and the run's is folder:0123: every worker needs the same"):
        list(Worker(elsewhere).read(SHARDS))

    assert not elsewhere.spool.folder.exists()


def test_projection_has_one_row_a_sample(job: Job) -> None:
    """All layers in few numbers, under the number that stands for the whole network."""
    ones = np.ones(48, np.float32)
    statistics = {layer: NeuronStatistics(0 * ones, ones) for layer in (0, 1)}
    projected = dataclasses.replace(job, projectors={"all": Projector(statistics, 16, 0)})

    (manifest,) = Worker(projected).read(SHARDS[2:])

    table = projected.spool.table(manifest)
    assert projected.rows == (NETWORK,)
    assert table["sample_id"].to_pylist() == ["c", "d", "e"]
    assert table["layer"].to_pylist() == [NETWORK] * 3
    assert table.schema.field("activation").type.list_size == 16
    assert table.schema.field("strongest_neuron").type.list_size == 64
