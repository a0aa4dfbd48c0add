"""Neuron diversity: on how many specialised neurons a candidate is active, whatever the target.

Formula:
s(y) = sum over neurons n of w_n [z'_n(y) > t] / sum of w_n,  w_n = sigma_n / (sigma_n + |mu_n|)

w_n is how specialised a neuron is: near 0 for one that is as busy on every row of the pool, near 1 for one that is
silent on most; mu and sigma are its mean and standard deviation over the pool. z' is the candidate's activation in
standard deviations of the pool, over the root mean square of the candidate's own in that layer: a candidate far from
the pool on all neurons has none more than another. t is `threshold`, 1.25.

Departures:
No paper gives the rule; the closest are coverage by neurons or by latents of a sparse autoencoder (MADS, arXiv
2605.30857; arXiv 2502.14050, where the count of active latents correlates with length at 0.92).

Limits:
Two numbers a neuron do not tell a rare strong neuron from one that swings about zero (rank correlation of w with the
kurtosis over the pool: 0.25, on SmolLM2-135M). Without the candidate's own scale the score is a matter of length (rank
correlation 0.68 with the number of tokens at t = 2, on 2,200 rows of `alpaca.yaml`); with it, the correlation rises
with t, from -0.17 at 0.75 over +0.03 at 1.25 to +0.45 at 2: hence the default. Weighted and unweighted counts rank
nearly alike (0.94): it is a score of breadth first. It prefers plain tasks in natural language, and knows nothing of
quality or of redundancy among the chosen.

Cost:
As `nait`, one pass over the stored activations.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import ACTIVATIONS, STATISTICS, ActivationOptions
from nait_assets.scoring.method import Block, Explanation, Method, Parts, Reason, ScoringInputs
from nait_assets.scoring.ranking import largest


class NeuronDiversityOptions(ActivationOptions):
    """Options of `neuron_diversity`."""

    threshold: float = Field(
        1.25, gt=0, description="Activation from which a neuron counts, in root mean squares of the sample's layer."
    )


def specialisation(statistics: NeuronStatistics) -> np.ndarray:
    """`(width,)` in [0, 1], float64: spread over spread plus size of the mean; 0 for a neuron that never varies."""
    spread = np.where(statistics.inverse_deviation > 0, statistics.standard_deviation, 0).astype(np.float64)
    total = spread + np.abs(statistics.mean.astype(np.float64))
    return np.divide(spread, total, out=np.zeros_like(spread), where=spread > 0)


def active(activations: np.ndarray, statistics: NeuronStatistics, threshold: float) -> np.ndarray:
    """`(n, width)` whether a neuron stands out on a sample, by the sample's own scale in the layer.

    Args:
        activations: Activations of one layer, `(n, width)`.
        statistics: Statistics of the layer.
        threshold: Threshold in root mean squares of the sample's standardised activations.
    """
    standardized = statistics.standardize(activations)
    own = np.sqrt(np.mean(standardized**2, axis=1, keepdims=True, dtype=np.float64))
    return standardized > threshold * own


def shares(
    blocks: Iterable[Block], statistics: Mapping[int, NeuronStatistics], threshold: float, n_samples: int
) -> np.ndarray:
    """`(n_samples,)` shares of the neurons' specialisation that samples are active on, in [0, 1], float64.

    Args:
        blocks: The pool's activations.
        statistics: By layer.
        threshold: As for `active`.
        n_samples: Number of samples of the pool.
    """
    weights = {layer: specialisation(neurons) for layer, neurons in statistics.items()}
    found = np.zeros(n_samples)
    for layer, indices, activations in blocks:
        found[indices] += active(activations, statistics[layer], threshold) @ weights[layer]
    total = sum(layer.sum() for layer in weights.values())
    return found / total if total else found


def score(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates, n_targets)` shares, the same for every target."""
    options: NeuronDiversityOptions = inputs.options
    found = shares(inputs.blocks, inputs.statistics, options.threshold, len(inputs.sample_ids))
    return inputs.same_for_all_targets(found)


def explain(inputs: ScoringInputs, sample_id: str, _target: str, n: int) -> Explanation:
    """What each layer adds to the score, and the most specialised of the neurons that the candidate activates."""
    activations, threshold = inputs.activations_of(sample_id), inputs.options.threshold
    layers = sorted(activations)
    of_layers = [specialisation(inputs.statistics[layer]) for layer in layers]
    actives = [active(activations[layer][None], inputs.statistics[layer], threshold)[0] for layer in layers]
    weights, total = np.stack(of_layers) * np.stack(actives), float(sum(layer.sum() for layer in of_layers))
    n_active = int((weights > 0).sum())
    reasons = [
        Reason(
            f"{layers[row]}:{neuron}",
            f"specialisation {weights[row, neuron]:.4f}",
            weights[row, neuron] / total if total else 0.0,
            (layers[row], int(neuron)),
        )
        for row, neuron in largest(weights, min(n, n_active))
    ]
    heading = f"the most specialised of the {n_active:,} neurons that it activates (layer:neuron)"
    named = zip(layers, weights.sum(axis=1).tolist(), strict=True)
    parts = Parts("layer", {f"layer {layer}": share / total if total else 0.0 for layer, share in named})
    return Explanation(heading, reasons, [parts])


METHOD = Method(
    name="neuron_diversity",
    description="How many specialised neurons a candidate activates, on its own scale; the same for every target.",
    reads=(ACTIVATIONS, STATISTICS),
    score=score,
    options=NeuronDiversityOptions,
    needs_neurons=True,
    explain=explain,
)
