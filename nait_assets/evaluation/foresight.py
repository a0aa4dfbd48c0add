"""Whether a method's scores foretell what training does: the linear datamodelling score of probes.

Each probe is a small subset of the pool that no method chose, on which the base was trained. A method that knows what
helps a target gives the rows of those probes a higher score that lower the loss on the target's tasks most. The
measure is Spearman's correlation over the probes (Ilyas et al. 2022, arXiv 2202.00622; for instruction tuning AirRep,
arXiv 2505.18513). No method chose the probes, and all methods, targets and tasks share them: a new method costs no
training. Long answers teach more at once, so length stands beside the methods, is taken out of them (`partial`), and
each method's correlation is compared with its own (`above_length`). Means over targets and differences have intervals
by the same resamples of the probes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nait_assets.evaluation.tables import FORESIGHT
from nait_assets.recipe import COMPREHENSIVE_TARGET

N_RESAMPLES, SEED = 2000, 0
ANSWER_TOKENS = "answer_tokens"


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
    def is_length(self) -> bool:
        """Whether it is the length of the answers, which stands beside all others."""
        return self.kind == "control" and self.name == ANSWER_TOKENS


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


def predictors_of_length(probes: pl.DataFrame, lengths: pl.DataFrame, models: pl.DataFrame) -> list[np.ndarray]:
    """Mean characters, tokens and answer tokens of a probe's rows, each `(n_probes,)`.

    Args:
        probes: Columns `probe`, `sample_id`.
        lengths: Columns `sample_id`, `length` in characters.
        models: Rows of `training.tables.TRAINED_MODELS` of the probes.
    """
    rows = probes.join(lengths, on="sample_id").group_by("probe").agg(pl.col("length").mean()).sort("probe")
    of_model = models.sort("number").select(pl.col("n_tokens", "n_answer_tokens") / pl.col("n_rows"))
    return [rows["length"].to_numpy(), of_model["n_tokens"].to_numpy(), of_model["n_answer_tokens"].to_numpy()]


def controls(targets: Sequence[str], lengths: Sequence[np.ndarray]) -> list[Predictor]:
    """The lengths of the probes' rows as predictors, the same for every target."""
    names = ("characters", "tokens", ANSWER_TOKENS)
    return [
        Predictor(name, "control", dict.fromkeys(targets, values), {}, {})
        for name, values in zip(names, lengths, strict=True)
    ]


def foresight(
    predictors: Sequence[Predictor],
    falls: Mapping[str, np.ndarray],
    tasks_of: Mapping[str, Sequence[str]],
    answer_tokens: np.ndarray,
) -> pl.DataFrame:
    """Rows of `tables.FORESIGHT`; last the means over the targets, without the comprehensive one.

    Args:
        predictors: Methods and controls.
        falls: By task, `(n_probes,)`: the loss of the base less that of the model trained on a probe.
        tasks_of: By target, the tasks that belong to it.
        answer_tokens: `(n_probes,)`: mean number of answer tokens of a probe's rows.
    """
    resamples = np.random.default_rng(SEED).integers(0, len(answer_tokens), (N_RESAMPLES, len(answer_tokens)))
    rows: list[tuple[object, ...]] = []
    of_target: dict[tuple[str, str], dict[str, Found]] = {}
    for target, task, fall in _wanted(falls, tasks_of):
        length = _correlations(answer_tokens, fall, resamples)
        for predictor in predictors:
            given = predictor.values[target]
            found = Found(
                _correlations(given, fall, resamples),
                None if predictor.is_length else _partial(given, fall, answer_tokens, resamples),
                None if predictor.is_length else length,
            )
            by_score = predictor.scores.get(target)
            score = None if by_score is None else _interval(_correlations(by_score, fall, resamples[:0]))[0]
            names = (target, task, predictor.name, predictor.kind)
            rows.append((*names, *found.figures(), score, len(fall), predictor.share_scored.get(target)))
            if target != COMPREHENSIVE_TARGET:  # the last of a target is that of its tasks together
                of_target.setdefault((predictor.name, predictor.kind), {})[target] = found
    for of_predictor, by_target in of_target.items():
        if len(by_target) > 1:
            rows.append(
                ("", "", *of_predictor, *_mean(list(by_target.values())).figures(), None, len(answer_tokens), None)
            )
    return pl.DataFrame(rows, schema=FORESIGHT.columns, orient="row")


@dataclass(frozen=True)
class Found:
    """Correlations of a predictor, each `(1 + n_resamples,)`: of all probes, and of each resample of them.

    Attributes:
        correlation: Correlations with the fall of a loss.
        partial: Correlations given the answers' length; None of that length itself.
        length: Correlations of that length with the fall; None of that length itself.
    """

    correlation: np.ndarray
    partial: np.ndarray | None
    length: np.ndarray | None

    def figures(self) -> tuple[float | None, ...]:
        """Correlation, partial correlation, and how far it is above the length's, each with its interval."""
        above = None if self.length is None else self.correlation - self.length
        return tuple(
            end
            for found in (self.correlation, self.partial, above)
            for end in ((None,) * 3 if found is None else _interval(found))
        )


def _mean(found: Sequence[Found]) -> Found:
    """The mean over targets, by the same resamples of the probes."""

    def of(name: str) -> np.ndarray | None:
        values = [getattr(one, name) for one in found]
        return None if values[0] is None else np.mean(values, axis=0)

    correlation = of("correlation")
    assert correlation is not None
    return Found(correlation, of("partial"), of("length"))


def _wanted(
    falls: Mapping[str, np.ndarray], tasks_of: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Target, task and fall of each; of several tasks together, the mean of the falls in standard deviations."""
    for target, tasks in tasks_of.items():
        known = [task for task in tasks if task in falls]
        for task in known:
            yield target, task, falls[task]
        if len(known) > 1:
            deviations = [falls[task] / (falls[task].std() or 1.0) for task in known]
            yield target, "", np.mean(deviations, axis=0)


def _correlations(x: np.ndarray, y: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """`(1 + n_resamples,)`: Spearman's correlation of all probes, and of each resample; NaN where one does not vary."""
    from scipy.stats import rankdata

    indices = np.concatenate([np.arange(len(x))[None], resamples])
    ranks = []
    for values in (x, y):
        of_values = rankdata(values[indices], axis=1)
        ranks.append(of_values - of_values.mean(axis=1, keepdims=True))
    product, squares = (ranks[0] * ranks[1]).sum(axis=1), [(one**2).sum(axis=1) for one in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = product / np.sqrt(squares[0] * squares[1])
    return found


def _partial(x: np.ndarray, y: np.ndarray, given: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """As `_correlations`, with what both share with a third quantity taken out of them."""
    xy, xz, yz = (_correlations(one, other, resamples) for one, other in ((x, y), (x, given), (y, given)))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    return np.where(np.isfinite(found), found, np.nan)


def _interval(found: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """The correlation, and the ends of its interval of 95 %; None where they are not defined."""
    value, resampled = found[0], found[1:][np.isfinite(found[1:])]
    if not np.isfinite(value):
        return None, None, None
    if not len(resampled):
        return float(value), None, None
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(value), float(low), float(high)
