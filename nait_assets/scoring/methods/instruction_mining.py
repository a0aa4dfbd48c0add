"""Instruction Mining: the loss that a linear rule of reward, length and rarity expects (arXiv 2307.06290).

Formula:
s(y) = -log L,  log L = 1.0694 - 0.1498 Rew + 8.257e-5 Len - 0.9350 Knn6

The rule is that of version 1, fitted on the held-out loss of models fine-tuned on many small data sets; a lower loss is
better. Rew is the score of a reward model and Len the number of the answer's tokens, by the reward model's tokenizer
(`measurements/rewards.py`). Knn6 is the distance to the sixth nearest other candidate: here the Euclidean distance of
sentence embeddings of unit norm (`measurements/embeddings.py`), in [0, 2], over all candidates that have both a reward
and an embedding. The same for every target.

Departures:
The paper says neither which distance nor of which text. Its second version drops Len and Knn6 for other indicators
(naturalness, coherence, understandability), and finds the best size of the subset by search; that is not done here.

Limits:
The coefficients were fitted on one model, one tokenizer, one reward model and one sentence encoder, over the means of
data sets, and are used for single examples. The scale of the reward model matters (its zero does not): one whose
rewards are ten times as large decides alone. Length hardly counts: a thousand tokens are 0.08. A row that is far from
all others may be rare or broken. Scores depend on the whole pool: a candidate more can change its neighbours'.

Cost:
One pass of a reward model and one of a sentence encoder over each candidate, then `n_candidates^2 x dimensions`
multiplications, in blocks of bounded memory: 6.4 seconds for 12,000 candidates of 384 dimensions on two busy cores, so
about two minutes for 52,000, and for a million half a day.
"""

import numpy as np

from nait_assets.errors import DataError
from nait_assets.scoring.method import Explanation, Method, Parts, Reason, ScoringInputs
from nait_assets.scoring.methods.sentence_embedding import matrix

NAME = "instruction_mining"
EMBEDDINGS, REWARDS = "measurements/candidate_embeddings", "measurements/candidate_rewards"
INTERCEPT, OF_REWARD, OF_LENGTH, OF_DISTANCE = 1.0694, -0.1498, 8.257e-5, -0.9350
NEIGHBOUR = 6
BLOCK = 2**24
"""Cosines that are in memory at once, 134 MB."""


def neighbour_distances(
    vectors: np.ndarray, neighbour: int = NEIGHBOUR, block: int = BLOCK, rows: np.ndarray | None = None
) -> np.ndarray:
    """`(n_rows,)` Euclidean distances in [0, 2] of rows to their `neighbour`-th nearest other row.

    Args:
        vectors: `(n, dimensions)`, float64, of unit norm; n is more than `neighbour`.
        neighbour: Counted from 1; a row's copy is a neighbour like any other.
        block: Cosines that are in memory at once.
        rows: Places of the rows that are asked about; all, in order, by default.
    """
    n = len(vectors)
    rows = np.arange(n) if rows is None else rows
    found = np.empty(len(rows))
    step = max(1, block // n)
    for begin in range(0, len(rows), step):
        places = rows[begin : begin + step]
        cosines = vectors[places] @ vectors.T
        cosines[np.arange(len(places)), places] = -np.inf  # no row is its own neighbour, however many are like it
        found[begin : begin + step] = np.partition(cosines, n - neighbour, axis=1)[:, n - neighbour]
    return np.sqrt(np.clip(2 - 2 * found, 0, 4))


def expected_log_loss(rewards: np.ndarray, lengths: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """`(n,)` log L, the paper's rule of version 1, of `(n,)` each."""
    return INTERCEPT + OF_REWARD * rewards + OF_LENGTH * lengths + OF_DISTANCE * distances


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` negative expected log losses, the same for every target.

    Raises:
        DataError: A candidate has no sixth neighbour.
    """
    n = len(inputs.sample_ids)
    if n <= NEIGHBOUR:
        raise DataError(
            f"method {NAME!r} measures the distance to the {NEIGHBOUR}th nearest candidate, and {n} have a reward and "
            f"an embedding: it needs at least {NEIGHBOUR + 1}. Give a larger pool, or take {NAME!r} out of `methods`."
        )
    rows = inputs.of(REWARDS, "reward", "n_response_tokens")
    rewards, lengths = (rows[name].to_numpy().astype(np.float64) for name in ("reward", "n_response_tokens"))
    distances = neighbour_distances(_embeddings(inputs))
    return inputs.same_for_all_targets(-expected_log_loss(rewards, lengths, distances))


def _embeddings(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, dimensions)` of unit norm, all in memory: each row is compared with every other."""
    found: np.ndarray | None = None
    for places, rows in inputs.rows(EMBEDDINGS, "vector"):
        units = matrix(rows)
        found = np.empty((len(inputs.sample_ids), units.shape[1])) if found is None else found
        found[places] = units
    assert found is not None
    return found


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int) -> Explanation:
    """The terms of the linear rule, which add up to the score."""
    index, vectors = inputs.sample_ids.index(sample_id), inputs.once("embeddings", lambda: _embeddings(inputs))
    rewards = inputs.of(REWARDS, "reward", "n_response_tokens")
    reward, length = (float(rewards[name][index]) for name in ("reward", "n_response_tokens"))
    distance = float(neighbour_distances(vectors, rows=np.array([index]))[0])
    terms = {
        "constant": (1.0, INTERCEPT, ""),
        "reward": (reward, OF_REWARD, f"{reward:.4g} by the reward model"),
        "length": (length, OF_LENGTH, f"{length:,.0f} tokens of the answer"),
        "rarity": (distance, OF_DISTANCE, f"{distance:.3f} to the {NEIGHBOUR}th nearest other candidate"),
    }
    shares = {name: -value * weight for name, (value, weight, _) in terms.items()}
    reasons = [Reason(name, said, shares[name]) for name, (_, _, said) in terms.items() if said]
    return Explanation("the terms of the rule", reasons, [Parts("term", shares)])


METHOD = Method(
    name=NAME,
    description="Instruction Mining: a linear rule of a reward model's score, the answer's length and the distance to "
    "the pool.",
    reads=(EMBEDDINGS, REWARDS),
    score=score,
    explain=explain,
)
