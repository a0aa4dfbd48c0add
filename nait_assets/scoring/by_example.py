"""Scores of candidates by single in-domain examples, of which the turns of a round robin come.

A matrix of all candidates and examples may not fit the memory: 1,000 examples of a million candidates are 8 GB. So it
is put in parts and taken example by example, and beyond `IN_MEMORY` numbers it lies in a file without a name, which is
gone with the process. Nothing of it is left out: scores are made before it is known which ratios, budgets and
candidates that may not be chosen there will be, and each of them may ask for the turn of any candidate.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

IN_MEMORY = 2**24
"""Numbers that are held in memory: 134 MB of scores."""


class Scratch:
    """Rows of numbers of one type, in memory, or beyond a size in a file; every row is written before it is read.

    Args:
        n_rows: Number of rows.
        width: Numbers of a row.
        dtype: Type of a number.
        folder: Folder for the file; the system's for temporary files by default.
    """

    def __init__(self, n_rows: int, width: int, dtype: Any, folder: Path | None = None):
        self._width, self._dtype = width, np.dtype(dtype)
        self._array: np.ndarray | None = None
        if n_rows * width <= IN_MEMORY:
            self._array = np.zeros((n_rows, width), self._dtype)
        else:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  it ends with this object

    def write(self, row: int, values: np.ndarray, begin: int = 0) -> None:
        """Put numbers into a row, from a place on."""
        if self._array is not None:
            self._array[row, begin : begin + len(values)] = values
            return
        data = np.ascontiguousarray(values, self._dtype).data.cast("B")
        at = (row * self._width + begin) * self._dtype.itemsize
        while data:  # a write may take less than it was given
            n_written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[n_written:], at + n_written

    def read(self, row: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Numbers of a row, from a place to another."""
        end = self._width if end is None else min(end, self._width)
        if self._array is not None:
            found: np.ndarray = self._array[row, begin:end]
            return found
        found = np.empty(end - begin, self._dtype)
        data, at = found.data.cast("B"), (row * self._width + begin) * self._dtype.itemsize
        while data:
            n_read = os.preadv(self._file.fileno(), [data], at)
            assert n_read, "a row was read before it was written"
            data, at = data[n_read:], at + n_read
        return found


class ExampleScores:
    """Scores of every candidate by each example of some capabilities.

    Args:
        n_candidates: Number of candidates.
        sizes: Number of examples by capability.
        folder: As for `Scratch`.
    """

    def __init__(self, n_candidates: int, sizes: Mapping[str, int], folder: Path | None = None):
        self.n_candidates, self.sizes, self.folder = n_candidates, dict(sizes), folder
        self._first = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        # a block's scores lie side by side: candidates stand in the order in which their blocks came
        self._rows = Scratch(sum(sizes.values()), n_candidates, np.float64, folder)
        self._places: list[np.ndarray] = []
        self._n_put = 0

    def put(self, places: np.ndarray, scores: Mapping[str, np.ndarray]) -> None:
        """Add a block of candidates, of which there are none yet.

        Args:
            places: `(n,)` of the candidates.
            scores: By capability `(n, n_examples)`.
        """
        for name, matrix in scores.items():
            for number, column in enumerate(np.ascontiguousarray(matrix.T)):
                self._rows.write(self._first[name] + number, column, self._n_put)
        self._places.append(np.asarray(places))
        self._n_put += len(places)

    def put_example(self, capability: str, number: int, scores: np.ndarray) -> None:
        """Add the `(n_candidates,)` scores of all candidates by one example; not to be mixed with `put`."""
        self._rows.write(self._first[capability] + number, scores)

    def of(self, capability: str, number: int) -> np.ndarray:
        """`(n_candidates,)` scores by one example of a capability."""
        found = self._rows.read(self._first[capability] + number)
        if not self._places:
            return found
        in_place = np.empty(self.n_candidates)
        in_place[np.concatenate(self._places)] = found
        return in_place

    def by_target(self, targets: Mapping[str, Sequence[str]]) -> dict[str, "ByExample"]:
        """By target the scores by its examples: the first of each capability, then the second of each, and so on."""
        return {target: ByExample(self, in_turns(names, self.sizes)) for target, names in targets.items()}


def in_turns(capabilities: Sequence[str], sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The capability and the number of each example: the first of each capability, then the second of each, and so on.

    A small round robin of the comprehensive target then has a part of every capability.

    Args:
        capabilities: Capabilities in their order.
        sizes: Number of examples by capability, which stand in the order of their `sample_id`.
    """
    named = chain.from_iterable(zip(repeat(name), range(sizes[name]), strict=False) for name in capabilities)
    return sorted(named, key=lambda example: example[1])


@dataclass(frozen=True)
class ByExample:
    """Scores of every candidate by each example of a target.

    Attributes:
        scores: Scores by the examples of all capabilities.
        examples: Capability and number of each example, in the order of turns.
        wanted: `(n_candidates,)` bool, those that are looked at; all by default.
    """

    scores: ExampleScores
    examples: Sequence[tuple[str, int]]
    wanted: np.ndarray | None = None

    def __getitem__(self, wanted: np.ndarray) -> "ByExample":
        """Those of some candidates, `(n_candidates,)` bool."""
        return replace(self, wanted=wanted)

    @property
    def folder(self) -> Path | None:
        """Folder for what does not fit the memory."""
        return self.scores.folder

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_candidates, n_examples)`."""
        return self.scores.n_candidates if self.wanted is None else int(self.wanted.sum()), len(self.examples)

    def column(self, place: int) -> np.ndarray:
        """`(n_candidates,)` scores by the example at a place in the order of turns."""
        found = self.scores.of(*self.examples[place])
        return found if self.wanted is None else found[self.wanted]

    def matrix(self) -> np.ndarray:
        """`(n_candidates, n_examples)`, in memory: for a few candidates."""
        return np.stack([self.column(place) for place in range(len(self.examples))], axis=1)
