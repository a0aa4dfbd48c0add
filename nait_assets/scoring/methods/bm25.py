"""BM25: in-domain examples as queries over the pool (package `bm25s`, variant "lucene").

b(q, y) = sum over the words w of q, as often as they stand there, of
log(1 + (N - n_w + 0.5) / (n_w + 0.5)) * f_w(y) / (f_w(y) + k1 (1 - b + b |y| / mean |y|)):
N candidates, of which n_w have w; f_w(y) how often w stands in y, |y| the words of y. s(y) is the mean of b(q, y) over
a capability's examples, then over the target's capabilities, which so have an equal say whatever their numbers.

MoNA's baseline (`bm25s`) does not say which text, which words or how queries are put together. We read the whole
conversation on both sides; a word is a run of letters and digits without case, in scripts without spaces a single
character (`corpora/contamination.py`), and none is a stop word, so that all languages are treated alike. `over: max`
takes the best query in place of the mean.

Known defects: long queries have larger scores and weigh more in the mean; words that all texts share count, if little;
n_w is of the pool, so that a score changes with it.

Cost: no model; 2 ms a query for 52,000 candidates. The scores by example, from which the round robin comes, take 8
bytes for each candidate and example; a target for which they exceed 1 GiB has none, and no turns.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from nait_assets.corpora.contamination import words_of
from nait_assets.recipe import CANDIDATES, Bm25Options, StopWords
from nait_assets.scoring.method import Method, Scores, ScoringInputs, by_turns
from nait_assets.scoring.texts import texts_of

log = logging.getLogger(__name__)
MOST_BY_EXAMPLE = 2**27
"""Scores by example that are kept of a target, one for each candidate and example."""

Query = Callable[[list[str]], np.ndarray]


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


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` scores, and by example where they fit into memory."""
    options: Bm25Options = inputs.options
    left_out, n_candidates = stop_words(options.stop_words), len(inputs.sample_ids)

    def words(frame: pl.DataFrame) -> list[list[str]]:
        return [[w for w in words_of(text) if w not in left_out] for text in texts_of(frame, options.text)]

    search = index(words(inputs.candidates[CANDIDATES]), options.k1, options.b)
    frames = {name: frame for found in inputs.features.values() for name, frame in found.items()}
    kept = {target: _fits(target, found, n_candidates) for target, found in inputs.features.items()}
    columns, by_example = {}, {}
    for name, frame in frames.items():
        keep = any(kept[target] for target, found in inputs.features.items() if name in found)
        # sorted, since a table's version does not depend on the order of its rows, and turns do on that of examples
        columns[name], by_example[name] = _of_capability(
            search, words(frame.sort("sample_id")), n_candidates, options.over, keep
        )
    values = [np.mean([columns[name] for name in found], axis=0) for found in inputs.features.values()]
    return Scores(
        np.stack(values, axis=1),
        by_example={
            target: by_turns([by_example[name] for name in found])
            for target, found in inputs.features.items()
            if kept[target]
        },
    )


def _fits(target: str, capabilities: Mapping[str, pl.DataFrame], n_candidates: int) -> bool:
    n_examples = sum(map(len, capabilities.values()))
    if n_examples * n_candidates <= MOST_BY_EXAMPLE:
        return True
    log.warning(
        "bm25, target %s: no turns, since %d examples by %d candidates exceed 1 GiB", target, n_examples, n_candidates
    )
    return False


def _of_capability(
    search: Query, queries: list[list[str]], n_candidates: int, over: str, keep: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`(n_candidates,)` mean or maximum over queries, and `(n_candidates, n_queries)` for each, or none of them."""
    by_example = np.empty((n_candidates, len(queries) if keep else 0))
    total = np.zeros(n_candidates)
    for place, query in enumerate(queries):
        found = search(query)
        total = np.maximum(total, found) if over == "max" else total + found / len(queries)
        if keep:
            by_example[:, place] = found
    return total, by_example


METHOD = Method(
    "bm25",
    "A control without a model: words shared with the in-domain examples, weighted by BM25.",
    score,
)
