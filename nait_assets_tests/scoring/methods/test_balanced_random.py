"""The balanced control: groups take turns, chance decides within them."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from nait_assets.scoring.methods.balanced_random import METHOD
from nait_assets.scoring.methods.random import METHOD as RANDOM
from nait_assets.scoring.ranking import ranked
from nait_assets_tests.scoring.methods.small_texts import frame, inputs

LABELS = ["x"] * 60 + ["y"] * 25 + ["z"] * 5


def pool(labels: list[str | None]) -> pl.DataFrame:
    rows = frame([("q", str(number)) for number in range(len(labels))], "s")
    return rows.with_columns(topic=pl.Series(labels, dtype=pl.String))


def order(rows: pl.DataFrame, target: str = "math", seed: int = 0) -> list[str]:
    """Ids, the best first."""
    given = inputs(targets={target: ["math"]}, pool=rows, seed=seed)
    return ranked(given.sample_ids, METHOD.scores(given).values[:, 0])["sample_id"].to_list()


def labels_in_order(rows: pl.DataFrame) -> list[str]:
    label = dict(rows.select("sample_id", "topic").iter_rows())
    return [label[name] for name in order(rows)]


def test_groups_take_turns_until_they_are_empty() -> None:
    """Every beginning of the order holds equal numbers of each group, as far as it has so many."""
    found = labels_in_order(pool(LABELS))
    assert Counter(found[:15]) == {"x": 5, "y": 5, "z": 5}
    assert Counter(found[:55]) == {"x": 25, "y": 25, "z": 5}
    assert all(len(set(found[place : place + 3])) == 3 for place in range(0, 15, 3))
    assert len({tuple(found[place : place + 3]) for place in range(0, 15, 3)}) > 1  # who is first is chance, too
    assert set(found[55:]) == {"x"}


@pytest.mark.parametrize("sizes", [(400, 40), (100, 99), (2000, 40)])
def test_the_size_of_a_group_says_nothing_about_its_place_in_a_turn(sizes: tuple[int, int]) -> None:
    """The larger one is first in half of the turns, of as many as chance makes sure of (six standard deviations)."""
    found = labels_in_order(pool(["x"] * sizes[0] + ["y"] * sizes[1]))
    n_turns = min(sizes)
    n_first = sum(found[2 * turn] == "x" for turn in range(n_turns))
    assert abs(n_first - n_turns / 2) <= 6 * (n_turns / 4) ** 0.5
    assert n_first not in (0, n_turns)


def test_within_a_group_chance_decides_by_seed_and_target() -> None:
    """Else the five targets' controls, or the five seeds', would be one draw."""
    rows = pool(LABELS)
    draws = [order(rows), order(rows, seed=1), order(rows, target="code")]
    assert draws[0] == order(rows)
    assert len({tuple(draw[:15]) for draw in draws}) == 3
    assert all(draw[:15] != sorted(draw[:15]) for draw in draws)


def test_rows_without_a_topic_are_grouped_by_source() -> None:
    """A pool of two files without labels is balanced over the files, and a topic is not confused with a file's name."""
    rows = frame([("q", str(number)) for number in range(40)], "s").with_columns(
        source=pl.Series(["a"] * 30 + ["b"] * 10), topic=pl.Series([None] * 35 + ["a"] * 5, dtype=pl.String)
    )
    group = {name: (topic, source) for name, topic, source in rows.select("sample_id", "topic", "source").iter_rows()}
    assert Counter(group[name] for name in order(rows)[:15]) == {(None, "a"): 5, (None, "b"): 5, ("a", "b"): 5}


def test_a_row_more_does_not_shuffle_the_others() -> None:
    """The relative order within every group stays, and in other groups each row's score."""
    rows = pool(LABELS)
    more = inputs(targets={"math": ["math"]}, pool=rows)
    fewer = inputs(targets={"math": ["math"]}, pool=rows[1:])
    with_it, without = METHOD.scores(more).values[1:, 0], METHOD.scores(fewer).values[:, 0]
    np.testing.assert_array_equal(with_it[59:], without[59:])
    np.testing.assert_array_equal(np.argsort(with_it[:59]), np.argsort(without[:59]))
    assert np.abs(with_it - without).max() <= 1


def test_it_is_another_draw_than_random() -> None:
    """Two controls that share their chance are one control."""
    given = inputs(targets={"math": ["math"]}, pool=pool(["x"] * 500))
    plain, balanced = RANDOM.scores(given).values[:, 0], METHOD.scores(given).values[:, 0]
    assert abs(np.corrcoef(plain, balanced)[0, 1]) < 0.15
