"""Gate overlap: MoNA's polysemantic control, the same similarity over the model's own gates.

Formula:
As `mona`, where z is the mean of TopK(SiLU(x W_gate)) over a sample's tokens (`measurements/gates.py`) in the place of
an autoencoder's codes; layer and K are MoNA's.

Departures:
None that are known.

Limits:
As `mona`. What `mona` gains over it, it owes to the autoencoder: in the paper's ablation of representations on the LESS
pool, hidden states reach 65.19, gates 65.95, codes 67.20.

Cost:
One forward pass to the layer for each sample.
"""

from nait_assets.scoring.method import Explanation, Method, Scores, ScoringInputs
from nait_assets.scoring.methods.mona import explained_overlap, overlaps
from nait_assets.scoring.stand_ins import by_rows

GATES, EXAMPLES = "measurements/candidate_gates", "measurements/in_domain_gates"


def score(inputs: ScoringInputs) -> Scores:
    """`(n_candidates, n_targets)` similarities in [0, 1]."""
    return overlaps(inputs, GATES, inputs.of_capabilities(EXAMPLES))


def explain(inputs: ScoringInputs, sample_id: str, target: str, n: int) -> Explanation:
    """The shared gates that add most to the score, and the examples with the most similar gates."""
    return explained_overlap(inputs, (GATES, EXAMPLES), sample_id, target, n, "gate")


METHOD = Method(
    name="gate_overlap",
    description="MoNA's control: how far a candidate opens the same gates of one layer as the capability's examples, "
    "as a generalised Jaccard similarity.",
    reads=(GATES, EXAMPLES),
    stand_ins=by_rows(GATES, EXAMPLES, nearest=False),
    score=score,
    by_target=True,
    explain=explain,
)
