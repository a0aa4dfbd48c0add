"""What holds for any data of contamination, samples of a source, overlaps and retrieval: against slow references."""

from itertools import product

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_assets.corpora.contamination import contaminated
from nait_assets.corpora.corpus import read_corpus
from nait_assets.recipe import POOL, Recipe
from nait_assets.report.comparison import retrieval
from nait_assets.report.overlap import best_targets, occurrences, overlap_matrix
from nait_assets_tests.conftest import conversation, write_jsonl

settings.register_profile("sets", deadline=None, derandomize=True, database=None)
settings.load_profile("sets")

WORDS = st.lists(st.sampled_from(["a", "B", "c", "数"]), min_size=0, max_size=8)
CONVERSATIONS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)
SELECTIONS = st.dictionaries(
    st.sampled_from(["math", "code", "facts"]), st.lists(st.sampled_from("uvwxyz"), unique=True, max_size=6), min_size=1
)


def _frame(conversations: list[tuple[list[str], list[str]]]) -> pl.DataFrame:
    rows = [
        {"sample_id": f"s{number}", **conversation(" ".join(question), ", ".join(answer))}
        for number, (question, answer) in enumerate(conversations)
    ]
    return pl.DataFrame(rows)


def _leaks(candidate: tuple[list[str], list[str]], example: tuple[list[str], list[str]], n: int) -> bool:
    """Whether a message of each shares n words in a row, or the questions are equal; word by word."""
    (question, _), (known, _) = folded = [[[w.lower() for w in words] for words in one] for one in (candidate, example)]
    ngrams = [{tuple(words[i : i + n]) for words in one for i in range(len(words) - n + 1)} for one in folded]
    return (question == known and bool(question)) or bool(ngrams[0] & ngrams[1])


@given(CONVERSATIONS, CONVERSATIONS, st.integers(1, 4))
def test_a_candidate_is_contaminated_where_a_literal_search_says_so(
    pool: list[tuple[list[str], list[str]]], examples: list[tuple[list[str], list[str]]], n: int
) -> None:
    """Hashes of words in a row must neither miss a leak nor accuse a clean row."""
    found = contaminated([_frame(pool)], {"exam": _frame(examples)}, n)
    expected = [f"s{i}" for i, one in enumerate(pool) if any(_leaks(one, example, n) for example in examples)]
    assert found["sample_id"].to_list() == expected


@settings(max_examples=25)
@given(n=st.integers(2, 12), skip=st.integers(0, 6), limit=st.integers(1, 6), seed=st.integers(0, 3))
def test_samples_that_adjoin_are_disjoint_and_one_that_spans_them_is_their_union(
    tmp_path_factory: pytest.TempPathFactory, n: int, skip: int, limit: int, seed: int
) -> None:
    """Training and held-out rows of one file are told apart by `skip` and `limit` alone."""
    folder = tmp_path_factory.mktemp("source")
    write_jsonl(folder / "pool.jsonl", [conversation(f"question {i}", f"answer {i}") for i in range(n)])

    def sampled(**fields: int) -> set[str]:
        source = {"source": "pool.jsonl", "seed": seed, **fields}
        fields_of_recipe = {
            "name": "r",
            "model": {"source": "m"},
            "candidates": source,
            "capabilities": {"c": {"source": "c"}},
        }
        recipe = Recipe.model_validate(
            {**fields_of_recipe, "methods": ["random"], "ratios": [0.5], "path": folder / "recipe.yaml"}
        )
        return set(read_corpus(recipe, POOL).examples["sample_id"])

    everything = sampled(limit=n)
    first = sampled(limit=min(skip, n)) if skip else set()
    if skip < n:
        second = sampled(skip=skip, limit=limit)
        assert not first & second
        assert first | second == sampled(limit=skip + limit)
        assert len(second) == min(limit, n - skip)
        assert second <= everything


@given(SELECTIONS)
def test_overlaps_are_symmetric_and_occurrences_count_every_row_of_every_selection(
    selections: dict[str, list[str]],
) -> None:
    """A figure in which rows are lost or counted twice would still look right."""
    overlap = {(one, other): value for one, other, value in overlap_matrix(selections).iter_rows()}
    assert set(overlap) == set(product(selections, repeat=2))
    assert all(overlap[one, other] == overlap[other, one] and 0 <= overlap[one, other] <= 1 for one, other in overlap)
    assert all(overlap[name, name] == (1.0 if rows else 0.0) for name, rows in selections.items())

    counts = occurrences(selections)
    chosen = set().union(*selections.values())
    assert int((counts["n_selections"] * counts["n_rows"]).sum()) == sum(map(len, selections.values()))
    assert int(counts["n_rows"].sum()) == len(chosen)
    assert abs(float(counts["share"].sum()) - (1.0 if chosen else 0.0)) < 1e-12


@given(SELECTIONS)
def test_a_row_belongs_to_a_target_in_which_none_ranks_it_higher(selections: dict[str, list[str]]) -> None:
    """And every chosen row belongs to one."""
    best = best_targets(selections)
    assert set(best) == set().union(*selections.values())
    for sample_id, target in best.items():
        ranks = {name: rows.index(sample_id) for name, rows in selections.items() if sample_id in rows}
        assert ranks[target] == min(ranks.values())


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 9))
def test_retrieval_is_the_share_of_pairs_in_order_and_of_hits_among_as_many_best_rows(
    wanted: list[bool], n_unscored: int
) -> None:
    """Counted pair by pair; candidates without a score stand last, level with each other."""
    ranks = [rank if rank <= len(wanted) - n_unscored else None for rank in range(1, len(wanted) + 1)]
    ids = [f"s{number}" for number in range(len(wanted))]
    scores = pl.DataFrame({"sample_id": ids, "rank": ranks}, schema={"sample_id": pl.String, "rank": pl.Int64})
    planted = pl.Series([sample_id for sample_id, one in zip(ids, wanted, strict=True) if one], dtype=pl.String)

    area, precision, n_wanted = retrieval(scores, planted)

    places = [len(wanted) + 1 if rank is None else rank for rank in ranks]
    pairs = [
        1.0 if places[i] < places[j] else 0.5 if places[i] == places[j] else 0.0
        for i, j in product(range(len(wanted)), repeat=2)
        if wanted[i] and not wanted[j]
    ]
    assert n_wanted == sum(wanted)
    assert abs(area - sum(pairs) / len(pairs)) < 1e-12 if pairs else area != area
    hits = sum(one and rank is not None for one, rank in list(zip(wanted, ranks, strict=True))[:n_wanted])
    assert precision == (hits / n_wanted if n_wanted else 0.0)
