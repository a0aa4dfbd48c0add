"""Sentence embeddings: how near a candidate's text is to the target's examples by a sentence encoder.

With v the embeddings of `measurements/embeddings.py`, of unit norm: `to: best`, s(y) = max over the examples e of
v(y) . v(e); `to: centroid`, s(y) = v(y) . c, c the examples' mean embedding, scaled to unit norm. For the comprehensive
target the largest of the capabilities' scores, or the mean of their centroids. MoNA's baseline DLRDS-BGE is a cosine to
the target with the encoder bge-base-en-v1.5, and does not say which; RDS+ takes the best.

On 600 rows of `alpaca.yaml`, 40 planted for each of five capabilities, by MiniLM-L6: mean area under the ROC curve
0.950 and precision 0.76 with `best`, 0.914 and 0.72 with `centroid`; hence the default.

Known defects: it finds texts on the same topic, whatever they ask for; most encoders are trained on English.
Cost: one pass of a small encoder over each candidate and example; then `n_candidates x n_examples` cosines in memory.
"""

import numpy as np
import polars as pl

from nait_assets.recipe import SentenceEmbeddingOptions
from nait_assets.scoring.method import Method, Scores, ScoringInputs, by_turns

EMBEDDINGS = "measurements/candidate_embeddings"


def unit(vector: np.ndarray) -> np.ndarray:
    """`(dimensions,)` the vector over its norm; zeros stay."""
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 0 else vector


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` cosines, and the cosines with every example of each target."""
    options: SentenceEmbeddingOptions = inputs.options
    candidates = matrix(inputs.candidates[EMBEDDINGS])
    examples = {name: matrix(frame) for features in inputs.features.values() for name, frame in features.items()}
    # A product for each capability: its rounding depends on no other.
    cosines = {name: np.clip(candidates @ rows.T, -1, 1) for name, rows in examples.items()}
    centroids = {name: unit(rows.mean(axis=0)) for name, rows in examples.items()}
    values, by_example = [], {}
    for target, features in inputs.features.items():
        by_example[target] = by_turns([cosines[name] for name in features])
        centroid = unit(np.mean([centroids[name] for name in features], axis=0))
        values.append(by_example[target].max(axis=1) if options.to == "best" else np.clip(candidates @ centroid, -1, 1))
    return Scores(np.stack(values, axis=1), by_example=by_example)


def matrix(frame: pl.DataFrame) -> np.ndarray:
    """`(n_rows, dimensions)` of the column `vector`, float64, of unit norm."""
    rows = np.asarray(frame["vector"].to_list(), dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


METHOD = Method(
    "sentence_embedding",
    "The cosine between a candidate and the target's examples in the space of a sentence encoder.",
    score,
)
