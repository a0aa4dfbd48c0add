"""Whether a method's scores foretell what training does: the linear datamodelling score of probes.

Each probe is a small subset of the pool that no method chose, on which the base was trained. A method that knows what
helps a target gives the rows of those probes a higher score that lower the loss on the target's tasks most. The
measure is Spearman's correlation over the probes (Ilyas et al. 2022, arXiv 2202.00622; for instruction tuning AirRep,
arXiv 2505.18513). No method chose the probes, and all methods, targets and tasks share them: a new method costs no
training. Long answers teach more at once, and short ones come nearer to what most tasks ask for, so lengths stand
beside the methods, are taken out of them (`partial`), and the best of them, more or less of it, is what a method has to
beat (`above_length`). Means over targets and differences have intervals by the same resamples of the probes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.evaluation.bootstrap import SEED, ends_of, resamples
from nait_assets.evaluation.tables import FORESIGHT
from nait_assets.recipe import COMPREHENSIVE_TARGET, SIZE_MARK

SAME = 0.995
"""Correlation from which on two orders of probes are taken for one."""
ANSWER_TOKENS, ANSWER_RANK = "answer_tokens", "answer_rank"
TAKEN_OUT = (ANSWER_TOKENS, ANSWER_RANK)
"""Lengths that `partial` takes out: how much is learnt, and how long most answers are."""


@dataclass(frozen=True)
class Predictor:
    """What might foretell the fall of a loss.

    Attributes:
        name: Method, or quantity of the probes' rows.
        kind: `method` or `control`.
        values: By target, `(n_probes,)`: higher where a larger fall is foretold.
        scores: By target, the mean scores of the rows, where `values` are their ranks; empty of a control.
        share_scored: By target, the share of the probes' rows that have a score; empty of a control.
    """

    name: str
    kind: str
    values: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    share_scored: Mapping[str, float]

    @property
    def is_taken_out(self) -> bool:
        """Whether it is a length that `partial` takes out of the others."""
        return self.kind == "control" and self.name in TAKEN_OUT


def predictor_of_method(name: str, scores: Mapping[str, pl.DataFrame], probes: pl.DataFrame) -> Predictor:
    """The mean ranks and scores of the probes' rows by a method; a row without a score is ranked last.

    Args:
        name: Name of the method.
        scores: By target: columns `sample_id`, `score`, `rank`.
        probes: Columns `probe`, `sample_id`.
    """
    values, means, shares = {}, {}, {}
    for target, frame in scores.items():
        rows = probes.join(frame.select("sample_id", "score", "rank"), on="sample_id", how="left")
        mean_rank = pl.col("rank").fill_null(len(frame) + 1).mean()
        of_probe = rows.sort("probe", "sample_id").group_by("probe", maintain_order=True)
        found = of_probe.agg(rank=mean_rank, score=pl.col("score").mean())
        values[target] = -found["rank"].to_numpy().astype(np.float64)
        means[target] = found["score"].to_numpy().astype(np.float64)
        shares[target] = 1 - rows["score"].null_count() / len(rows)
    return Predictor(name, "method", values, means, shares)


def predictors_of_length(probes: pl.DataFrame, characters: pl.DataFrame, models: pl.DataFrame) -> dict[str, np.ndarray]:
    """Lengths of the probes' rows by name, each `(n_probes,)`: means, and the mean rank of their answers in the pool.

    Args:
        probes: Columns `probe`, `sample_id`.
        characters: Columns `sample_id`, `characters`, `answer_characters` of the pool.
        models: Rows of `training.tables.TRAINED_MODELS` of the probes.
    """
    ranked = characters.with_columns(rank=pl.col("answer_characters").rank())
    of_probe = probes.join(ranked, on="sample_id").group_by("probe").agg(pl.col("characters", "rank").mean())
    of_model = models.sort("number").select(pl.col("n_tokens", "n_answer_tokens") / pl.col("n_rows"))
    of_probe = of_probe.sort("probe")
    return {
        "characters": of_probe["characters"].to_numpy(),
        "tokens": of_model["n_tokens"].to_numpy(),
        ANSWER_TOKENS: of_model["n_answer_tokens"].to_numpy(),
        ANSWER_RANK: of_probe["rank"].to_numpy(),
    }


def controls(targets: Sequence[str], lengths: Mapping[str, np.ndarray]) -> list[Predictor]:
    """The lengths of the probes' rows as predictors, the same for every target."""
    return [Predictor(name, "control", dict.fromkeys(targets, values), {}, {}) for name, values in lengths.items()]


@dataclass(frozen=True)
class Found:
    """What was found of a predictor; correlations are `(1 + n_resamples,)`: of all probes, and of each resample.

    Attributes:
        correlation: Correlations with the fall of a loss.
        partial: Correlations given the length of the answers; None of that length itself.
        by_score: Correlation by the mean score instead of the mean rank; None where there is no score.
        share_scored: Share of the probes' rows that have a score; None where there is none.
    """

    correlation: np.ndarray
    partial: np.ndarray | None
    by_score: float | None = None
    share_scored: float | None = None


