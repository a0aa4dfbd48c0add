"""BM25: in-domain examples as queries over the pool (package `bm25s`, variant "lucene").

Formula:
b(q, y) = sum over the words w of q, as often as they stand there, of
          log(1 + (N - n_w + 0.5) / (n_w + 0.5)) * f_w(y) / (f_w(y) + k1 (1 - b + b |y| / mean |y|))

There are N candidates, of which n_w have w; f_w(y) is how often w stands in y, and |y| the words of y. s(y) is the mean
of b(q, y) over a capability's examples, then over the target's capabilities, which so have an equal say whatever their
numbers. `over: max` takes the best query in place of the mean.

Departures:
MoNA's baseline (`bm25s`) does not say which text, which words or how queries are put together. We read the whole
conversation on both sides; a word is a run of letters and digits without case, in scripts without spaces a single
character (`corpora/contamination.py`), and none is a stop word, so that all languages are treated alike.

Limits:
Long queries have larger scores and weigh more in the mean; words that all texts share count, if little; n_w is of the
pool, so that a score changes with it.

Cost:
No model; 2 ms a query for 52,000 candidates. In memory are the words of all candidates.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from nait_assets.corpora.contamination import words_of
from nait_assets.recipe import CANDIDATES, EXAMPLES, Section
from nait_assets.scoring.by_example import ExampleScores
from nait_assets.scoring.method import Explanation, Method, Near, Parts, Scores, ScoringInputs
from nait_assets.scoring.near import mean_of
from nait_assets.scoring.texts import TextPart, texts_of, texts_of_pool

Query = Callable[[list[str]], np.ndarray]


StopWords = Literal[
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "korean",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]


class Bm25Options(Section):
    """Options of `bm25`."""

    text: TextPart = Field("conversation", description="Which part of candidates and in-domain examples is read.")
    over: Literal["mean", "max"] = Field("mean", description="How the scores for each example are combined.")
    stop_words: StopWords | None = Field(None, description="Language whose commonest words are left out.")
    k1: float = Field(1.5, ge=0, description="Saturation: how quickly repetitions of a word stop counting.")
    b: float = Field(0.75, ge=0, le=1, description="How much length lowers the score.")


def stop_words(language: StopWords | None) -> frozenset[str]:
    """The words that `bm25s` leaves out in a language."""
    from bm25s import stopwords

    if language is None:
        return frozenset()
    return frozenset(getattr(stopwords, "STOPWORDS_EN" if language == "english" else f"STOPWORDS_{language.upper()}"))


def index(documents: Sequence[list[str]], k1: float, b: float) -> Query:
    """From the words of a query to `(n_documents,)` scores, float64.

    Args:
        documents: Words of each.
        k1: How soon a word that is repeated counts no more.
        b: How much a long document is marked down.
    """
    from bm25s import BM25

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing it makes it say everything

    if not any(documents):  # the library has no index of nothing
        return lambda _: np.zeros(len(documents))
    searched = BM25(method="lucene", k1=k1, b=b, dtype="float64", backend="numpy")
    searched.index(documents, show_progress=False)
    return lambda words: searched.get_scores(words) if words else np.zeros(len(documents))


def fit(inputs: ScoringInputs) -> Query:
    """The index of the pool."""
    options: Bm25Options = inputs.options
    return index(_words(texts_of_pool(inputs, options.text), options), options.k1, options.b)


def _words(texts: Iterable[str], options: Bm25Options) -> list[list[str]]:
    """`(n_texts,)` words of each text."""
    left_out = stop_words(options.stop_words)
    return [[word for word in words_of(text) if word not in left_out] for text in texts]


def _queries(inputs: ScoringInputs) -> dict[str, list[list[str]]]:
    """By capability the words of its examples.

    They are sorted, since a table's version does not depend on the order of its rows, and turns do on that of examples.
    """
    options: Bm25Options = inputs.options
    frames = {name: frame.sort("sample_id") for name, frame in inputs.of_capabilities(EXAMPLES).items()}
    return {name: _words(texts_of(frame, options.text), options) for name, frame in frames.items()}


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` scores, and those by example."""
    options: Bm25Options = inputs.options
    n_candidates, queries = len(inputs.sample_ids), _queries(inputs)
    sizes = {name: len(found) for name, found in queries.items()}
    by_example, columns = ExampleScores(n_candidates, sizes, inputs.scratch), {}
    for name, of_capability in queries.items():
        total = np.zeros(n_candidates)
        for number, query in enumerate(of_capability):
            found = inputs.fitted(query)
            total = np.maximum(total, found) if options.over == "max" else total + found / len(of_capability)
            by_example.put_example(name, number, found)
        columns[name] = total
    values = [np.mean(found, axis=0) for found in inputs.for_each_target(columns).values()]
    return Scores(np.stack(values, axis=1), by_example=by_example.by_target(inputs.targets))


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """What each shared word adds to the score, and the examples with the highest scores."""
    options: Bm25Options = inputs.options
    (own,) = _words(texts_of(inputs.only(sample_id).of(CANDIDATES), options.text), options)
    place = inputs.sample_ids.index(sample_id)
    known = {word: float(inputs.fitted([word])[place]) for word in set(own)}
    frames, near, shares = inputs.of_capabilities(EXAMPLES), list[Near](), defaultdict[str, float](float)
    for name in inputs.targets[target]:
        frame = frames[name].sort("sample_id")
        texts = texts_of(frame, options.text)
        queries = [Counter(word for word in words if word in known) for words in _words(texts, options)]
        found = [sum(known[word] * count for word, count in query.items()) for query in queries]
        near += map(Near, frame["sample_id"].to_list(), [name] * len(frame), found)
        counted = [queries[int(np.argmax(found))]] if options.over == "max" else queries
        for query in counted:
            for word, count in query.items():
                shares[word] += known[word] * count / len(counted) / len(inputs.targets[target])
    near.sort(key=lambda one: (-one.value, one.sample_id))
    parts = Parts("word", dict(shares))
    heading = "what it shares with the examples, every word of theirs counted as often as it stands there"
    return Explanation(heading, (), [parts], near=near[:n], nearness="BM25 score", usual=mean_of(near))


METHOD = Method(
    name="bm25",
    description="A control without a model: words shared with the in-domain examples, weighted by BM25.",
    reads=(CANDIDATES, EXAMPLES),
    score=score,
    options=Bm25Options,
    by_target=True,
    fit=fit,
    explain=explain,
)
