"""`nait` with a stub in the place of the model: what would be read of a sample is drawn at random, and stored as ever.

The tables have their real columns and widths, and are written by the project's own code; only the numbers are nobody's.
Arguments are those of `nait`. Used by `pool_size.py`, which runs each stage in a process of its own.

    python benchmarks/pool_stub.py run --recipe RECIPE --home HOME
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from nait_assets.extraction import neurons
from nait_assets.extraction.activation_table import shard_schema
from nait_assets.models.batches import BatchResult, PooledActivations
from nait_assets.models.sites import Site
from nait_assets.recipe import ALL, Pooling
from nait_assets.tables import INDICES, VECTOR

CHUNK_ROWS = 2048
WIDTHS = {"outputs": 576, "embeddings": 384, "gradients": 256, "ratings": 25}
"""Numbers of a vector: SmolLM2-135M's hidden state, MiniLM's embedding, few dimensions of a gradient."""
N_SPARSE, STEP = 32, 18
"""Entries of a sparse vector, and how far apart at most: all are among the first 576."""


class StubReader:
    """What stands in the place of `extraction.neurons.Reader`: activations of the same shape; arguments as there."""

    def __init__(
        self,
        _loaded: object,
        site: Site,
        keep_first_and_last: bool = False,
        projectors: Mapping[Pooling, Any] | None = None,
        poolings: Sequence[Pooling] = (ALL,),
    ):
        self.site = site
        self._n_rows = 1 if projectors else len(site.layers)
        self._schema = shard_schema(site.width, keep_first_and_last, poolings=poolings)
        if projectors:
            one = projectors[poolings[0]]
            self._schema = shard_schema(one.dimensions, False, one.n_strongest, poolings)
        self._chance = np.random.default_rng(0)

    def tokens(self, batch: Sequence[Any]) -> np.ndarray:
        """Activations of every token but the first ones, `(n_tokens, width)`, for an autoencoder to be trained on."""
        n_tokens = sum(len(sample.token_ids) - 1 for sample in batch)
        return self._chance.standard_normal((n_tokens, self.site.width), np.float32)

    def read(self, batches: Iterable[Any]) -> Iterator[BatchResult]:
        """The result of each batch."""
        for batch in batches:
            columns = {}
            for field in self._schema:
                size = getattr(field.type, "list_size", None)
                if size is not None:
                    values = self._chance.standard_normal((len(batch), self._n_rows, size), np.float32)
                    columns[field.name] = np.abs(values).astype(field.type.value_type.to_pandas_dtype())
            yield BatchResult(tuple(batch), PooledActivations(columns))


def drawn(measurement: Any, sample_ids: list[str], chance: np.random.Generator) -> pl.DataFrame:
    """Rows of a measurement.

    Args:
        measurement: The `Measurement` whose columns they have.
        sample_ids: One row each.
        chance: Where the numbers come from.
    """
    n = len(sample_ids)
    columns: dict[str, pl.Series] = {"sample_id": pl.Series(sample_ids, dtype=pl.String)}
    for name, kind in measurement.columns.items():
        width = N_SPARSE if name in ("indices", "values") else WIDTHS.get(measurement.name, 576)
        if kind == VECTOR:
            columns[name] = pl.Series(np.abs(chance.standard_normal((n, width), np.float32))).arr.to_list()
        elif kind == INDICES:
            places = np.arange(width, dtype=np.int32) * STEP + chance.integers(0, STEP, (n, width), np.int32)
            columns[name] = pl.Series(places).arr.to_list()
        elif kind == pl.List(pl.Int64):
            columns[name] = pl.Series([[1]], dtype=kind).new_from_index(0, n)
        elif kind.is_integer():
            columns[name] = pl.Series(chance.integers(8, 48, n)).cast(kind)
        elif kind.is_float():
            columns[name] = pl.Series(chance.uniform(0.5, 3.0, n)).cast(kind)
        else:
            columns[name] = pl.Series([""], dtype=pl.String).new_from_index(0, n).cast(kind)
    return pl.DataFrame(columns)


def install() -> None:
    """Put the stub where activations and measurements are read: before anything imports the reader."""
    neurons.Reader = StubReader  # type: ignore[misc, assignment]
    from nait_assets.measurements import declared_measurements
    from nait_assets.measurements.engine import Chunk
    from nait_assets.models.cost import Cost

    def reading(measurement: Any) -> Any:
        def read(_context: object, samples: pl.DataFrame) -> Iterator[Chunk]:
            chance = np.random.default_rng(len(samples))
            for part in samples.select("sample_id").iter_slices(CHUNK_ROWS):
                rows = drawn(measurement, part["sample_id"].to_list(), chance)
                yield Chunk(rows, cost=Cost(n_forward=len(rows)))

        return read

    for measurement in declared_measurements():
        object.__setattr__(measurement, "read", reading(measurement))  # frozen, as nobody else changes one
        object.__setattr__(measurement, "preflight", lambda *_: None)  # a stub fits every measurement


if __name__ == "__main__":
    install()
    from nait_assets.cli import main

    main()
