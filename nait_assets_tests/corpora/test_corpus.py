"""A corpus: what becomes of every row of its sources, and how a sample is taken."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nait_assets.conversation import sample_id
from nait_assets.corpora.corpus import Corpus, read_corpus, source_inputs
from nait_assets.errors import UserError
from nait_assets.recipe import Recipe
from nait_assets.resources.files import HashCache
from nait_assets.resources.row_readers import OTHER_ENCODING
from nait_assets.tables import EXAMPLE, REJECTED
from nait_assets_tests.conftest import conversation, write_jsonl
from nait_assets_tests.test_recipe import recipe_in

TEMPLATES = {"user": "{{ question }}", "assistant": "{{ answer }}"}
Reader = Callable[..., Corpus]


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [conversation(f"question {number}", f"answer {number}") for number in numbers]


def numbers_of(corpus: Corpus) -> list[int]:
    """The numbers of `rows` that a corpus holds, in its order."""
    return [int(messages[0]["content"].removeprefix("question ")) for messages in corpus.examples["messages"].to_list()]


@pytest.fixture
def read_pool(tmp_path: Path) -> Reader:
    """Write `pool.jsonl` from rows or bytes and read it as the candidate pool, with settings of its source."""

    def read(content: list[dict[str, Any]] | bytes, **settings: Any) -> Corpus:
        if isinstance(content, bytes):
            (tmp_path / "pool.jsonl").write_bytes(content)
        else:
            write_jsonl(tmp_path / "pool.jsonl", content)
        return read_corpus(recipe_in(tmp_path, candidates={"source": "pool.jsonl", **settings}), "candidates")

    return read


def test_every_row_is_an_example_or_rejected_or_counted(read_pool: Reader) -> None:
    """Nothing is dropped in silence: the four counts add up to the rows read."""
    corpus = read_pool([*rows(1, 2, 3, 4, 2, 2), {"messages": []}], limit=3)
    assert (corpus.n_rows, len(corpus.examples), corpus.n_duplicates, corpus.n_unsampled) == (7, 3, 2, 1)
    assert len(corpus.rejected) == 1
    assert dict(corpus.examples.schema) == EXAMPLE
    assert dict(corpus.rejected.schema) == REJECTED


def test_example_knows_its_id_and_its_row(read_pool: Reader) -> None:
    """Everything joins on `sample_id`, and a person can find the row that it came from."""
    corpus = read_pool([{"messages": []}, *rows(1)])
    example = corpus.examples.row(0, named=True)
    assert example["sample_id"] == sample_id(rows(1)[0]["messages"])
    assert (example["source"], example["source_row"], example["messages"]) == ("pool.jsonl", 2, rows(1)[0]["messages"])


def test_unusable_rows_are_rejected_with_reason_and_line_and_the_rest_goes_on(read_pool: Reader) -> None:
    """Empty, not text, invalid UTF-8, invalid JSON, not an object: each has its own reason and line number."""
    good = json.dumps(rows(1)[0]).encode()
    lines = [
        good,
        json.dumps(conversation("", "a")).encode(),
        good.replace(b'"answer 1"', b"7"),
        b'{"messages": "\xff"}',
        b'{"messages": [',
        b"[1]",
        b"",
        good.replace(b"question 1", b"\\ud800"),
        good.replace(b"1", b"2"),
    ]
    corpus = read_pool(b"\n".join(lines))
    assert numbers_of(corpus) == [1, 2]
    assert corpus.examples["source_row"].to_list() == [1, 9]
    assert corpus.rejected.select("source_row", "reason").rows() == [
        (2, "empty user message"),
        (3, "not text: the assistant message is int"),
        (4, f"invalid UTF-8 at byte 14 of the line{OTHER_ENCODING}"),
        (5, "invalid JSON: Expecting value at column 15"),
        (6, "a JSON list, not an object"),
        (8, "invalid UTF-8: a lone surrogate in the user message"),
    ]
    assert set(corpus.rejected["corpus"]) == {"candidates"}
    assert set(corpus.rejected["source"]) == {"pool.jsonl"}
    assert corpus.rejected["excerpt"].to_list()[2:5] == ['{"messages": "\ufffd"}', '{"messages": [', "[1]"]


def test_text_that_no_table_can_hold_is_kept_readable(read_pool: Reader) -> None:
    """Half a surrogate pair in a label must not end the run: UTF-8 cannot spell it, JSON can."""
    lines = json.dumps({**rows(1)[0], "kind": "\ud800!"}).encode()
    corpus = read_pool(lines, topic_field="kind")
    assert corpus.examples["topic"].to_list() == ["?!"]


def test_duplicates_are_counted_within_and_across_sources_and_the_first_stays(tmp_path: Path) -> None:
    """Two identical rows are one sample, whatever their formats and files."""
    write_jsonl(tmp_path / "a.jsonl", rows(1, 2, 1))
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "question 2 ", "output": "answer 2"}])
    sources = [{"source": "a.jsonl", "topic": "a"}, {"source": "b.jsonl", "format": "alpaca", "topic": "b"}]
    corpus = read_corpus(recipe_in(tmp_path, candidates=sources), "candidates")
    assert (corpus.n_rows, corpus.n_duplicates) == (4, 2)
    assert corpus.examples.select("source", "source_row", "topic").rows() == [("a.jsonl", 1, "a"), ("a.jsonl", 2, "a")]


def test_topic_comes_from_the_recipe_or_from_a_column(read_pool: Reader) -> None:
    """The label is shown to people: of any type, or missing."""
    assert read_pool(rows(1), topic="math").examples["topic"].to_list() == ["math"]
    labelled = [{**row, "kind": kind} for row, kind in zip(rows(1, 2, 3), ["x", 7, None], strict=True)]
    assert read_pool(labelled, topic_field="kind").examples["topic"].to_list() == ["x", "7", None]


def test_topic_is_no_part_of_the_identity(read_pool: Reader) -> None:
    """A label must never be an input of a method."""
    one, other = read_pool(rows(1), topic="math"), read_pool(rows(1), topic="code")
    assert one.examples["sample_id"].to_list() == other.examples["sample_id"].to_list()


def test_sample_is_the_same_each_time_and_another_for_another_seed(read_pool: Reader) -> None:
    """A sample that cannot be repeated cannot be published."""
    pool = rows(*range(30))
    first, again, other = (numbers_of(read_pool(pool, limit=5, seed=seed)) for seed in (1, 1, 2))
    assert len(first) == 5
    assert first == again != other
    assert first != list(range(5))


def test_sample_keeps_the_order_of_the_source_and_ignores_it(read_pool: Reader) -> None:
    """What is chosen depends on content alone; how it is listed follows the source."""
    chosen = numbers_of(read_pool(rows(*range(30)), limit=7))
    reversed_source = numbers_of(read_pool(rows(*reversed(range(30))), limit=7))
    assert chosen == sorted(chosen)
    assert reversed_source == chosen[::-1]


def test_skip_and_limit_give_disjoint_samples_that_cover_the_source(read_pool: Reader) -> None:
    """In-domain examples and planted rows come from one file: an example must not be its own target."""
    pool = rows(*range(20))
    parts = [
        numbers_of(read_pool(pool, seed=3, skip=skip, limit=limit)) for skip, limit in [(0, 8), (8, 5), (13, None)]
    ]
    assert [len(part) for part in parts] == [8, 5, 7]
    assert sorted(itertools.chain(*parts)) == list(range(20))


def test_duplicates_cannot_stand_in_two_disjoint_samples(read_pool: Reader) -> None:
    """Were rows sampled before duplicates are dropped, a row could be both example and target."""
    pool = rows(*range(6), *range(6))
    parts = [numbers_of(read_pool(pool, skip=skip, limit=3)) for skip in (0, 3)]
    assert sorted(itertools.chain(*parts)) == list(range(6))


def test_sample_changes_by_at_most_one_when_a_row_is_added(read_pool: Reader) -> None:
    """One row more must not extract the whole pool again, as shuffling by position would."""
    before = set(numbers_of(read_pool(rows(*range(40)), limit=10)))
    changes = {
        number: len(before - set(numbers_of(read_pool(rows(number, *range(40)), limit=10))))
        for number in range(100, 110)
    }
    assert set(changes.values()) == {0, 1}


def test_limit_beyond_the_source_takes_all(read_pool: Reader) -> None:
    """A limit is an upper bound; the number of examples is in the metadata."""
    corpus = read_pool(rows(1, 2), limit=5)
    assert (len(corpus.examples), corpus.n_unsampled) == (2, 0)


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"format": "alpaca"}, "'instruction', 'output'"),
        ({"format": "messages"}, "'messages'"),
        ({"format": "sharegpt"}, "'conversations'"),
        ({"format": {"user": "{{ question }}", "assistant": "{{ solution }}"}}, "'solution'"),
        ({"format": TEMPLATES, "topic_field": "kind"}, "'kind'"),
    ],
)
def test_absent_column_is_named_with_the_columns_that_there_are(
    tmp_path: Path, settings: dict[str, Any], absent: str
) -> None:
    """The message holds what a user needs to correct the mapping."""
    write_jsonl(tmp_path / "pool.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    recipe = recipe_in(tmp_path, candidates={"source": "pool.jsonl", **settings})
    with pytest.raises(UserError) as error:
        read_corpus(recipe, "candidates")
    assert str(error.value).startswith(f"{recipe.path}: source 'pool.jsonl' has no column {absent},")
    assert "Its columns: answer, question." in str(error.value)


def test_column_that_only_some_rows_have_rejects_the_others(read_pool: Reader) -> None:
    """A JSON-lines file need not have the same fields in each row."""
    corpus = read_pool([{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?"}], format=TEMPLATES)
    assert len(corpus.examples) == 1
    (reason,) = corpus.rejected["reason"].to_list()
    assert reason.startswith("a column that the template prints is null (answer)")


@pytest.mark.parametrize("content", [b"\n", b"\n\n"])
def test_empty_pool_is_refused(read_pool: Reader, tmp_path: Path, content: bytes) -> None:
    """The message names the recipe and the source."""
    with pytest.raises(UserError) as error:
        read_pool(content)
    message = f"{tmp_path / 'recipe.yaml'}: the candidate pool has 0 usable example(s) of 0 row(s) from pool.jsonl"
    assert str(error.value).startswith(message)


def test_pool_without_a_usable_row_is_refused_with_the_reasons(read_pool: Reader) -> None:
    """The most frequent reasons say what is wrong with the file."""
    with pytest.raises(UserError) as error:
        read_pool(b'{"messages": []}\n{"messages": []}\nx\n')
    assert "0 usable example(s) of 3 row(s)" in str(error.value)
    assert "Rejected: 2 x empty: no messages; 1 x invalid JSON" in str(error.value)


def test_sample_that_skips_everything_is_an_empty_pool(read_pool: Reader) -> None:
    """`skip` beyond the end of the source leaves nothing to choose from."""
    with pytest.raises(UserError, match=r"0 usable example\(s\) of 2 row\(s\)"):
        read_pool(rows(1, 2), skip=2)


@pytest.mark.parametrize(
    ("methods", "numbers", "words"),
    [
        (["nait"], [1], "has 1 usable example(s) of 1 row(s) from math.jsonl; 2 are needed for a principal component"),
        (
            ["nait"],
            [1, 1],
            "has 1 usable example(s) of 2 row(s) from math.jsonl; 2 are needed for a principal component",
        ),
        (["nait_standardized"], [], "has 0 usable example(s) of 0 row(s) from math.jsonl; 1 are needed."),
    ],
)
def test_capability_with_too_few_examples_is_refused(
    tmp_path: Path, methods: list[str], numbers: list[int], words: str
) -> None:
    """One example has no direction of variance, nor have two equal ones: said before the model loads."""
    write_jsonl(tmp_path / "math.jsonl", rows(*numbers)).open("a").write("\n")
    recipe = recipe_in(tmp_path, methods=methods)
    with pytest.raises(UserError) as error:
        read_corpus(recipe, "math")
    assert f"{recipe.path}: the in-domain set of capability 'math' {words}" in str(error.value)


def test_one_example_is_enough_without_a_principal_component(tmp_path: Path) -> None:
    """A centroid of one example is that example."""
    write_jsonl(tmp_path / "math.jsonl", rows(1))
    assert len(read_corpus(recipe_in(tmp_path, methods=["nait_standardized"]), "math").examples) == 1


def test_in_domain_set_is_read_from_its_own_sources(tmp_path: Path) -> None:
    """A capability may join several sources; the pool's are not among them."""
    for name, numbers in {"pool": [1], "a": [2, 3], "b": [4]}.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows(*numbers))
    recipe = recipe_in(tmp_path, capabilities={"math": [{"source": "a.jsonl"}, {"source": "b.jsonl"}]})
    assert numbers_of(read_corpus(recipe, "math")) == [2, 3, 4]


