"""MoNA: which of a model's monosemantic neurons a candidate and the capability share (arXiv 2503.15573).

Formula:
J(z_i, z_t) = sum_k min(z_ik, z_tk) / sum_k max(z_ik, z_tk)                                       (eq. 9)

The sums are over the latents k of a sparse autoencoder, z_i is the candidate's mean code (eq. 6 and 7,
`measurements/codes`) and z_t the mean of the capability's examples' (eq. 8). The best are taken, by J alone (algorithm
1). Scores by example are J with each example's own code.

Departures:
`all` takes the mean of the capabilities' prototypes, so that each has the same say however many examples it has; the
paper has no such target. A code without active latents has J = 0.

Limits:
A prototype is denser than any candidate, so J is small, and larger for candidates with many active latents, that is for
longer ones: the paper's choices are longer than random on four tasks of five (Table 7). Nothing is done about it;
`selection` reports lengths.

Cost:
One forward pass to the layer for each sample, and an autoencoder, trained or found; scoring is seconds.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from nait_assets.scoring.examples import scored_by_example
from nait_assets.scoring.method import Explanation, Method, Parts, Scores, ScoringInputs
from nait_assets.scoring.near import mean_of
from nait_assets.scoring.reasons import near_by_example
from nait_assets.scoring.stand_ins import by_rows

CODES, EXAMPLES = "measurements/candidate_codes", "measurements/in_domain_codes"
BLOCK_NUMBERS = 2**22
"""Numbers of candidates that are looked at together."""


def prototype(rows: pl.DataFrame, n_columns: int) -> np.ndarray:
    """`(n_columns,)` float64 mean of sparse rows (eq. 8)."""
    return sum((dense(rows, place, n_columns) for place in range(len(rows))), np.zeros(n_columns)) / len(rows)


def dense(rows: pl.DataFrame, place: int, n_columns: int) -> np.ndarray:
    """`(n_columns,)` float64 of one sparse row."""
    vector = np.zeros(n_columns)
    vector[rows["indices"][place].to_numpy()] = rows["values"][place].to_numpy()
    return vector


def jaccard(rows: pl.DataFrame, vectors: np.ndarray) -> np.ndarray:
    """`(n_rows, n_vectors)` generalised Jaccard similarities of sparse rows with dense vectors (eq. 9).

    max(a, b) is a + b - min(a, b), and min(a, b) is 0 where a row has no number, as none is negative: so only a row's
    own numbers are looked at.

    Args:
        rows: Columns `indices`, `values`; no value is negative.
        vectors: `(n_vectors, n_columns)` float64, none negative.
    """
    found = np.zeros((len(rows), len(vectors)))
    totals = [vector[vector > 0].sum() for vector in vectors]  # zeros at the end would change how numpy rounds
    for begin, owners, indices, values in _blocks(rows):
        n_rows = int(owners[-1]) + 1 if len(owners) else 0
        own = np.bincount(owners, weights=values, minlength=n_rows)
        for number, vector in enumerate(vectors):
            shared = np.bincount(owners, weights=np.minimum(values, vector[indices]), minlength=n_rows)
            union = own + totals[number] - shared
            found[begin : begin + n_rows, number] = np.divide(shared, union, out=np.zeros(n_rows), where=union > 0)
    return found


def _blocks(rows: pl.DataFrame) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """A block's first row, and of each of its numbers: its row within the block, its index, and itself as float64."""
    counts = rows["indices"].list.len().to_numpy().astype(np.int64)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(rows):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + BLOCK_NUMBERS, side="right")))
        block = rows.slice(begin, end - begin)
        flat = [block[name].explode(empty_as_null=False).to_numpy() for name in ("indices", "values")]
        yield begin, np.repeat(np.arange(end - begin), counts[begin:end]), flat[0], flat[1].astype(np.float64)
        begin = end


def overlaps(inputs: ScoringInputs, key: str, frames: Mapping[str, pl.DataFrame]) -> Scores:
    """Jaccard similarities of candidates with every target's prototype, and with each of its examples.

    Args:
        inputs: Those of the method.
        key: Key of the output about candidates, with columns `indices`, `values`.
        frames: The same of the examples, by capability.
    """
    n_columns = 1 + max(map(_largest_index, frames.values()))
    prototypes = {name: prototype(frame, n_columns) for name, frame in frames.items()}
    targets = np.stack([np.mean(found, axis=0) for found in inputs.for_each_target(prototypes).values()])

    def compare(rows: pl.DataFrame) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        n_more = max(0, 1 + _largest_index(rows) - n_columns)  # latents that no example has
        to_examples = {
            name: np.concatenate(
                [jaccard(rows, dense(frame, place, n_columns + n_more)[None]) for place in range(len(frame))], axis=1
            )
            for name, frame in frames.items()
        }
        return jaccard(rows, np.pad(targets, ((0, 0), (0, n_more)))), to_examples

    sizes = {name: len(frame) for name, frame in frames.items()}
    return scored_by_example(inputs, key, ["indices", "values"], sizes, compare)


def explained_overlap(
    inputs: ScoringInputs, keys: tuple[str, str], sample_id: str, target: str, n: int, what: str
) -> Explanation:
    """What each number that a candidate and the prototype share adds to the similarity, and the nearest examples.

    Args:
        inputs: The method's.
        keys: Keys of the outputs with the candidates' and with the examples' sparse rows.
        sample_id: The candidate.
        target: A capability, or `all`.
        n: Most reasons.
        what: What an index stands for, in the singular.
    """
    own, frames = inputs.only(sample_id), inputs.of_capabilities(keys[1])
    candidate = own.of(keys[0])
    n_columns = 1 + max(_largest_index(frame) for frame in (candidate, *frames.values()))
    centre = np.mean([prototype(frames[name], n_columns) for name in inputs.targets[target]], axis=0)
    vector = dense(candidate, 0, n_columns)
    shared, union = np.minimum(vector, centre), float(np.maximum(vector, centre).sum())
    indices = np.flatnonzero(shared)
    parts = Parts(what, {f"{what} {index}": float(shared[index]) / union for index in indices.tolist()})
    near = near_by_example(overlaps(own, keys[0], frames), inputs, keys[1], target)
    heading = f"{what}s that it shares with the mean of the examples"
    return Explanation(heading, (), [parts], near=near[:n], nearness="similarity", usual=mean_of(near))


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The shared latents that add most to the score, and the examples with the most similar codes."""
    return explained_overlap(inputs, (CODES, EXAMPLES), sample_id, target, n, "latent")


def _largest_index(rows: pl.DataFrame) -> int:
    return max((index for index in rows["indices"].list.max().to_list() if index is not None), default=-1)


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` similarities in [0, 1]."""
    return overlaps(inputs, CODES, inputs.of_capabilities(EXAMPLES))


METHOD = Method(
    name="mona",
    description="MoNA: how many of an autoencoder's latents a candidate shares with the capability's examples, as a "
    "generalised Jaccard similarity.",
    reads=(CODES, EXAMPLES),
    stand_ins=by_rows(CODES, EXAMPLES, nearest=False),
    score=score,
    by_target=True,
    explain=explain,
)
