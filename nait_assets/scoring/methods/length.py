"""Length: the longest answers first, or the shortest; a strong control (arXiv 2402.04833, arXiv 2503.01807, table 1).

s(y) = characters of the assistant's messages, with a minus for the shortest. In the second paper the longest rows beat
perplexity and IFD. Papers count the tokens of some model; characters need none, and order nearly alike within a
language, not across scripts.

It reads nothing of a target: all targets have the same scores. Cost: none.
"""

import numpy as np

from nait_assets.recipe import CANDIDATES
from nait_assets.scoring.method import Method, ScoringInputs
from nait_assets.scoring.texts import texts_of


def characters(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates,)` characters of the candidates' texts."""
    return np.asarray([len(text) for text in texts_of(inputs.candidates[CANDIDATES], inputs.options.text)], float)


def _score_long(inputs: ScoringInputs) -> np.ndarray:
    return np.stack([characters(inputs)] * len(inputs.features), axis=1)


def _score_short(inputs: ScoringInputs) -> np.ndarray:
    return -_score_long(inputs)


LONG = Method("length_long", "A control: the candidates with the longest answers.", _score_long)
SHORT = Method("length_short", "A control: the candidates with the shortest answers.", _score_short)
