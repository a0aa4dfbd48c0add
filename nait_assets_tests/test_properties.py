"""What holds for any data: ranks, turns, matched lengths, ratios, and the hashes of content."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_assets.conversation import sample_id
from nait_assets.corpora.formats import RowReader
from nait_assets.recipe.ratios import ratio_key, rounded_up
from nait_assets.scoring.by_example import in_turns
from nait_assets.scoring.ranking import best_ranks, ranked, round_robin
from nait_assets.selection.choice import chosen_rows
from nait_assets.selection.strategies.lengths import length_matched
from nait_assets.tables import content_version

settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")

FEW_VALUES = st.integers(-3, 3).map(float)  # so that ties are common
RATIOS = st.integers(1, 10_000).map(lambda tenthousandths: Decimal(tenthousandths) / 10_000)


@st.composite
def scored(draw: st.DrawFn, n_columns: int | None = None) -> tuple[list[str], np.ndarray]:
    """Distinct ids in no order, and `(n_candidates, n_columns)` scores with ties."""
    names = draw(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12, unique=True))
    width = draw(st.integers(1, 4)) if n_columns is None else n_columns
    values = draw(st.lists(FEW_VALUES, min_size=len(names) * width, max_size=len(names) * width))
    return names, np.asarray(values).reshape(len(names), width)


# Ranks


@given(scored(1), st.data())
def test_ranks_are_those_of_a_sort_and_do_not_depend_on_the_order_of_the_candidates(
    candidates: tuple[list[str], np.ndarray], data: st.DataObject
) -> None:
    """Every candidate once, best first, ties by id; whoever has a reason has neither score nor rank."""
    names, scores = candidates[0], candidates[1][:, 0]
    refused = data.draw(st.sets(st.sampled_from(names)))
    reasons = dict.fromkeys(refused, "no token")
    found = ranked(names, scores, reasons)
    best_first = sorted((-score, name) for name, score in zip(names, scores, strict=True) if name not in refused)
    assert found["sample_id"].to_list() == [name for _, name in best_first] + sorted(refused)
    assert found["rank"].to_list() == [*range(1, len(best_first) + 1)] + [None] * len(refused)
    assert found["score"].to_list() == [-score for score, _ in best_first] + [None] * len(refused)
    order = data.draw(st.permutations(range(len(names))))
    assert ranked([names[place] for place in order], scores[order], reasons).equals(found)


@given(scored())
def test_the_best_rank_is_the_smallest_of_the_ranks_in_each_column(candidates: tuple[list[str], np.ndarray]) -> None:
    """And k candidates are the best d of every column, for the smallest d that has k."""
    names, scores = candidates
    ranks = []
    for column in scores.T:
        frame = ranked(names, column)
        by_name = dict(zip(frame["sample_id"], frame["rank"], strict=True))
        ranks.append([by_name[name] for name in names])
    assert best_ranks(names, scores).tolist() == np.min(ranks, axis=0).tolist()


# Round robin


@given(scored())
def test_in_a_round_robin_each_column_takes_its_best_that_is_left(candidates: tuple[list[str], np.ndarray]) -> None:
    """Turns are 1 to n; in the turn of a column, no candidate that is left has a better score there, or id at a tie."""
    names, scores = candidates
    turns = round_robin(names, scores)
    assert sorted(turns.tolist()) == list(range(1, len(names) + 1))
    for place, turn in enumerate(turns):
        column = scores[:, (turn - 1) % scores.shape[1]]
        left = [(-column[other], names[other]) for other in range(len(names)) if turns[other] >= turn]
        assert min(left) == (-column[place], names[place])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_beginning_of_the_turns_has_examples_of_every_capability(sizes: list[int]) -> None:
    """Of two capabilities that have examples left, none is more than one ahead; each keeps its own order."""
    of_capability = {str(number): size for number, size in enumerate(sizes)}
    order = in_turns(list(of_capability), of_capability)
    assert sorted(order) == [(name, place) for name, size in of_capability.items() for place in range(size)]
    for end in range(1, len(order) + 1):
        taken = [[place for owner, place in order[:end] if owner == name] for name in of_capability]
        assert all(places == list(range(len(places))) for places in taken)
        open_ends = [len(places) for places, size in zip(taken, sizes, strict=True) if len(places) < size]
        assert not open_ends or max(map(len, taken)) - min(open_ends) <= 1


# Matched lengths


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 5), st.data())
def test_lengths_are_matched_to_within_a_row_at_every_size(
    lengths: list[int], n_bins: int, data: st.DataObject
) -> None:
    """No row twice; a smaller size is the beginning of a larger; each bin's share of any beginning is the pool's."""
    values, n = np.asarray(lengths), len(lengths)
    places = length_matched(values, n_bins, n)
    assert sorted(places.tolist()) == list(range(n))
    size = data.draw(st.integers(0, n))
    assert length_matched(values, n_bins, size).tolist() == places[:size].tolist()
    ends = sorted({sorted(lengths)[math.ceil(Fraction(k, n_bins) * n) - 1] for k in range(1, n_bins)})
    bins = [sum(length > end for end in ends) for length in lengths]
    for number in set(bins):
        own = [place for place in places if bins[place] == number]
        assert own == sorted(own), "the best ranks of a bin come first"
        for end in range(n + 1):
            in_beginning = sum(bins[place] == number for place in places[:end])
            assert abs(in_beginning - Fraction(len(own), n) * end) < 1


# Ratios


@given(RATIOS, st.integers(0, 10**9))
def test_a_ratio_keeps_the_smallest_number_of_rows_that_is_no_smaller_share(ratio: Decimal, n: int) -> None:
    """Exactly, whatever the number of decimals; 1 keeps all."""
    size = rounded_up(ratio_key(ratio), n)
    assert 0 <= size <= n
    assert size >= Fraction(ratio) * n > size - 1 or n == 0


@given(RATIOS)
def test_a_ratio_has_one_key_however_it_is_written(ratio: Decimal) -> None:
    """`0.1`, `0.10` and `1e-1` are one partition, and its key says the same number."""
    key = ratio_key(ratio)
    written = (float(ratio), str(ratio), f"{ratio:.4f}", f"{ratio:e}", key)
    assert {ratio_key(one) for one in written} == {key}
    assert Decimal(key) == ratio
    assert 2 <= len(key.partition(".")[2]) <= 4


@given(scored(1), RATIOS, RATIOS, st.data())
def test_a_smaller_ratio_is_the_beginning_of_a_larger_and_dropped_rows_are_in_none(
    candidates: tuple[list[str], np.ndarray], one: Decimal, other: Decimal, data: st.DataObject
) -> None:
    """Dropped candidates do not count among those of which the ratio is taken."""
    names, scores = candidates
    dropped = data.draw(st.sets(st.sampled_from(names)))
    frame = ranked(names, scores[:, 0])
    small, large = (chosen_rows(frame, ratio_key(ratio), dropped).rows for ratio in sorted([one, other]))
    assert small.equals(large.head(len(small)))
    assert dropped.isdisjoint(large["sample_id"].to_list())
    assert len(large) == rounded_up(ratio_key(max(one, other)), len(names) - len(dropped))


# Hashes of content


CELLS: dict[str, Any] = {
    "number": (pl.Float64, FEW_VALUES),
    "count": (pl.Int64, st.none() | st.integers(-2, 2)),
    "text": (pl.String, st.none() | st.text(max_size=3)),
    "vector": (pl.List(pl.Float32), st.lists(FEW_VALUES, max_size=3)),
    "places": (pl.List(pl.Int32), st.lists(st.integers(0, 3), max_size=3)),
    "messages": (
        pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
        st.lists(st.fixed_dictionaries({"role": st.sampled_from("ab"), "content": st.text(max_size=2)}), max_size=2),
    ),
}
SCHEMA = {"sample_id": pl.String, **{name: dtype for name, (dtype, _) in CELLS.items()}}


def frames() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of distinct `sample_id`, with cells of every kind that the tables hold."""
    row = st.fixed_dictionaries(
        {"sample_id": st.text("ab", min_size=1, max_size=3), **{name: cell for name, (_, cell) in CELLS.items()}}
    )
    return st.lists(row, min_size=1, max_size=5, unique_by=lambda row: str(row["sample_id"]))


