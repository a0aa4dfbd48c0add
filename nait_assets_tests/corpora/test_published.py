"""Published lists: which of their rows are candidates, and what becomes of the others."""

from pathlib import Path
from typing import Any

import pytest

from nait_assets.corpora.catalogue import published_output
from nait_assets.corpora.checks import check_published
from nait_assets.corpora.corpus import read_corpus
from nait_assets.corpora.published import PublishedList, published_list
from nait_assets.corpora.sensors import compare, watched_corpora
from nait_assets.errors import DataError
from nait_assets.lineage import Record
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.tables import CANDIDATE_POOL, CORPUS_COUNTS, REJECTED, REJECTED_ROWS, published_table
from nait_assets_tests.conftest import conversation, write_jsonl
from nait_assets_tests.test_real_data import HERE, needs_data
from nait_assets_tests.test_recipe import recipe_in, refusal_of

ALPACA_LISTS = {
    "cherry_5pct": (3111, 3033),
    "alpagasus_claude_t45": (5305, 5219),
    "alpagasus_helpfulness_t45": (2022, 1996),
    "alpagasus_random_9k": (9229, 9057),
    "car_1k": (1013, 986),
    "rico_llama2_7b_top5200": (5200, 5124),
    "rico_llama3.1_8b_top5200": (5200, 5126),
    "rico_qwen2.5_3b_top5200": (5200, 5072),
    "rico_llama3.1_8b_low7800": (7800, 7650),
}
"""Rows of each list, and how many of them are among the 51,941 rows of the pool."""


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [conversation(f"question {number}", f"answer {number}") for number in numbers]


def recipe_with(folder: Path, listed: list[dict[str, Any]], **fields: Any) -> Recipe:
    """A pool of ten, and the list `best`."""
    write_jsonl(folder / "pool.jsonl", rows(*range(10)))
    write_jsonl(folder / "best.jsonl", listed)
    fields = {"published": {"best": {"source": "best.jsonl"}}, "methods": ["best", "random"], **fields}
    return recipe_in(folder, **fields)


def found_in(folder: Path, listed: list[dict[str, Any]]) -> PublishedList:
    recipe = recipe_with(folder, listed)
    return published_list(recipe, "best", read_corpus(recipe, "candidates").examples)


def test_candidates_on_the_list_have_their_places_there(tmp_path: Path) -> None:
    """The order of the file is the order of the list; rows that the pool lacks leave gaps, repeated ones none."""
    found = found_in(tmp_path, rows(7, 99, 3, 7, 0))
    pool = read_corpus(recipe_with(tmp_path, rows(1)), "candidates").examples
    number = {name: row for name, row in pool.select("sample_id", "source_row").iter_rows()}
    assert [(number[name] - 1, place) for name, place in found.rows.iter_rows()] == [(7, 1), (3, 3), (0, 4)]
    assert found.rows.schema == published_table("best").columns


def test_rows_that_are_no_candidates_are_counted_and_kept_with_the_reason(tmp_path: Path) -> None:
    """Who reads that a list of 3,111 has 400 rows can look up what became of the others."""
    found = found_in(tmp_path, [*rows(1, 99), {"messages": []}, *rows(1)])
    assert found.rejected.schema == REJECTED
    assert found.rejected.select("corpus", "source", "source_row", "reason", "excerpt").rows() == [
        ("published/best", "best.jsonl", 3, "empty: no messages", "{'messages': []}"),
        ("published/best", "best.jsonl", 2, "not in the candidate pool", "question 99"),
    ]
    assert found.rejected["sample_id"].is_not_null().to_list() == [False, True]
    assert found.n_not_in_pool == 1
    assert found.counts.row(0, named=True) == {
        "n_rows": 4,
        "n_duplicates": 1,
        "n_unsampled": 0,
        "n_excluded": 0,
        "n_cut": 0,
    }


def test_list_of_another_pool_is_refused_with_what_would_work(tmp_path: Path) -> None:
    """Scores of nothing would show as an empty subset, after hours of other methods."""
    with pytest.raises(DataError) as error:
        found_in(tmp_path, rows(98, 99))
    assert "not one of the 2 rows of the published list 'best' (from best.jsonl) is among the 10 candidates" in str(
        error.value
    )
    assert "take 'best' out of `methods`" in str(error.value)


def test_list_without_a_usable_row_is_named_as_what_it_is(tmp_path: Path) -> None:
    """The message must not speak of a held-out set."""
    with pytest.raises(DataError, match="the published list 'best' has 0 usable example"):
        found_in(tmp_path, [{"messages": []}])


