"""Checks of the subsets: the right rows, in whole files, and leaking nothing."""

import itertools
from collections.abc import Mapping

import polars as pl

from nait_assets import lineage
from nait_assets.checks import AssetChecks, Check, CheckResult
from nait_assets.lineage import reference
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.chance import PERCENT_BY_CHANCE
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.methods import method_of
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import NOT_CONTAINED
from nait_assets.selection.chosen import Chosen, choose
from nait_assets.selection.held_against import MOST_BY_CHANCE
from nait_assets.selection.strategies.similarity import Vectors
from nait_assets.tables import CONTAMINATED_CANDIDATES, SUBSETS

CONTAINED = Check(
    "smaller_ratios_are_contained",
    "Subsets of smaller ratios, made in the same way from the same inputs, are contained in larger ones.",
)
"""Not a check about strategies of which it need not hold."""
ABOVE_CHANCE = Check(
    "scores_are_above_chance",
    f"No more than {MOST_BY_CHANCE:.0%} of the rows score less than {PERCENT_BY_CHANCE} of candidates reach against "
    "random rows of the pool in the place of the target's examples.",
    blocking=False,
)
"""Only a check of methods for which that score is defined."""
HAS_ROWS = Check("has_rows", "A row was chosen: a budget, a lowest score and filters have left some.", blocking=False)
N_LISTED = 20
CHECKS = [
    Check(
        "rows_are_those_chosen",
        "The rows that the recipe's strategy takes from the N eligible candidates: ceil(ratio x N), or all that "
        "have a score if those are fewer; none twice.",
    ),
    HAS_ROWS,
    Check("files_match_the_manifest", "Every file has the hash that the manifest states, and holds the table's rows."),
]


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """Checks of every method's subsets."""
    drops = recipe.decontamination.action == "drop"
    what = f"equals, or shares {recipe.decontamination.ngram} words in a row with, an in-domain or held-out example"
    decontaminated = Check("leaks_no_example", f"No row {what}.", blocking=drops)
    latest: Latest[Vectors] = Latest()
    checks = [*CHECKS, *([decontaminated] if recipe.has_examples else [])]
    return [_checks_of_method(method, recipe, checks, latest) for method in recipe.methods]


def _checks_of_method(method: str, recipe: Recipe, checks: list[Check], latest: Latest[Vectors]) -> AssetChecks:
    def execute(warehouse: Warehouse, partition: str) -> Mapping[str, CheckResult]:
        return check_subset(warehouse, recipe, method, *cell_of(partition), latest)

    names = {strategy.name for strategy in recipe.strategies_of(method)}
    contained = [] if names & NOT_CONTAINED else [CONTAINED]
    ins = method_of(recipe, method).stand_ins
    above_chance = [ABOVE_CHANCE] if ins is not None and not ins.nearest else []
    return AssetChecks(subset_output(method).key, [*checks, *contained, *above_chance], execute)


def check_subset(
    warehouse: Warehouse, recipe: Recipe, method: str, target: str, ratio: str, latest: Latest[Vectors]
) -> dict[str, CheckResult]:
    """Check a subset; `latest` holds the vectors that an earlier one was chosen by."""
    output = subset_output(method)
    with warehouse.tables.snapshot() as snapshot:
        rows = snapshot.rows(SUBSETS, method=method, target=target, ratio=ratio).sort("rank")
        nothing = CONTAMINATED_CANDIDATES.columns.to_frame()
        flagged = snapshot.read(CONTAMINATED_CANDIDATES) if recipe.has_examples else nothing
        ratios = _made_alike(snapshot, recipe, method, target, ratio)
        record = snapshot.note(output.key, f"{target}|{ratio}")
    faults = output.faults(warehouse, record)
    chosen = choose(recipe, warehouse, method, target, ratio, latest)
    wanted = chosen.choice.rows
    return {
        "rows_are_those_chosen": CheckResult(
            rows.select(wanted.columns).equals(wanted),
            f"{len(rows)} rows, of which {len(rows.join(wanted, on='sample_id', how='semi'))} are among the "
            f"{len(wanted)} that `{chosen.strategy.name}` chooses from {chosen.n_candidates} candidates",
            {"n_rows": len(rows)},
        ),
        HAS_ROWS.name: CheckResult(len(rows) > 0, _why_empty(chosen) if rows.is_empty() else f"{len(rows):,} rows"),
        "smaller_ratios_are_contained": _nested(ratios),
        "files_match_the_manifest": CheckResult(
            not faults, "; ".join(faults) or "every file has the hash that the manifest states"
        ),
        "leaks_no_example": _contamination(rows, flagged),
        ABOVE_CHANCE.name: CheckResult(
            chosen.standing.share_by_chance <= MOST_BY_CHANCE,
            chosen.standing.sentence or ("no rows" if rows.is_empty() else "what chance reaches is not defined for it"),
            chosen.standing.stated,
        ),
    }


def _why_empty(chosen: Chosen) -> str:
    """What has left no row."""
    choice = chosen.choice
    if choice.is_cut:
        return f"no rows of {choice.n_wanted:,}: the first one has more tokens than `selection.tokens`"
    if not choice.n_wanted:
        return f"no rows: none of {chosen.n_candidates:,} candidates may be chosen"
    low = f", as {choice.n_too_low:,} are below `min_score` {chosen.strategy.min_score:g}" if choice.n_too_low else ""
    return f"no rows of {choice.n_wanted:,}: no candidate that may be chosen has a score{low}"


def _made_alike(snapshot: Snapshot, recipe: Recipe, method: str, target: str, ratio: str) -> dict[str, set[str]]:
    """Ids of a target's subsets by ratio, of those that were made as this one was, and from the same inputs."""
    records = snapshot.records()
    own = records[reference(subset_output(method).key, f"{target}|{ratio}")]
    found = {}
    for other in recipe.ratios:
        record = records.get(reference(subset_output(method).key, f"{target}|{other}"))
        if record is not None and (record.code_version, record.inputs) == (own.code_version, own.inputs):
            rows = snapshot.rows(SUBSETS, method=method, target=target, ratio=other)
            found[other] = set(rows["sample_id"].to_list())
    return found


def _nested(ratios: Mapping[str, set[str]]) -> CheckResult:
    ordered = sorted(ratios)
    broken = [
        f"{small} in {large}" for small, large in itertools.pairwise(ordered) if not ratios[small] <= ratios[large]
    ]
    return CheckResult(not broken, f"compared {', '.join(ordered)}; not contained: {', '.join(broken) or 'none'}")


def _contamination(rows: pl.DataFrame, flagged: pl.DataFrame) -> CheckResult:
    found = rows.select("rank", "sample_id").join(flagged, on="sample_id").sort("rank")
    n_rows = found["sample_id"].n_unique()
    listed = found.head(N_LISTED).with_columns(pl.col("shared_text").str.slice(0, 160))
    corpora = ", ".join(sorted(found["corpus"].unique().to_list()))
    return CheckResult(
        n_rows == 0,
        f"{n_rows} of {len(rows)} rows leak an example{f' of {corpora}' if corpora else ''}",
        {"n_contaminated": n_rows, "offending_rows": lineage.table_metadata(listed)},
    )
