"""Length: the longest answers first, or the shortest; a strong control (arXiv 2402.04833, arXiv 2503.01807, table 1).

Formula:
s(y) = characters of the assistant's messages, with a minus for the shortest

It reads nothing of a target: all targets have the same scores. In the second paper the longest rows beat perplexity and
IFD.

Departures:
Papers count the tokens of some model; characters need none, and order nearly alike within a language, not across
scripts.

Limits:
It knows nothing of what the text says.

Cost:
None.
"""

import numpy as np
from pydantic import Field

from nait_assets.recipe import CANDIDATES, Section
from nait_assets.scoring.method import Explanation, Method, Reason, ScoringInputs
from nait_assets.scoring.reasons import against_pool
from nait_assets.scoring.rows import values_of
from nait_assets.scoring.texts import TextPart, texts_of


class LengthLongOptions(Section):
    """Options of `length_long`."""

    text: TextPart = Field("answer", description="The part whose characters are counted.")


class LengthShortOptions(Section):
    """Options of `length_short`."""

    text: TextPart = Field("answer", description="The part whose characters are counted.")


def characters(inputs: ScoringInputs) -> np.ndarray:
    """`(n_candidates,)` characters of the candidates' texts."""
    return values_of(
        len(inputs.sample_ids),
        inputs.rows(CANDIDATES, "messages"),
        lambda rows: [len(text) for text in texts_of(rows, inputs.options.text)],
    )


def _score_long(inputs: ScoringInputs) -> np.ndarray:
    return inputs.same_for_all_targets(characters(inputs))


def _score_short(inputs: ScoringInputs) -> np.ndarray:
    return -_score_long(inputs)


def explain(inputs: ScoringInputs, sample_id: str, _target: str, _n: int) -> Explanation:
    """The number of characters, and what share of the pool has no more."""
    lengths = characters(inputs)
    found = against_pool(float(lengths[inputs.sample_ids.index(sample_id)]), lengths)
    return Explanation("nothing but a length counts", [Reason(f"characters of its {inputs.options.text}", found)])


LONG = Method(
    name="length_long",
    description="A control: the candidates with the longest answers.",
    reads=(CANDIDATES,),
    score=_score_long,
    options=LengthLongOptions,
    length_is_the_point=True,
    explain=explain,
)
SHORT = Method(
    name="length_short",
    description="A control: the candidates with the shortest answers.",
    reads=(CANDIDATES,),
    score=_score_short,
    options=LengthShortOptions,
    length_is_the_point=True,
    explain=explain,
)