def test_state_of_the_sources_follows_their_content(tmp_path: Path) -> None:
    """The pool is stale when a file of it changed, wherever it stands in the list."""

    def state(recipe: Recipe) -> dict[str, str]:
        return source_inputs(recipe, "candidates", HashCache(tmp_path / "hashes.json"))

    write_jsonl(tmp_path / "a.jsonl", rows(1))
    write_jsonl(tmp_path / "b.jsonl", rows(2))
    recipe = recipe_in(tmp_path, candidates=[{"source": "a.jsonl"}, {"source": "b.jsonl"}, {"source": "a.jsonl"}])
    before = state(recipe)
    assert list(before) == ["source:0:a.jsonl", "source:1:b.jsonl", "source:2:a.jsonl"]
    assert before["source:0:a.jsonl"] == before["source:2:a.jsonl"] != before["source:1:b.jsonl"]
    write_jsonl(tmp_path / "b.jsonl", rows(2, 3))
    after = state(recipe)
    assert {name for name in before if before[name] != after[name]} == {"source:1:b.jsonl"}


def test_reading_the_same_source_twice_gives_the_same_frame(read_pool: Reader) -> None:
    """No hash of the process or order of a set may show in the result."""
    first, second = (read_pool([*rows(*range(9)), {"messages": []}], limit=4) for _ in range(2))
    assert first.examples.equals(second.examples)
    assert first.rejected.equals(second.rejected)