def version_of(rows: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    frame = pl.DataFrame(rows, schema=SCHEMA)
    return content_version(frame.select(columns or frame.columns), ("sample_id",))


@given(frames(), st.data())
def test_a_content_version_depends_on_neither_order_nor_chunks(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Two machines that hold the same rows say the same."""
    version = version_of(rows)
    shuffled = data.draw(st.permutations(rows))
    assert version_of(shuffled, data.draw(st.permutations(list(SCHEMA)))) == version
    parts = [pl.DataFrame([row], schema=SCHEMA) for row in shuffled]
    assert content_version(pl.concat(parts, rechunk=False), ("sample_id",)) == version


@given(frames(), st.data())
def test_a_content_version_changes_with_any_cell(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Another number, text or vector, a null, or what stood in two lists in one: nothing may pass for unchanged."""
    place = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(sorted(CELLS)))
    value = data.draw(CELLS[column][1].filter(lambda value: value != rows[place][column]))
    changed = [{**row, column: value} if number == place else row for number, row in enumerate(rows)]
    assert version_of(changed) != version_of(rows)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=5), st.data())
def test_a_content_version_changes_when_values_move_from_row_to_row(numbers: list[int], data: st.DataObject) -> None:
    """The same numbers, or the same letters, one after the other, cut up otherwise."""

    def cut(end: int, column: str) -> str:
        cells = [numbers[:end], numbers[end:]] if column != "text" else ["x" * end, "x" * (len(numbers) - end)]
        frame = pl.DataFrame({"sample_id": ["a", "b"], column: cells}, {"sample_id": pl.String, column: SCHEMA[column]})
        return content_version(frame, ("sample_id",))

    one, other = data.draw(st.lists(st.integers(0, len(numbers)), min_size=2, max_size=2, unique=True))
    for column in ("vector", "places", "text"):
        assert cut(one, column) != cut(other, column)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: text.strip())
EQUAL = {"line ends": lambda text: text.replace("\n", "\r\n"), "outer space": lambda text: f" \n{text}\t"}


@pytest.mark.parametrize("written", EQUAL.values(), ids=EQUAL)
@given(question=TEXT, answer=TEXT)
def test_a_conversation_has_one_id_however_it_is_written(written: Any, question: str, answer: str) -> None:
    """Line ends and outer white space are the file's, not the conversation's; what is in an id stays in it."""

    def messages_of(question: str, answer: str) -> Any:
        parts = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return RowReader("messages")({"messages": parts}).conversation.plain()

    messages = messages_of(question, answer)
    assert sample_id(messages_of(written(question), written(answer))) == sample_id(messages)
    assert messages_of(*(message["content"] for message in messages)) == messages
    assert sample_id(messages_of(question, f"{answer.strip()}!")) != sample_id(messages)
