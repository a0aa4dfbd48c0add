"""Scores by example beyond the memory: the turns, and so the subsets, are those of the whole matrix."""

from collections.abc import Sequence

import numpy as np
import pytest

from nait_assets.recipe import Strategy
from nait_assets.scoring import by_example, ranking
from nait_assets.scoring.by_example import ByExample, ExampleScores, Scratch
from nait_assets.scoring.ranking import ranked
from nait_assets.selection.choice import Budget, chosen_rows

N = 300
SIZES = {"code": 3, "math": 5}
TARGETS = {"code": ["code"], "all": ["code", "math"]}
NAMES = [f"s{number:03}" for number in np.random.default_rng(9).permutation(N)]


@pytest.fixture(params=["in memory", "in a file"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, with windows so small that many are read."""
    if request.param == "in a file":
        monkeypatch.setattr(by_example, "IN_MEMORY", 0)
        monkeypatch.setattr(ranking, "WINDOW", 7)
    return str(request.param)


def scores_with_ties(seed: int) -> dict[str, np.ndarray]:
    """Few different numbers, and many candidates that all examples find alike."""
    random = np.random.default_rng(seed)
    shared = random.integers(0, 4, (N, 1))
    return {name: (shared + random.integers(0, 3, (N, size))).astype(float) for name, size in SIZES.items()}


def put(scores: dict[str, np.ndarray], seed: int) -> ExampleScores:
    """As a table gives them: blocks of several sizes, candidates in no order."""
    random = np.random.default_rng(seed)
    found = ExampleScores(N, SIZES)
    for places in np.split(random.permutation(N), [1, 40, 41, 200]):
        found.put(places, {name: matrix[places] for name, matrix in scores.items()})
    return found


def whole(scores: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The matrix of a target, its examples in turns."""
    most = max(SIZES.values())
    return np.stack([scores[name][:, turn] for turn in range(most) for name in names if turn < SIZES[name]], axis=1)


def literal_turns(names: Sequence[str], matrix: np.ndarray) -> dict[str, int]:
    """A round robin over lists that are searched again in every turn."""
    left, turns = dict(zip(names, matrix.tolist(), strict=True)), {}
    for turn in range(len(names)):
        best = min(left, key=lambda name: (-left[name][turn % matrix.shape[1]], name))
        turns[best] = turn + 1
        del left[best]
    return turns


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("where")
def test_turns_are_those_of_the_whole_matrix(seed: int) -> None:
    """For every candidate, with ties, of one capability and of several; those without a score have no turn."""
    scores = scores_with_ties(seed)
    reasons = dict.fromkeys(NAMES[5:80:3], "why")
    scored = [place for place, name in enumerate(NAMES) if name not in reasons]
    for target, columns in put(scores, seed).by_target(TARGETS).items():
        matrix = whole(scores, TARGETS[target])
        np.testing.assert_array_equal(columns.matrix(), matrix)
        frame = ranked(NAMES, matrix.max(axis=1), reasons, columns).drop_nulls("rank")
        expected = literal_turns([NAMES[place] for place in scored], matrix[scored])
        assert dict(frame.select("sample_id", "turn").rows()) == expected


@pytest.mark.parametrize("budget", [None, 60])
@pytest.mark.parametrize("dropped", [[], NAMES[:120]], ids=["nobody dropped", "many dropped"])
@pytest.mark.usefixtures("where")
def test_subsets_are_those_of_the_whole_matrix(dropped: list[str], budget: int | None) -> None:
    """Whatever share, budget of tokens and candidates that may not be chosen: these are known after the scores."""
    scores, strategy = scores_with_ties(4), Strategy(strategy="round_robin_examples")
    matrix = whole(scores, TARGETS["all"])
    frames = [
        ranked(NAMES, matrix.max(axis=1), by_example=columns)
        for columns in (put(scores, 4).by_target(TARGETS)["all"], matrix)
    ]
    tokens = Budget(budget, {name: 1 + place % 4 for place, name in enumerate(NAMES)}) if budget else None
    for ratio in ("0.01", "0.05", "0.30", "0.90"):
        first, second = (chosen_rows(frame, ratio, dropped, strategy, budget=tokens).rows for frame in frames)
        assert len(first) > 0
        assert first.equals(second)


@pytest.mark.usefixtures("where")
def test_scores_of_one_example_after_the_other_are_the_same() -> None:
    """As methods have them that search the pool for each example."""
    scores, found = scores_with_ties(5), ExampleScores(N, SIZES)
    for name, matrix in scores.items():
        for number, column in enumerate(matrix.T):
            found.put_example(name, number, column)
    columns = found.by_target(TARGETS)["all"]
    assert isinstance(columns, ByExample)
    np.testing.assert_array_equal(columns.matrix(), whole(scores, TARGETS["all"]))


def test_what_was_not_written_is_not_read_as_noughts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that ends early would otherwise give the last candidates a score."""
    monkeypatch.setattr(by_example, "IN_MEMORY", 0)
    rows = Scratch(2, 4, np.float64)
    rows.write(0, np.arange(4.0))
    assert rows.read(0, 1, 3).tolist() == [1.0, 2.0]
    with pytest.raises(AssertionError, match="read before it was written"):
        rows.read(1)
