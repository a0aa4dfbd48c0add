"""Contamination: what counts as leaking an example, against a slow and literal search."""

import random

import polars as pl
import pytest

from nait_assets.corpora.contamination import Examples, Spoken, contaminated, words_of
from nait_assets.tables import CONTAMINATED_CANDIDATES, EXAMPLE

WORDS = [f"w{number}" for number in range(6)]


def frame(*conversations: tuple[str, str, str]) -> pl.DataFrame:
    """Rows of id, question and answer."""
    rows = [
        {
            "sample_id": name,
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "source": "",
            "source_row": 0,
            "topic": None,
        }
        for name, question, answer in conversations
    ]
    return pl.DataFrame(rows, EXAMPLE)


def text(n: int, prefix: str) -> str:
    """Words that nothing else has."""
    return " ".join(f"{prefix}{number}" for number in range(n))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Don't PANIC -- it's 42.", ["don", "t", "panic", "it", "s", "42"]),
        ("Straße ﬁne", ["strasse", "fine"]),
        ("cafe\u0301", ["café"]),
        ("snake_case", ["snake", "case"]),
        ("数学abc問題", ["数", "学", "abc", "問", "題"]),
        ("...", []),
    ],
)
def test_words_do_not_depend_on_how_they_are_written(written: str, words: list[str]) -> None:
    """A leaked question in capitals, or without its commas, is the same question; Chinese has no spaces to count by."""
    assert words_of(written) == words


@pytest.mark.parametrize(("shared", "found"), [(13, 1), (12, 0)])
def test_thirteen_words_in_a_row_are_shared(shared: int, found: int) -> None:
    """One word fewer is chance in long texts of one field."""
    known = text(shared, "k")
    pool = frame(("candidate", "a question", f"{text(5, 'a')} {known.upper()}, {text(5, 'b')}"))
    examples = {"exam": frame(("example", "another question", f"{text(3, 'c')} {known} {text(3, 'd')}"))}
    assert len(contaminated([pool], examples, 13)) == found


def test_words_of_two_messages_are_not_in_a_row() -> None:
    """The end of a question and the beginning of its answer stand together by chance."""
    known = text(14, "k").split()
    pool = frame(("candidate", " ".join(known[:7]), " ".join(known[7:])))
    assert contaminated([pool], {"exam": frame(("example", "q", " ".join(known)))}, 13).is_empty()


def test_the_same_question_is_given_away_whatever_the_answer() -> None:
    """Short questions have no thirteen words, and are the ones that benchmarks ask."""
    pool = frame(("candidate", "What is 2 + 2?", "four"))
    examples = {"exam": frame(("b", "what is 2+2", "4"), ("a", "WHAT IS 2 2!", "5"))}
    assert contaminated([pool], examples, 13).rows() == [("candidate", "exam", "a", "equal", "what is 2 2")]


def test_a_question_without_a_word_equals_none() -> None:
    """Two rows of emoji are no leak."""
    assert contaminated([frame(("a", "🙂", "x"))], {"exam": frame(("b", "🙃", "y"))}, 13).is_empty()


def test_a_candidate_is_named_once_for_each_corpus() -> None:
    """With the first example by id, so that the table is the same each time."""
    known = text(20, "k")
    pool = frame(("c", "q", known))
    examples = {"two": frame(("y", "r", known), ("x", "s", known)), "one": frame(("z", "t", f"more {known}"))}
    rows = contaminated([pool], examples, 13).rows()
    assert rows == [
        ("c", corpus, example, "13-gram", " ".join(known.split()[:13]))
        for corpus, example in (("one", "z"), ("two", "x"))
    ]


def test_it_finds_what_a_literal_search_finds() -> None:
    """Six words and n = 3: many runs are shared, many hashes are looked up, and none may be missed or invented."""
    rng = random.Random(0)

    def conversations(prefix: str, n: int) -> pl.DataFrame:
        def sentence() -> str:
            return " ".join(rng.choices(WORDS, k=rng.randint(0, 6)))

        return frame(*((f"{prefix}{number:02}", sentence(), sentence()) for number in range(n)))

    pool, examples = conversations("c", 60), conversations("e", 8)
    ngrams = {
        tuple(words[begin : begin + 3])
        for messages in examples["messages"].to_list()
        for words in (words_of(message["content"]) for message in messages)
        for begin in range(len(words) - 2)
    }
    questions = {tuple(words_of(messages[0]["content"])) for messages in examples["messages"].to_list()}
    wanted = set()
    for name, messages in pool.select("sample_id", "messages").iter_rows():
        spoken = [words_of(message["content"]) for message in messages]
        shares = any(tuple(words[begin : begin + 3]) in ngrams for words in spoken for begin in range(len(words) - 2))
        if shares or (spoken[0] and tuple(spoken[0]) in questions):
            wanted.add(name)
    found = contaminated([pool], {"exam": examples}, 3)
    assert 5 < len(wanted) < 55
    assert set(found["sample_id"].to_list()) == wanted
    assert found.schema == CONTAMINATED_CANDIDATES.columns


def test_an_equal_hash_alone_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four bits collide at some size; the words themselves decide."""
    monkeypatch.setattr("nait_assets.corpora.contamination._word_hash", lambda word: b"\1" * 8)
    examples = Examples(frame(("example", "q", text(13, "k"))), 13)
    other = [{"role": "assistant", "content": text(13, "other")}]
    assert examples.match(Spoken(other, 13)) is None


def test_system_messages_are_left_out() -> None:
    """The same system prompt stands in front of every row of many pools."""
    known = text(20, "k")
    spoken = Spoken([{"role": "system", "content": known}, {"role": "user", "content": "hello"}], 13)
    assert spoken.instruction == ("hello",)
    assert Examples(frame(("example", "q", known)), 13).match(spoken) is None
