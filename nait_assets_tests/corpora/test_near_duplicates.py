"""Near duplicates: what is nearly the same, which of them stays, and that nothing but the sources' order matters."""

import itertools
from random import Random
from unittest import mock

import polars as pl
import pytest

from nait_assets.corpora import near_duplicates as module
from nait_assets.corpora.filtered import FILTERED_CANDIDATES, READ, filtered
from nait_assets.corpora.near_duplicates import MISSED, bands_of, near_duplicates
from nait_assets.recipe import Filters, NearDuplicates

PASSAGE = " ".join(f"word{number}" for number in range(60))
QUESTION = "Describe in a few sentences how the water of the sea becomes rain over the mountains"
ANSWER = " ".join(f"answer{number}" for number in range(40))
CHINESE = "水从海洋蒸发上升到天空中冷却后凝结成云最后又以雨雪的形式落回地面流入河流再回到大海这个过程不断循环"


def near(*pairs: tuple[str, str], **options: float) -> list[tuple[str, str]]:
    """Which of some questions and answers are left out, and what each repeats, by place."""
    rows = [(str(place), question, answer) for place, (question, answer) in enumerate(pairs)]
    return [(name, other) for name, other, _ in near_duplicates(rows, NearDuplicates(**options))]


def pool(rows: list[tuple[str, str, int, str, str]]) -> pl.DataFrame:
    """Rows of the pool: id, source, row, question and answer."""
    return pl.DataFrame(
        [
            {
                "sample_id": name,
                "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}],
                "source": source,
                "source_row": number,
            }
            for name, source, number, asked, answered in rows
        ],
        schema=READ.columns,
    )


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [32, 128, 1024])
def test_bands_miss_hardly_any_pair_at_the_threshold(threshold: float, n: int) -> None:
    """A pair that no band shows is never compared, and both rows are chosen."""
    n_bands, size = bands_of(threshold, n)
    assert n_bands * size <= n
    assert n_bands >= 2
    assert (1 - threshold**size) ** n_bands <= MISSED


def test_a_few_other_words_make_no_other_row() -> None:
    """What paraphrasing pipelines leave behind: an article, capitals, marks, white space."""
    assert near((QUESTION, ANSWER), (f"{QUESTION.upper()}!", f"  {ANSWER.replace(' ', '  ')} end.")) == [("1", "0")]


def test_characters_are_words_where_no_space_stands_between_them() -> None:
    """Chinese split at white space would be one word a sentence, and one character more another row."""
    assert near(("水是怎么循环的？", CHINESE), ("水是怎么循环的", f"{CHINESE}。啊")) == [("1", "0")]
    assert near(("水是怎么循环的？", CHINESE), ("水是怎么循环的？", CHINESE[::-1])) == []


@pytest.mark.parametrize(
    "pairs",
    [
        ((f"{PASSAGE}\nWho wrote it?", "Ann did"), (f"{PASSAGE}\nWhen was it written?", "In 1910")),
        ((f"{PASSAGE} one", "Yes."), (f"{PASSAGE[::-1]} two", "Yes.")),
        (("What is 12 + 3?", "15"), ("What is 12 - 3?", "9")),
        (("Is a < b here?", "It is so in every case"), ("Is a > b here?", "It is so in every case")),
        (("return x*y", "the code is right as it is"), ("return x-y", "the code is right as it is")),
        (("hello", "hi"), ("bye", "hi")),
        (("🙂", "one two three four"), ("🙃", "one two three four")),
    ],
    ids=["another question on a passage", "another passage", "a sum", "a comparison", "code", "a word", "signs alone"],
)
def test_what_asks_or_answers_something_else_is_another_row(pairs: tuple[tuple[str, str], ...]) -> None:
    """Left out, a row is lost for training: alike in one half alone is not enough, and signs count."""
    assert near(*pairs) == []


def test_rows_of_one_word_repeat_equal_ones_alone() -> None:
    """A text that is shorter than an n-gram is one n-gram."""
    assert near(("yes", "no"), ("Yes!", "no"), ("yes", "yes"), ("", "no"), ("", "No.")) == [("1", "0"), ("4", "3")]


