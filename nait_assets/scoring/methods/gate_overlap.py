"""Gate overlap: MoNA's polysemantic control, the same similarity over the model's own gates.

As `mona`, where z is the mean of TopK(SiLU(x W_gate)) over a sample's tokens (`measurements/gates.py`) in the
place of an autoencoder's codes; layer and K are MoNA's. What `mona` gains over it, it owes to the autoencoder: in the
paper's ablation of representations on the LESS pool, hidden states reach 65.19, gates 65.95, codes 67.20.
Cost: one forward pass to the layer for each sample.
"""

from nait_assets.scoring.method import Method
from nait_assets.scoring.methods import mona

METHOD = Method(
    "gate_overlap",
    "MoNA's control: how far a candidate opens the same gates of one layer as the capability's examples, as a "
    "generalised Jaccard similarity.",
    mona.score,
)
