"""Overlap of selections against sums done by hand."""

import polars as pl

from nait_assets.report.overlap import best_targets, occurrences, overlap_matrix, shared_core

SELECTIONS = {"code": ["a", "b", "c", "d"], "math": ["c", "d", "e", "f"], "chat": ["a", "c", "g", "h"]}


def test_the_matrix_has_every_pair_in_the_given_order() -> None:
    """The heat map takes its order from the rows: `all` last, not where the alphabet would have it."""
    matrix = overlap_matrix(SELECTIONS)
    expected = [[1.0, 0.5, 0.5], [0.5, 1.0, 0.25], [0.5, 0.25, 1.0]]
    assert matrix["overlap"].to_list() == [share for row in expected for share in row]
    assert matrix["one"].unique(maintain_order=True).to_list() == ["code", "math", "chat"]


def test_occurrences_count_each_chosen_row_once() -> None:
    """The paper's figure 7: c is in three subsets, a and d in two, five rows in one; shares are of distinct rows."""
    counts = occurrences(SELECTIONS)
    assert counts["n_selections"].to_list() == [1, 2, 3]
    assert counts["n_rows"].to_list() == [5, 2, 1]
    assert counts["share"].to_list() == [5 / 8, 2 / 8, 1 / 8]


def test_occurrences_of_nothing_are_zero() -> None:
    """A ratio so small that nothing is chosen must not end in a division by zero."""
    assert occurrences({"code": [], "math": []})["share"].to_list() == [0.0, 0.0]


def test_the_shared_core_compares_each_capability_with_the_comprehensive_subset() -> None:
    """More than 70 % for every capability is what the paper calls a core; here it is 3, 2 and 2 of 4."""
    core = shared_core(SELECTIONS, ["a", "c", "d", "x"])
    assert core.equals(pl.DataFrame({"capability": ["code", "math", "chat"], "overlap": [0.75, 0.5, 0.5]}))


def test_a_row_belongs_to_the_target_in_which_it_stands_highest() -> None:
    """Scores of two targets have no common scale, so places decide, and the first target where they are equal."""
    assert best_targets(SELECTIONS) == {
        "a": "code", "b": "code", "c": "math", "d": "math", "e": "math", "f": "math", "g": "chat", "h": "chat"
    }  # fmt: skip