def foresight(
    predictors: Sequence[Predictor], falls: Mapping[str, np.ndarray], tasks_of: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """Rows of `tables.FORESIGHT`; last the means over the capabilities.

    Args:
        predictors: Methods and controls, of which those of `TAKEN_OUT` are there.
        falls: By task, `(n_probes,)`: the loss of the base less that of the model trained on a probe.
        tasks_of: By target, the tasks that belong to it.
    """
    n_probes = _n_probes(predictors)
    rows: list[tuple[object, ...]] = []
    of_target: dict[str, list[Found]] = {}
    for target, task, found in found_by_target(predictors, falls, tasks_of):
        rows += _rows((target, task), predictors, found, n_probes)
        if target != COMPREHENSIVE_TARGET and SIZE_MARK not in target:
            of_target[target] = found  # the last of a target is that of its tasks together
    if len(of_target) > 1:
        means = [mean_found(of_predictor) for of_predictor in zip(*of_target.values(), strict=True)]
        rows += _rows(("", ""), predictors, means, n_probes)
    return pl.DataFrame(rows, schema=FORESIGHT.columns, orient="row")


def found_by_target(
    predictors: Sequence[Predictor],
    falls: Mapping[str, np.ndarray],
    tasks_of: Mapping[str, Sequence[str]],
    seed: int = SEED,
) -> Iterator[tuple[str, str, list[Found]]]:
    """Target, task and what was found of each predictor; last of a target with several tasks, of them together.

    All share the resamples of the probes, so that differences of what is found are paired.

    Args:
        predictors: As for `foresight`.
        falls: As for `foresight`.
        tasks_of: As for `foresight`.
        seed: Seed of the resamples.
    """
    n_probes = _n_probes(predictors)
    drawn = resamples(n_probes, seed)
    for target, task, fall in _wanted(falls, tasks_of):
        yield target, task, _found(predictors, target, fall, drawn)


def _n_probes(predictors: Sequence[Predictor]) -> int:
    return len(next(iter(predictors[0].values.values())))


def _found(predictors: Sequence[Predictor], target: str, fall: np.ndarray, drawn: np.ndarray) -> list[Found]:
    none = drawn[:0]
    fell, ranks = _ranks(fall, drawn), [_ranks(one.values[target], drawn) for one in predictors]
    lengths: list[np.ndarray] = []
    for predictor, own in zip(predictors, ranks, strict=True):
        if predictor.is_taken_out and all(abs(_correlations(own, other)[0]) < SAME for other in lengths):
            lengths.append(own)
    found = []
    for predictor, own in zip(predictors, ranks, strict=True):
        partial = None if predictor.is_taken_out else _partial(own, fell, lengths)
        scores, by_score = predictor.scores.get(target), None
        if scores is not None:
            by_score, _, _ = interval(_correlations(_ranks(scores, none), _ranks(fall, none)))
        found.append(Found(_correlations(own, fell), partial, by_score, predictor.share_scored.get(target)))
    return found


def mean_found(found: Sequence[Found]) -> Found:
    """The mean over targets, by the same resamples of the probes."""
    partials = [one.partial for one in found if one.partial is not None]
    return Found(np.mean([one.correlation for one in found], axis=0), np.mean(partials, axis=0) if partials else None)


def _rows(
    place: tuple[str, str], predictors: Sequence[Predictor], found: Sequence[Found], n_probes: int
) -> list[tuple[object, ...]]:
    """A row a predictor."""
    length = best_length(predictors, found)
    rows: list[tuple[object, ...]] = []
    for predictor, own in zip(predictors, found, strict=True):
        above = None if length is None or predictor.kind == "control" else own.correlation - length
        figures = [
            end
            for values in (own.correlation, own.partial, above)
            for end in ((None,) * 3 if values is None else interval(values))
        ]
        rows.append((*place, predictor.name, predictor.kind, *figures, own.by_score, n_probes, own.share_scored))
    return rows


def best_length(predictors: Sequence[Predictor], found: Sequence[Found]) -> np.ndarray | None:
    """The correlations of the length, more of it or less, that foretells most: what a method has to beat."""
    lengths = [one.correlation for predictor, one in zip(predictors, found, strict=True) if predictor.kind == "control"]
    both = [sign * one for one in lengths for sign in (1, -1) if np.isfinite(one[0])]
    return max(both, key=lambda one: float(one[0]), default=None)


def _wanted(
    falls: Mapping[str, np.ndarray], tasks_of: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Target, task and fall of each; of several tasks together, the mean of the falls in standard deviations."""
    for target, tasks in tasks_of.items():
        known = [task for task in tasks if task in falls]
        for task in known:
            yield target, task, falls[task]
        if len(known) > 1:
            yield target, "", mean_fall([falls[task] for task in known])


def mean_fall(falls: Sequence[np.ndarray]) -> np.ndarray:
    """`(n_probes,)`: the mean over tasks of their falls, each in its standard deviations, so that all weigh alike."""
    found: np.ndarray = np.mean([fall / (fall.std() or 1.0) for fall in falls], axis=0)
    return found


def _ranks(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """`(1 + n_resamples, n_probes)`: ranks of all probes, and of each resample, of mean 0, norm 1; NaN if all tie."""
    from scipy.stats import rankdata

    indices = np.concatenate([np.arange(len(values))[None], drawn])
    ranks = rankdata(values[indices], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
    return found


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(1 + n_resamples,)`: Spearman's correlations of two `_ranks`; NaN where one does not vary."""
    return np.einsum("rp,rp->r", x, y)


def _partial(x: np.ndarray, y: np.ndarray, given: Sequence[np.ndarray]) -> np.ndarray:
    """As `_correlations`, with what both share with other ranks taken out of them, one after another.

    NaN where one of the two is as good as one of those: what is left is noise.
    """
    if not given:
        return _correlations(x, y)
    *others, z = given
    xy, xz, yz = (_partial(one, other, others) for one, other in ((x, y), (x, z), (y, z)))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    return np.where(np.isfinite(found) & (np.maximum(xz**2, yz**2) < SAME**2), found, np.nan)


def interval(found: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """The correlation, and the ends of its interval of 95 %; None where they are not defined."""
    value, resampled = found[0], found[1:][np.isfinite(found[1:])]
    if not np.isfinite(value):
        return None, None, None
    if not len(resampled):
        return float(value), None, None
    return float(value), *ends_of(resampled)
