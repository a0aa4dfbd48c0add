"""Checks of the scores: one for each candidate, in order, that tell candidates apart by more than their length."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.extraction import activation_table
from nait_assets.partitions import Partitions
from nait_assets.recipe import ACTIVATIONS, POOL, Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.catalogue import scores_output
from nait_assets.scoring.correlation import rank_correlation
from nait_assets.scoring.methods import method_of
from nait_assets.tables import CANDIDATE_POOL, N_CHARACTERS, Table, scores_table

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
    table = scores_table(method)
    with warehouse.tables.snapshot() as snapshot:
        snapshot.note(table.asset, target)
        texts = CANDIDATE_POOL.only("sample_id", "messages")
        lengths = snapshot.reduced(texts, {"sample_id": pl.col("sample_id"), "length": N_CHARACTERS})
        unit = "characters"
        if reads_activations:
            with activation_table.activations_of(warehouse, POOL).snapshot() as activations:
                lengths = activation_table.samples(activations).select("sample_id", length="n_tokens")
            unit = "tokens"
        found = _counted(snapshot, table, target)
        correlation = rank_correlation(_with_lengths(snapshot, table, target, lengths))
    n_lost, n_strange, n_twice = found["n_lost"], found["n_strange"], found["n_twice"]
    finite, n_scored, n_distinct = found["n_broken"] == 0, found["n_scored"], found["n_distinct"]
    in_order = finite and found["n_misplaced"] == 0
    return {
        "ids_are_the_candidates": CheckResult(
            n_lost == n_strange == n_twice == 0,
            f"{n_lost} candidates have no score, {n_strange} scores belong to no candidate, {n_twice} occur twice; "
            f"{found['n_rows'] - n_scored} have a reason instead",
            {"n_candidates": found["n_candidates"], "n_without_score": found["n_rows"] - n_scored},
        ),
        "ranks_follow_the_scores": CheckResult(
            in_order, "in order" if in_order else "out of order" if finite else "a score is NaN or infinite"
        ),
        "scores_differ": CheckResult(
            n_distinct > 1 or n_scored == 1,
            f"{n_distinct} different scores of {n_scored}",
            {"n_distinct": n_distinct, "standard_deviation": float(found["standard_deviation"] or 0)},
        ),
        "length_is_not_the_score": CheckResult(
            abs(correlation) <= MOST_CORRELATION,
            f"rank correlation with the number of {unit}: {correlation:+.3f}",
            {"length_correlation": correlation},
        ),
    }


def _counted(snapshot: Snapshot, table: Table, target: str) -> dict[str, Any]:
    """What DuckDB counts of a target's scores, which of a large pool are sorted on disk."""
    query = f"""
        WITH scores AS (SELECT sample_id, score, rank, reason FROM {table.name} WHERE target = $target),
            pool AS (SELECT sample_id FROM {CANDIDATE_POOL.name}),
            scored AS (FROM scores WHERE reason IS NULL),
            placed AS (SELECT rank, row_number() OVER (ORDER BY score DESC, sample_id) AS place FROM scored)
        SELECT (SELECT count(*) FROM pool) AS n_candidates,
            (SELECT count(*) FROM scores) AS n_rows,
            (SELECT count(*) FROM pool ANTI JOIN scores USING (sample_id)) AS n_lost,
            (SELECT count(DISTINCT sample_id) FROM scores ANTI JOIN pool USING (sample_id)) AS n_strange,
            (SELECT count(*) - count(DISTINCT sample_id) FROM scores) AS n_twice,
            (SELECT count(*) FROM scored) AS n_scored,
            (SELECT count(*) FROM scored WHERE score IS NULL OR NOT isfinite(score)) AS n_broken,
            (SELECT count(*) FROM placed WHERE rank IS DISTINCT FROM place) AS n_misplaced,
            (SELECT count(DISTINCT score) FROM scored) AS n_distinct,
            (SELECT stddev_samp(score) FROM scored WHERE isfinite(score)) AS standard_deviation
    """
    return snapshot.connection.sql(query, params={"target": target}).pl().row(0, named=True)


def _with_lengths(snapshot: Snapshot, table: Table, target: str, lengths: pl.DataFrame) -> pl.DataFrame:
    """Scores of a target and lengths of the same candidates, in any order: columns `score` and `length`."""
    snapshot.connection.register("lengths", lengths.to_arrow())
    query = f"""
        SELECT score, length FROM {table.name} JOIN lengths USING (sample_id)
        WHERE target = $target AND reason IS NULL AND score IS NOT NULL
    """
    found = snapshot.connection.sql(query, params={"target": target}).pl()
    snapshot.connection.unregister("lengths")
    return found
