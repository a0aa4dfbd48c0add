"""Checks of the scores: one for each candidate, in order, that tell candidates apart by more than their length."""

from collections.abc import Mapping

import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.extraction import activation_table
from nait_assets.partitions import Partitions
from nait_assets.recipe import ACTIVATIONS, POOL, Recipe
from nait_assets.resources import Warehouse
from nait_assets.scoring.catalogue import scores_output
from nait_assets.scoring.correlation import rank_correlation
from nait_assets.scoring.methods import method_of
from nait_assets.tables import CANDIDATE_POOL, N_CHARACTERS, scores_table

MOST_CORRELATION = 0.8
CHECKS = [
    Check(
        "ids_are_the_candidates",
        "Every candidate has one score or a reason instead, and nothing else has.",
    ),
    Check("ranks_follow_the_scores", "Scores are finite; rank 1 is the highest, ties go to the smaller sample_id."),
    Check("scores_differ", "Not all candidates have the same score."),
    Check(
        "length_is_not_the_score",
        f"The rank correlation of score and length is at most {MOST_CORRELATION} in absolute value.",
        blocking=False,
    ),
]


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """Checks of every method's scores."""
    return [_checks_of_method(method, recipe) for method in recipe.methods]


def _checks_of_method(method: str, recipe: Recipe) -> AssetChecks:
    reads_activations = ACTIVATIONS in recipe.reads_of(method)

    def execute(warehouse: Warehouse, target: str) -> Mapping[str, CheckResult]:
        return check_scores(warehouse, method, target, reads_activations)

    pointless = {"length_is_not_the_score"} if method_of(recipe, method).length_is_the_point else set()
    checks = [check for check in CHECKS if check.name not in pointless]
    return AssetChecks(scores_output(method).key, checks, execute)


def check_scores(warehouse: Warehouse, method: str, target: str, reads_activations: bool) -> dict[str, CheckResult]:
    """Check a method's scores for a target.

    Args:
        warehouse: Where they are.
        method: The method's name.
        target: A capability, or `all`.
        reads_activations: Whether length is the number of tokens that the model read, rather than of characters.
    """
    with warehouse.tables.snapshot() as snapshot:
        columns = scores_table(method).only("sample_id", "score", "rank", "reason")
        scores = snapshot.read(columns, target=target)
        texts = CANDIDATE_POOL.only("sample_id", "messages")
        lengths = snapshot.reduced(texts, {"sample_id": pl.col("sample_id"), "length": N_CHARACTERS})
    wanted, unit = lengths.select("sample_id"), "characters"
    if reads_activations:
        with activation_table.activations_of(warehouse, POOL).snapshot() as activations:
            lengths = activation_table.samples(activations).select("sample_id", length="n_tokens")
        unit = "tokens"
    n_lost = len(wanted.join(scores, on="sample_id", how="anti"))
    n_strange = len(scores.select("sample_id").unique().join(wanted, on="sample_id", how="anti"))
    n_twice = len(scores) - scores["sample_id"].n_unique()
    with_score = scores.filter(pl.col("reason").is_null())
    finite = with_score["score"].is_finite().all() and with_score["score"].null_count() == 0
    ordered = with_score.select("score", "sample_id", "rank").sort("score", "sample_id", descending=[True, False])
    in_order = finite and ordered["rank"].equals(pl.int_range(1, len(ordered) + 1, eager=True))
    n_distinct = with_score["score"].n_unique()
    correlation = rank_correlation(with_score.join(lengths, on="sample_id"))
    return {
        "ids_are_the_candidates": CheckResult(
            n_lost == n_strange == n_twice == 0,
            f"{n_lost} candidates have no score, {n_strange} scores belong to no candidate, {n_twice} occur twice; "
            f"{len(scores) - len(with_score)} have a reason instead",
            {"n_candidates": len(wanted), "n_without_score": len(scores) - len(with_score)},
        ),
        "ranks_follow_the_scores": CheckResult(
            in_order, "in order" if in_order else "out of order" if finite else "a score is NaN or infinite"
        ),
        "scores_differ": CheckResult(
            n_distinct > 1 or len(with_score) == 1,
            f"{n_distinct} different scores of {len(with_score)}",
            {"n_distinct": n_distinct, "standard_deviation": float(with_score["score"].std() or 0)},  # type: ignore[arg-type]
        ),
        "length_is_not_the_score": CheckResult(
            abs(correlation) <= MOST_CORRELATION,
            f"rank correlation with the number of {unit}: {correlation:+.3f}",
            {"length_correlation": correlation},
        ),
    }
