"""BM25 against the formula, word by word."""

from collections import Counter
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest

from nait_assets.corpora.contamination import words_of
from nait_assets.scoring.methods import bm25
from nait_assets.scoring.methods.bm25 import METHOD, Bm25Options, stop_words
from nait_assets_tests.scoring.methods.small_texts import EXAMPLES, POOL, TARGETS, frame, inputs


def literal(query: str, documents: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """BM25 of every document, variant "lucene", as it is written in the literature."""
    split = [words_of(document) for document in documents]
    n, mean = len(split), sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        score = 0.0
        for word in words_of(query):
            n_with, f = sum(word in other for other in split), Counter(words)[word]
            idf = log(1 + (n - n_with + 0.5) / (n_with + 0.5))
            score += idf * f / (f + k1 * (1 - b + b * len(words) / mean)) if f else 0.0
        scores.append(score)
    return scores


def joined(rows: list[tuple[str, str]], text: str = "conversation") -> list[str]:
    return [{"conversation": f"{q}\n{a}", "instruction": q, "answer": a}[text] for q, a in rows]


@pytest.mark.parametrize(
    "options",
    [{}, {"text": "instruction"}, {"text": "answer"}, {"k1": 0.9, "b": 0.2}, {"over": "max"}],
    ids=str,
)
def test_scores_are_those_of_the_formula(options: dict[str, Any]) -> None:
    """The mean or the maximum over a capability's examples, then the mean over capabilities."""
    text, over = options.get("text", "conversation"), options.get("over", "mean")
    numbers = {name: value for name, value in options.items() if name in ("k1", "b")}
    by_example = {
        name: np.array([literal(query, joined(POOL, text), **numbers) for query in joined(rows, text)])
        for name, rows in EXAMPLES.items()
    }
    of_capability = {
        name: values.max(axis=0) if over == "max" else values.mean(axis=0) for name, values in by_example.items()
    }
    wanted = np.stack([np.mean([of_capability[name] for name in names], axis=0) for names in TARGETS.values()], axis=1)
    found = METHOD.scores(inputs(Bm25Options(**options)))
    np.testing.assert_allclose(found.values, wanted, rtol=1e-12)
    for target, names in TARGETS.items():
        most = max(len(by_example[name]) for name in names)
        turns = [by_example[name][turn] for turn in range(most) for name in names if turn < len(by_example[name])]
        np.testing.assert_allclose(found.by_example[target].matrix(), np.stack(turns, axis=1), rtol=1e-12)


def test_system_message_is_not_read() -> None:
    """It is the same in a whole data set, and would make every row look like every example that has one."""
    texts = [
        text for part in ("conversation", "instruction", "answer") for text in bm25.texts_of(frame(POOL, "s"), part)
    ]  # type: ignore[arg-type]
    assert not any("You add cats" in text for text in texts)


def test_scores_of_a_target_do_not_depend_on_the_other_targets() -> None:
    """To the last bit: a target that is made again alone must not find a change where there is none."""
    together = METHOD.scores(inputs(Bm25Options()))
    for place, (target, names) in enumerate(TARGETS.items()):
        alone = METHOD.scores(inputs(Bm25Options(), {target: names}))
        np.testing.assert_array_equal(alone.values[:, 0], together.values[:, place])
        np.testing.assert_array_equal(alone.by_example[target].matrix(), together.by_example[target].matrix())


def test_order_of_the_examples_changes_nothing() -> None:
    """A table's version does not depend on the order of its rows, so neither may what is made from it."""
    given = inputs(Bm25Options())
    ((key, frames),) = given.by_capability.items()
    given = replace(given, by_capability={key: {name: frame.reverse() for name, frame in frames.items()}})
    expected, found_scores = METHOD.scores(inputs(Bm25Options())), METHOD.scores(given)
    np.testing.assert_array_equal(found_scores.values, expected.values)
    np.testing.assert_array_equal(found_scores.by_example["all"].matrix(), expected.by_example["all"].matrix())


def test_languages_without_spaces_are_searched_by_character() -> None:
    """`bm25s` itself takes a line of Chinese for one word: no other row would ever be found."""
    by_example = METHOD.scores(inputs(Bm25Options(text="instruction"), {"code": ["code"]})).by_example["code"].matrix()
    assert np.flatnonzero(by_example[:, 1]).tolist() == [3]  # the example asks 猫, and row 3 about a 猫


def test_stop_words_of_a_language_count_nothing_and_by_default_none_is() -> None:
    """English ones are words of meaning elsewhere ("die", "war"), so that nobody else's list is assumed."""
    assert stop_words(None) == frozenset()
    assert {"a", "that", "and"} <= stop_words("english")
    assert "und" in stop_words("german")
    kept, without = (
        METHOD.scores(inputs(Bm25Options(stop_words=stop), {"code": ["code"]})).by_example["code"].column(0)
        for stop in (None, "english")
    )
    assert without[4] != kept[4]
    left = [" ".join(w for w in words_of(text) if w not in stop_words("english")) for text in joined(POOL)]
    query = " ".join(w for w in words_of(joined(EXAMPLES["code"])[0]) if w not in stop_words("english"))
    np.testing.assert_allclose(without, literal(query, left), rtol=1e-12)


@pytest.mark.parametrize("stop", [None, "english"])
def test_texts_without_a_word_score_0(stop: Any) -> None:
    """Signs alone share no word with anything; that is an answer, and no failure."""
    signs = frame([("???", "!"), ("...", "-")], "s")
    assert METHOD.scores(inputs(Bm25Options(stop_words=stop), pool=signs)).values.tolist() == [[0.0] * 3] * 2
    assert METHOD.scores(inputs(Bm25Options(stop_words=stop))).values[5].tolist() == [0.0] * 3