def test_edited_file_of_a_list_is_another_input(tmp_path: Path) -> None:
    """Planning, the audit and the sensor all ask what a list's source is now."""
    recipe = recipe_with(tmp_path, rows(1))
    warehouse, model = Warehouse(home=str(tmp_path / "home")), LanguageModel.of(recipe, tmp_path / "home")
    output = published_output("best")
    asset = output.key
    assert output.corpus("") == "published/best"
    before = output.external_versions(recipe, warehouse, model, "")
    assert list(before) == ["source:0:best.jsonl"]
    write_jsonl(tmp_path / "best.jsonl", rows(1, 2))
    after = output.external_versions(recipe, warehouse, model, "")
    assert after != before
    (watched,) = (one for one in watched_corpora(recipe, Partitions.of(recipe)) if one.asset == asset)
    pool = Record(CANDIDATE_POOL.asset, "", "1", "p", {})
    records = {CANDIDATE_POOL.asset: pool, asset: Record(asset, "", "1", "v", {**before, CANDIDATE_POOL.asset: "p"})}
    assert not compare([watched], records, lambda corpus: before).changed
    assert list(compare([watched], records, lambda corpus: after).changed) == [watched]


def test_list_that_is_no_method_is_not_read(tmp_path: Path) -> None:
    """A recipe can keep all lists and use one."""
    recipe = recipe_with(tmp_path, rows(1), methods=["random"])
    assert recipe.published_lists == []
    assert not [one for one in watched_corpora(recipe, Partitions.of(recipe)) if "published" in one.asset]


@pytest.mark.parametrize("name", ["nait", "random"])
def test_name_of_a_list_must_be_free(tmp_path: Path, name: str) -> None:
    """Else a method of ours would be one of theirs."""
    message = refusal_of(tmp_path, published={name: {"source": "best.jsonl"}})
    assert f"name '{name}' of a published list is taken" in message


@pytest.mark.parametrize(
    ("ids", "rejected", "holds"),
    [(["a", "b"], 1, [True, True]), (["a", "z"], 1, [False, True]), (["a", "a"], 0, [False, False])],
)
def test_checks_find_strangers_repeats_and_lost_rows(
    tmp_path: Path, ids: list[str], rejected: int, holds: list[bool]
) -> None:
    """What is stored is judged, not what was meant to be."""
    import polars as pl

    warehouse, table = Warehouse(home=str(tmp_path)), published_table("best")
    example = {"messages": [], "source": "s", "source_row": 1, "topic": None}
    with warehouse.tables.transaction() as tables:
        tables.replace(
            CANDIDATE_POOL, pl.DataFrame([{"sample_id": n, **example} for n in "abc"], schema=CANDIDATE_POOL.columns)
        )
        tables.replace(table, pl.DataFrame({"sample_id": ids, "position": [1, 2]}, table.columns))
        gone = {
            "source": "s",
            "source_row": 1,
            "sample_id": None,
            "reason": "r",
            "excerpt": "",
            "corpus": "published/best",
        }
        tables.replace(
            REJECTED_ROWS, pl.DataFrame([gone] * rejected, schema=REJECTED_ROWS.columns), corpus="published/best"
        )
        counts = pl.DataFrame({"n_rows": [3], "n_duplicates": 0, "n_unsampled": 0, "n_excluded": 0, "n_cut": 0})
        tables.replace(CORPUS_COUNTS, counts, corpus="published/best")
        for asset in (CANDIDATE_POOL.asset, table.asset):
            tables.put_record(Record(asset, "", "1", "v", {}))
    verdicts = check_published(warehouse, published_output("best"))
    assert [verdicts[name].passed for name in ("rows_are_candidates", "rows_are_accounted_for")] == holds


@needs_data
@pytest.mark.slow
def test_lists_published_of_alpaca_are_found_in_its_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists were chosen from the original Alpaca; the pool is its cleaned copy, which lacks few of their rows."""
    assert HERE is not None
    if not (HERE / "alpaca_published_selections.parquet").exists():
        pytest.skip(f"{HERE} has no alpaca_published_selections.parquet")
    monkeypatch.setenv("NAIT_DATA", str(HERE))
    lists = {
        name.replace(".", "_"): {
            "source": "${NAIT_DATA}/alpaca_published_selections.parquet",
            "format": "alpaca",
            "where": {"selection": name},
        }
        for name in ALPACA_LISTS
    }
    pool = {"source": "${NAIT_DATA}/alpaca_52k.parquet", "format": "alpaca"}
    recipe = recipe_in(tmp_path, candidates=pool, published=lists, methods=list(lists))
    candidates = read_corpus(recipe, "candidates").examples
    assert len(candidates) == 51_941
    found = {}
    for selection in ALPACA_LISTS:
        listed = published_list(recipe, selection.replace(".", "_"), candidates)
        n_listed = listed.counts["n_rows"][0] - listed.counts["n_excluded"][0]
        found[selection] = (n_listed, len(listed.rows))
        assert len(listed.rows) + len(listed.rejected) == n_listed
    assert found == ALPACA_LISTS
