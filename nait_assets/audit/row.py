"""Where a row came from, and which subsets it is in, and why."""

import polars as pl

from nait_assets.corpora.eligibility import reason_of
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.explanation import find_candidate
from nait_assets.selection.turns import takes_turns
from nait_assets.shown import one_line
from nait_assets.tables import CANDIDATE_POOL, CONTAMINATED_CANDIDATES, SUBSETS, scores_table


def describe_row(recipe: Recipe, warehouse: Warehouse, sample_id: str) -> str:
    """The text that `nait audit --row` prints.

    Raises:
        NotFoundError: No candidate has this id, or several begin so.
        WarehouseError: Nothing has been materialized.
    """
    with warehouse.tables.snapshot() as snapshot:
        sample = find_candidate(snapshot, sample_id)
        name = sample["sample_id"]
        lines = [
            f"sample {name}, topic {one_line(sample['topic'])}",
            f"  row {sample['source_row']} of {one_line(sample['source'])}",
            *_source_lines(snapshot, sample["source"]),
            *_contamination_lines(snapshot, name),
            *_eligibility_lines(recipe, snapshot, name),
        ]
        for method in recipe.methods:
            for target in recipe.targets:
                lines += _subset_lines(snapshot, recipe, method, target, name)
    return "\n".join([*lines, f"Why, and what its score is made of: nait explain {name} --target TARGET"])


def _source_lines(snapshot: Snapshot, source: str) -> list[str]:
    record = snapshot.records()[CANDIDATE_POOL.asset]
    versions = [version for name, version in record.inputs.items() if name.split(":", 2)[2] == source]
    return [f"  source at revision {', '.join(versions)}, read {record.made_at or 'before times were recorded'}"]


def _contamination_lines(snapshot: Snapshot, sample_id: str) -> list[str]:
    if not snapshot.has_table(CONTAMINATED_CANDIDATES.name):
        return []
    found = snapshot.rows(CONTAMINATED_CANDIDATES, sample_id=sample_id)
    return [
        f"  leaks {row['example_id']} of {row['corpus']} ({row['match']}): {one_line(row['shared_text'], 100)}"
        for row in found.iter_rows(named=True)
    ]


def _eligibility_lines(recipe: Recipe, snapshot: Snapshot, sample_id: str) -> list[str]:
    reason = reason_of(recipe, snapshot, sample_id)
    return [] if reason is None else [f"  may not be chosen: {one_line(reason)}"]


def _subset_lines(snapshot: Snapshot, recipe: Recipe, method: str, target: str, sample_id: str) -> list[str]:
    table = scores_table(method)
    if not snapshot.has_table(table.name):
        return []
    scores = snapshot.rows(table, target=target)
    own = scores.filter(pl.col("sample_id") == sample_id)
    if own.is_empty():
        return [f"  {method}/{target}: no score: it came into the pool after these were made"]
    rank, score, reason = own.select("rank", "score", "reason").row(0)
    if reason is not None:
        return [f"  {method}/{target}: no score: {one_line(reason)}"]
    known = snapshot.has_table(SUBSETS.name)
    subsets = snapshot.rows(SUBSETS, method=method, target=target) if known else SUBSETS.columns.to_frame()
    whose = own["whose_turn"][0] if takes_turns(recipe, method, target) else None
    chosen = []
    for ratio in recipe.ratios:
        rows = subsets.filter(pl.col("ratio") == ratio).sort("rank")
        if sample_id in rows["sample_id"]:
            how = f"the lowest score of its {len(rows)} rows is {float(rows['score'][-1]):+.5f}"
            if whose is not None:
                how = f"in the turns of {whose}, each of which took its best row left"
            chosen.append(f"{ratio} ({how})")
    where = f"in {', '.join(chosen)}" if chosen else "in no subset"
    return [f"  {method}/{target}: rank {rank} of {len(scores)}, score {score:+.5f}; {where}"]