def test_no_chain_joins_what_is_not_alike() -> None:
    """The second is near to the first and goes; the third is near to the second alone, and stays."""
    words = ANSWER.split()
    others = [f"other{place}" for place in range(8)]
    texts = [ANSWER, " ".join([*others[:4], *words[4:]]), " ".join([*others[:4], *words[4:-4], *others[4:]])]
    assert near(*((QUESTION, text) for text in texts)) == [("1", "0")]
    assert near(*((QUESTION, text) for text in texts[1:])) == [("1", "0")]


def test_all_rows_alike_are_compared_with_the_first_alone() -> None:
    """2,000 equal rows would be two million comparisons."""
    with mock.patch.object(module, "jaccard", wraps=module.jaccard) as compared:
        found = near(*((QUESTION, ANSWER) for _ in range(2000)))
    assert found == [(str(place), "0") for place in range(1, 2000)]
    assert compared.call_count == 2 * 1999


def test_two_thousand_rows_of_one_template_are_hardly_compared() -> None:
    """Signatures say of most pairs that they are too far apart, before their texts are looked at."""
    random = Random(0)
    words = [f"w{number}" for number in range(500)]
    rows = [
        (f"{QUESTION} {' '.join(random.sample(words, 8))}", " ".join(random.sample(words, 20))) for _ in range(2000)
    ]
    with mock.patch.object(module, "jaccard", wraps=module.jaccard) as compared:
        assert near(*rows) == []
    assert compared.call_count < 2000


def test_a_search_through_all_pairs_finds_the_same() -> None:
    """Against the plain definition, on texts whose similarities lie on both sides of the threshold."""
    random = Random(7)
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(random.choices(words, k=30)) for _ in range(12)]
    rows = []
    for place in range(150):
        changed = random.choice(texts).split()
        for _ in range(random.randrange(4)):
            changed[random.randrange(30)] = random.choice(words)
        rows.append((str(place), QUESTION, " ".join(changed)))
    kept: list[tuple[str, set[tuple[str, ...]]]] = []
    expected = []
    for name, _, answer in rows:
        found = answer.split()
        grams = set(zip(found, found[1:], found[2:], strict=False))
        first = next((other for other, known in kept if len(grams & known) / len(grams | known) >= 0.8), None)
        if first is None:
            kept.append((name, grams))
        else:
            expected.append((name, first))
    assert [(name, other) for name, other, _ in near_duplicates(rows, NearDuplicates())] == expected
    assert 20 < len(expected) < 140


def test_the_first_of_the_sources_stays_in_whatever_order_the_pool_is_read() -> None:
    """Files are read by shards and threads; which row stays is the recipe's order of sources, then the row's number."""
    rows = [
        ("a", "second.jsonl", 0, QUESTION, ANSWER),
        ("b", "first.jsonl", 9, QUESTION, f"{ANSWER} x"),
        ("c", "first.jsonl", 2, QUESTION, f"{ANSWER} y"),
        ("d", "first.jsonl", 1, "Another question", "with another answer"),
    ]
    filters, sources = Filters(near_duplicates=NearDuplicates()), ["first.jsonl", "second.jsonl"]
    for order in itertools.permutations(rows):
        found = filtered([pool(list(order[:2])), pool(list(order[2:]))], filters, sources)
        assert found.select("sample_id", "duplicate_of").rows() == [("a", "c"), ("b", "c")]
        assert found.schema == FILTERED_CANDIDATES.columns
    (reason,) = found.filter(pl.col("sample_id") == "b")["reason"]
    assert reason.startswith("nearly repeats c: both texts have at least 0.9")


def test_a_row_out_of_bounds_is_nobodys_first() -> None:
    """Else all of a group would go: the first for its bounds, the others because they repeat it."""
    rows = [("a", "p", 0, QUESTION, f"{ANSWER} x"), ("b", "p", 1, QUESTION, ANSWER), ("c", "p", 2, QUESTION, ANSWER)]
    filters = Filters.model_validate({"near_duplicates": {}, "quality": {"max_answer_words": 40}})
    found = filtered([pool(rows)], filters, ["p"])
    assert found.select("sample_id", "filter", "duplicate_of").rows() == [
        ("a", "max_answer_words", None),
        ("c", "near_duplicates", "b"),
    ]
