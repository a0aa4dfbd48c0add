"""What reads shards: a process with the model in memory. The local engine is one of these, a Ray actor holds one."""

import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from nait_assets.errors import ModelError, SetupError
from nait_assets.extraction.activation_table import shard_schema
from nait_assets.extraction.neurons import Reader
from nait_assets.extraction.projection import NETWORK, Projector
from nait_assets.extraction.spool import Manifest, Spool
from nait_assets.models.batches import BatchResult
from nait_assets.models.encoding import Shard
from nait_assets.models.libraries import library_versions
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Extraction, Pooling
from nait_assets.resources.language_model import LanguageModel


@dataclass(frozen=True)
class Job:
    """What a worker needs to know beside its shards; it travels to other machines.

    Attributes:
        model: Read by every worker from the same place.
        model_identity: What every worker has to find there.
        settings: Extraction settings of the recipe.
        keep_first_and_last: Whether to keep the first and the last token's activations beside the mean.
        projectors: By pooling, what keeps a projection instead of neurons; of all poolings or none.
        width: Neurons or dimensions of a layer.
        layers: Layers that are read.
        folder: Folder of the spool, where finished shards go; every worker sees it.
        libraries: Versions of libraries that every worker has to have.
    """

    model: LanguageModel
    model_identity: str
    settings: Extraction
    keep_first_and_last: bool
    projectors: Mapping[Pooling, Projector]
    width: int
    layers: tuple[int, ...]
    folder: str
    libraries: Mapping[str, str] = field(default_factory=library_versions)

    @property
    def rows(self) -> tuple[int, ...]:
        """Layers that the rows of a sample are."""
        return (NETWORK,) if self.projectors else self.layers

    @property
    def schema(self) -> pa.Schema:
        """Of a shard."""
        poolings = self.settings.pool
        if not self.projectors:
            return shard_schema(self.width, self.keep_first_and_last, poolings=poolings, store=self.settings.store)
        projector = self.projectors[poolings[0]]  # of the others it has the same sizes
        return shard_schema(projector.dimensions, False, projector.n_strongest, poolings, self.settings.store)

    @property
    def bytes_of_sample(self) -> int:
        """Bytes of a sample's vectors in a shard."""
        lists = [field.type for field in self.schema if pa.types.is_fixed_size_list(field.type)]
        return len(self.rows) * sum(kind.list_size * kind.value_type.bit_width // 8 for kind in lists)

    @property
    def spool(self) -> Spool:
        """Where finished shards go."""
        return Spool(Path(self.folder), self.schema)


class Worker:
    """A process with the model in memory."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def _reader(self) -> Reader:
        found = self.job.model.identity()
        if found != self.job.model_identity:
            raise ModelError(
                f"model {self.job.model.source!r} on {platform.node()} is {found}, and the run's is "
                f"{self.job.model_identity}: every worker needs the same files."
            )
        here = library_versions()
        other = [
            f"{name} {here[name]} for {version}"
            for name, version in self.job.libraries.items()
            if here[name] != version
        ]
        if other:
            raise SetupError(
                f"{platform.node()} has other libraries than the run: {', '.join(other)}. A minor version may compute "
                "something else: install the same on every machine."
            )
        loaded = self.job.model.load()
        settings = self.job.settings
        site = resolve_site(loaded.network, settings.site, settings.layers)
        return Reader(loaded, site, self.job.keep_first_and_last, self.job.projectors, poolings=settings.pool)

    def load(self) -> None:
        """Have the model in memory before the first shard comes."""
        _ = self._reader

    def read(
        self, shards: Iterable[Shard], advance: Callable[[int, int], None] = lambda *_: None
    ) -> Iterator[Manifest]:
        """Read shards and store them in the spool.

        Args:
            shards: Shards, in order; the model reads ahead into the next while one is stored.
            advance: Told after every batch how many samples and tokens it had.

        Yields:
            The manifest of each shard once it is stored.

        Raises:
            NumericalError: The model computed NaN or infinity.
        """
        queue, spool = list(shards), self.job.spool
        results = self._reader.read(batch for shard in queue for batch in shard.batches)
        for shard in queue:
            started = time.monotonic()
            kept: list[BatchResult] = []
            for batch, result in zip(shard.batches, results, strict=False):
                kept.append(result)
                advance(len(batch), sum(len(sample.token_ids) for sample in batch))
            yield spool.write(shard, kept, self.job.rows, time.monotonic() - started, peak_memory())


def peak_memory() -> int:
    """Most memory that this process has held so far, in bytes: the GPU's if it has used one, else resident."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
