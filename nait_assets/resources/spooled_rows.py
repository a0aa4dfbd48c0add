"""Rows that wait on disk: more than fit in memory, gathered in parts and gone through as often as one likes.

Few rows stay in memory. More go to a file without a name, which nobody else sees and which is gone with the process.
"""

import os
import tempfile
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

PART_ROWS = 4096
"""Rows that are written, and read, together."""
Key = TypeVar("Key", bound=Hashable)


class SpooledRows:
    """Rows in the order in which they came.

    Args:
        schema: Columns.
        folder: On a disk with room for them, made if it is not there; the system's for temporary files by default.
    """

    def __init__(self, schema: pl.Schema, folder: Path | None = None):
        self.schema, self._folder = schema, folder
        self._n_rows = 0
        self._waiting: list[pl.DataFrame] = []
        self._file: IO[bytes] | None = None
        self._places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._n_rows

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows, with the columns of the schema."""
        if frame.is_empty():
            return
        self._n_rows += len(frame)
        self._waiting.append(frame.select(list(self.schema)).cast(self.schema))
        if sum(map(len, self._waiting)) >= PART_ROWS:
            self._write()

    def parts(self, *columns: str) -> Iterator[pl.DataFrame]:
        """The rows, a part after the other; of some columns, if any are named."""
        wanted = list(columns or self.schema)
        for place, size in list(self._places):
            assert self._file is not None
            with pa.ipc.open_stream(os.pread(self._file.fileno(), size, place)) as stream:
                part = pl.DataFrame(stream.read_all().select(wanted))
            yield part.cast(pl.Schema({name: self.schema[name] for name in wanted}))
        yield from [frame.select(wanted) for frame in self._waiting]

    def frame(self, *columns: str) -> pl.DataFrame:
        """All rows in memory; of some columns, if any are named."""
        empty = self.schema.to_frame().select(list(columns or self.schema))
        return pl.concat([empty, *self.parts(*columns)])

    def select(self, wanted: np.ndarray) -> "SpooledRows":
        """Some of the rows, in the same order.

        Args:
            wanted: `(n_rows,)` bool.
        """
        kept, begin = SpooledRows(self.schema, self._folder), 0
        for part in self.parts():
            kept.append(part.filter(pl.Series(wanted[begin : begin + len(part)], dtype=pl.Boolean)))
            begin += len(part)
        return kept

    def _write(self) -> None:
        if self._file is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  it lives as long as the rows do
        rows = pl.concat(self._waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        place = self._file.seek(0, os.SEEK_END)
        with pa.ipc.new_stream(self._file, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
            stream.write_table(rows, max_chunksize=PART_ROWS)
        self._file.flush()
        self._places.append((place, self._file.tell() - place))
        self._waiting = []


class SpooledFrames(Mapping[Key, pl.DataFrame]):
    """Frames by name, each read from disk when it is asked for, so that one lies in memory at a time.

    Args:
        frames: Their rows.
    """

    def __init__(self, frames: Mapping[Key, SpooledRows]):
        self._frames = frames

    def __getitem__(self, key: Key) -> pl.DataFrame:
        return self._frames[key].frame()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)
