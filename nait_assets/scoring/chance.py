"""Two scores with a meaning, to hold a subset's against: what chance reaches, and what the examples reach themselves.

The 95th percentile of a pool's scores is reached by 5 % of the pool whatever the target is. So candidates are also
scored against as many random rows of the pool in the place of each capability's examples, several times: what 5 % of
them reach there (`by_chance`) is what a candidate reaches without anything in common with the capability. And each
example is scored as if it were a candidate, against all others: what 95 % of them reach (`of_examples`) is what rows
like the examples have to be expected to reach. Both are on the method's own scale, for one target.

Limits: random rows of the pool are rows of its own kinds, and where the capability fills much of the pool some are its
own. For methods that look at the nearest examples alone there is no `by_chance`: by the cosines of `rds_plus`, 5 % of
700 Alpaca rows come within 0.95 of one of 48 others, and none of them of one of 48 examples of GSM8K. Examples that are
alike make `of_examples` high. With few examples it is near the lowest of them.

Cost: one filtered pass over the stored activations for `N_SAMPLED` rows, which are held with all neurons (190 MB for
SmolLM2-135M), and as many scores for each draw; and for each target a score of each of at most `N_EXAMPLES` examples of
a capability.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from nait_assets.recipe import seeded_order
from nait_assets.scoring.catalogue import THRESHOLDS
from nait_assets.scoring.method import Method, Rows, ScoringInputs, StandIns
from nait_assets.scoring.stand_ins import pool_rows

N_DRAWS = 4
N_SAMPLED = 1024
"""Rows of the pool, by hash, among which draws are made and which are scored against them."""
N_EXAMPLES = 32
"""Examples of a capability that are scored, by hash."""
AT_ONCE = 8
"""Examples that are scored in one go: for each, what the method reads of all others is held."""
BY_CHANCE, OF_EXAMPLES = 0.05, 0.95
"""Shares that reach each: of candidates against random rows, and of the examples against the others."""
LEAST_JUDGED = round(1 / BY_CHANCE)
"""Of fewer scores against random rows than this, that share is not one."""
PERCENT_BY_CHANCE, PERCENT_OF_EXAMPLES = (f"{100 * share:g} %" for share in (BY_CHANCE, OF_EXAMPLES))
"""The same, as they are said."""


@dataclass(frozen=True)
class Thresholds:
    """What a target's scores are held against; None where it is not defined.

    Attributes:
        by_chance: Score that 5 % of candidates reach against random rows of the pool in the examples' place.
        n_judged: Number of these scores.
        of_examples: Score that 95 % of the examples reach, each against the others.
        n_examples: Number of examples that were scored so.
    """

    by_chance: float | None = None
    n_judged: int = 0
    of_examples: float | None = None
    n_examples: int = 0

    def frame(self) -> pl.DataFrame:
        """As a row of `THRESHOLDS`."""
        return pl.DataFrame([vars(self)], THRESHOLDS.written_columns)


def thresholds(method: Method, inputs: ScoringInputs) -> dict[str, Thresholds]:
    """The thresholds of every target of a method's inputs; none for a method in which no rows stand in for examples."""
    ins = method.stand_ins
    if ins is None:
        return {}
    inputs = method.prepared(inputs)
    by_chance = {} if ins.nearest else _by_chance(method, ins, inputs)
    return {
        target: Thresholds(
            *_quantile(by_chance.get(target, np.empty(0)), 1 - BY_CHANCE, LEAST_JUDGED),
            *_quantile(_of_examples(method, ins, inputs, target), 1 - OF_EXAMPLES),
        )
        for target in inputs.targets
    }


def _quantile(scores: np.ndarray, share: float, least: int = 1) -> tuple[float | None, int]:
    return float(np.quantile(scores, share)) if len(scores) >= least else None, len(scores)


def _by_chance(method: Method, ins: StandIns, inputs: ScoringInputs) -> dict[str, np.ndarray]:
    """By target, scores of rows of the pool against draws of other rows in the place of its examples."""
    rows = pool_rows(inputs, seeded_order(inputs.sample_ids, "chance")[:N_SAMPLED])
    parts: dict[str, list[np.ndarray]] = {target: [] for target in inputs.targets}
    candidates = rows.as_candidates(inputs)
    for drawn in _draws(ins, inputs, rows):
        frames = {name: ins.capability(rows.take(places), inputs) for name, places in drawn.items()}
        values = method.scores(_with(candidates, ins, frames)).values
        for column, (target, names) in enumerate(inputs.targets.items()):
            others = np.ones(len(values), dtype=bool)
            for name in names:
                others[drawn[name]] = False
            parts[target].append(values[others, column])
    return {target: np.concatenate([np.empty(0), *found]) for target, found in parts.items()}


def _draws(ins: StandIns, inputs: ScoringInputs, rows: Rows) -> Iterator[dict[str, list[int]]]:
    """By capability, places among the rows: as many as it has examples, at most half of what there is."""
    names = sorted({name for of_target in inputs.targets.values() for name in of_target})
    frames = inputs.of_capabilities(ins.key)
    sizes = {name: min(_n_examples(frames[name]), len(rows.sample_ids) // 2) for name in names}
    for number in range(N_DRAWS if min(sizes.values()) else 0):
        yield {name: seeded_order(rows.sample_ids, f"chance:{number}:{name}")[: sizes[name]] for name in names}


def _n_examples(frame: pl.DataFrame) -> int:
    return int(frame["n_samples"][0]) if "n_samples" in frame.columns else frame["sample_id"].n_unique()


def _with(inputs: ScoringInputs, ins: StandIns, frames: Mapping[str, pl.DataFrame]) -> ScoringInputs:
    """The inputs with other rows about capabilities."""
    return replace(inputs, by_capability={**inputs.by_capability, ins.key: frames})


def _of_examples(method: Method, ins: StandIns, inputs: ScoringInputs, target: str) -> np.ndarray:
    """Scores of a target's examples, each against the target without it; none where a capability has fewer than two."""
    names = inputs.targets[target]
    examples = [ins.examples(inputs, name) for name in names]
    if any(rows is None or len(rows.sample_ids) < 2 for rows in examples):
        return np.empty(0)
    found = (
        _without_own(method, ins, inputs, names, name, rows) for name, rows in zip(names, examples, strict=True) if rows
    )
    return np.concatenate(list(found))


def _without_own(
    method: Method, ins: StandIns, inputs: ScoringInputs, names: Sequence[str], capability: str, rows: Rows
) -> np.ndarray:
    """`(n_examples,)` scores of a capability's examples, each against those of its target but itself."""
    chosen = seeded_order(rows.sample_ids, "examples")[:N_EXAMPLES]
    whole, found = inputs.of_capabilities(ins.key), []
    for start in range(0, len(chosen), AT_ONCE):
        places, targets = chosen[start : start + AT_ONCE], {}
        frames = {name: whole[name] for name in names if name != capability}
        for place in places:
            others = [other for other in range(len(rows.sample_ids)) if other != place]
            own = f"{capability} without {rows.sample_ids[place]}"
            frames[own] = ins.capability(rows.take(others), inputs)
            targets[own] = [own if name == capability else name for name in names]
        candidates = replace(rows.take(places).as_candidates(inputs), targets=targets)
        found.append(np.diagonal(method.scores(_with(candidates, ins, frames)).values))
    return np.concatenate(found)
