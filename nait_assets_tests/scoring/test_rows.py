"""Rows that stay on disk: every method scores them as it scores rows in memory, and holds no vectors of the pool."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from nait_assets.resources.row_blocks import RowBlock
from nait_assets.scoring.by_example import ByExample
from nait_assets.scoring.method import Scores, ScoringInputs
from nait_assets.scoring.methods import declared
from nait_assets.scoring.methods.selectit import METHOD as SELECTIT
from nait_assets.scoring.reasons import explained
from nait_assets.scoring.rows import StoredRows, vectors
from nait_assets.tables import VECTOR
from nait_assets_tests.scoring.methods import test_rds_plus, test_selectit, test_sentence_embedding
from nait_assets_tests.scoring.test_parts import CASES

CASES_OF_ROWS = [
    *((name, inputs) for name, inputs in CASES if inputs.frames),
    ("rds_plus", test_rds_plus.inputs(test_rds_plus.ALL)),
    ("selectit", test_selectit.inputs_of(test_selectit.probabilities())),
    *(("sentence_embedding", test_sentence_embedding.inputs(to, "code", "math", "all")) for to in ("best", "centroid")),
]
NAMES = [f"{number} {name}" for number, (name, _) in enumerate(CASES_OF_ROWS)]


def stored(frame: pl.DataFrame) -> StoredRows:
    """The rows in an order of their own, two at a time; candidates that nobody asks for are not among them."""
    order = np.random.default_rng(0).permutation(len(frame))

    def stream(columns: Sequence[str], sample_ids: Sequence[str]) -> Iterator[RowBlock]:
        names = frame["sample_id"].to_list()
        wanted = [place for place in order.tolist() if names[place] in sample_ids]
        for begin in range(0, len(wanted), 2):
            some = wanted[begin : begin + 2]
            yield np.array([list(sample_ids).index(names[place]) for place in some]), frame.select(columns)[some]

    return StoredRows(frame.schema, frame["sample_id"].to_list(), stream)


def on_disk(inputs: ScoringInputs) -> ScoringInputs:
    """The inputs with rows that are not in memory."""
    frames = {key: stored(frame) for key, frame in inputs.frames.items() if isinstance(frame, pl.DataFrame)}
    return replace(inputs, frames=frames)


def matrices(scores: Scores) -> dict[str, np.ndarray]:
    """The scores by example."""
    return {target: found.matrix() for target, found in scores.by_example.items() if isinstance(found, ByExample)}


@pytest.mark.parametrize(("name", "inputs"), CASES_OF_ROWS, ids=NAMES)
def test_scores_are_those_of_rows_in_memory(name: str, inputs: ScoringInputs) -> None:
    """Each row in its own place, whatever order and blocks the table has; by example too."""
    method = declared()[name]
    found, expected = method.scores(on_disk(inputs)), method.scores(inputs)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
    assert matrices(found).keys() == matrices(expected).keys()
    for target, matrix in matrices(expected).items():
        np.testing.assert_allclose(matrices(found)[target], matrix, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "inputs"), CASES_OF_ROWS, ids=NAMES)
def test_no_method_asks_for_all_vectors_or_texts_at_once(
    name: str, inputs: ScoringInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame of the pool's vectors need not fit the memory: such columns are read in blocks."""
    frame = StoredRows.frame

    def watched(self: StoredRows, *columns: str) -> pl.DataFrame:
        nested = [column for column in columns or self.columns if self.columns[column].is_nested()]
        assert not nested, f"{name} holds {nested} of all candidates"
        return frame(self, *columns)

    monkeypatch.setattr(StoredRows, "frame", watched)
    declared()[name].scores(on_disk(inputs))


@pytest.mark.parametrize(("name", "inputs"), CASES_OF_ROWS, ids=NAMES)
def test_explanations_are_those_of_rows_in_memory(name: str, inputs: ScoringInputs) -> None:
    """What is said of a candidate is read from the disk, its own row or those of the pool."""
    method, sample_id, target = declared()[name], inputs.sample_ids[2], list(inputs.targets)[-1]
    found, expected = (
        explained(method, method.prepared(one), sample_id, target, 3) for one in (on_disk(inputs), inputs)
    )
    assert [near.sample_id for near in found.near] == [near.sample_id for near in expected.near]
    assert [reason.detail for reason in found.reasons] == [reason.detail for reason in expected.reasons]
    for one, other in zip(found.parts, expected.parts, strict=True):
        assert one.values == pytest.approx(other.values)


def test_numbers_that_were_read_are_said_of_a_method_without_an_explanation() -> None:
    """Of a table on disk its columns of numbers are read, and no others."""
    inputs = test_selectit.inputs_of(test_selectit.probabilities())
    ((key, frame),) = inputs.frames.items()
    assert isinstance(frame, pl.DataFrame)
    given = replace(inputs, frames={key: stored(frame.with_columns(mark=pl.Series([1.0, 3.0, 2.0])))})
    (reason,) = explained(replace(SELECTIT, explain=None), given, inputs.sample_ids[1], "math", 3).reasons
    assert reason.detail == f"3: as large as or larger than that of 100% of the pool ({key})"


def test_vectors_are_those_of_a_column_in_parts() -> None:
    """A column may consist of several pieces, and of a slice of one."""
    parts = [pl.Series([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=VECTOR)[1:], pl.Series([[6.0, 7.0]], dtype=VECTOR)]
    assert vectors(parts[0].append(parts[1])).tolist() == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    assert vectors(pl.Series([[1, 2]], dtype=pl.Array(pl.Int32, 2))).tolist() == [[1, 2]]
