"""Sentence embeddings: how close a candidate's text is to the target's examples by a sentence encoder.

Formula:
`to: best`: s(y) = max over the examples e of v(y) . v(e); `to: centroid`: s(y) = v(y) . c

v are the embeddings of `measurements/embeddings.py`, of unit norm, and c the examples' mean embedding, scaled to unit
norm. For the target `all` the largest of the capabilities' scores, or the mean of their centroids.

Departures:
MoNA's baseline DLRDS-BGE is a cosine to the target with the encoder bge-base-en-v1.5, and does not say which; RDS+
takes the best. On 600 rows of `alpaca.yaml`, 40 planted for each of five capabilities, by MiniLM-L6: mean area under
the ROC curve 0.950 and precision 0.76 with `best`, 0.914 and 0.72 with `centroid`; hence the default.

Limits:
It finds texts on the same topic, whatever they ask for; most encoders are trained on English.

Cost:
One pass of a small encoder over each candidate and example; then `n_candidates x n_examples` cosines, a block of
candidates after the other.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from nait_assets.recipe import Section
from nait_assets.scoring.examples import scored_by_example
from nait_assets.scoring.method import Explanation, Method, Scores, ScoringInputs
from nait_assets.scoring.reasons import OF_EXAMPLES, nearest_examples
from nait_assets.scoring.rows import vectors
from nait_assets.scoring.stand_ins import by_rows

EMBEDDINGS, EXAMPLES = "measurements/candidate_embeddings", "measurements/in_domain_embeddings"


class SentenceEmbeddingOptions(Section):
    """Of `sentence_embedding`; which encoder embeds is in `measurements.embeddings`."""

    to: Literal["best", "centroid"] = Field("best", description="The nearest example, or the mean of the examples.")


def unit(vector: np.ndarray) -> np.ndarray:
    """`(dimensions,)` the vector over its norm; zeros stay."""
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` cosines, and the cosines with every example of each target."""
    options: SentenceEmbeddingOptions = inputs.options
    examples = {name: matrix(frame) for name, frame in inputs.of_capabilities(EXAMPLES).items()}
    centres = inputs.for_each_target({name: unit(rows.mean(axis=0)) for name, rows in examples.items()})
    centroids = [unit(np.mean(of_target, axis=0)) for of_target in centres.values()]

    def compare(rows: pl.DataFrame) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        candidates = matrix(rows)
        # A product for each capability: its rounding depends on no other.
        cosines = {name: np.clip(candidates @ units.T, -1, 1) for name, units in examples.items()}
        if options.to == "centroid":
            return np.stack([np.clip(candidates @ centroid, -1, 1) for centroid in centroids], axis=1), cosines
        largest = {name: found.max(axis=1) for name, found in cosines.items()}
        return np.stack([np.max(of, axis=0) for of in inputs.for_each_target(largest).values()], axis=1), cosines

    sizes = {name: len(rows) for name, rows in examples.items()}
    return scored_by_example(inputs, EMBEDDINGS, ["vector"], sizes, compare)


def matrix(frame: pl.DataFrame) -> np.ndarray:
    """`(n_rows, dimensions)` of the column `vector`, float64, of unit norm."""
    rows = vectors(frame["vector"]).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The examples whose embeddings are nearest."""
    options: SentenceEmbeddingOptions = inputs.options
    centroid = "the score is the cosine to the mean of the examples, of which these are nearest"
    heading = OF_EXAMPLES if options.to == "best" else centroid
    return nearest_examples(score, EXAMPLES, "cosine of embeddings", heading)(inputs, sample_id, target, n)


METHOD = Method(
    name="sentence_embedding",
    description="The cosine between a candidate and the target's examples in the space of a sentence encoder.",
    reads=(EMBEDDINGS, EXAMPLES),
    stand_ins=by_rows(EMBEDDINGS, EXAMPLES, nearest=True),
    score=score,
    options=SentenceEmbeddingOptions,
    by_target=True,
    explain=explain,
)
