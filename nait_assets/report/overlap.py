"""How much selections share: the share of equal rows, and how often each row is chosen.

Belongs here: arithmetic on sets of sample ids. Does not belong here: where they come from, how they are drawn.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from nait_assets.selection.comparison import overlap


def overlap_matrix(selections: Mapping[str, Collection[str]]) -> pl.DataFrame:
    """Overlap of every pair of selections: columns `one`, `other`, `overlap`, in the order of the mapping."""
    sets = {name: set(rows) for name, rows in selections.items()}
    rows = [(one, other, overlap(sets[one], sets[other])) for one in sets for other in sets]
    return pl.DataFrame(rows, schema={"one": pl.String, "other": pl.String, "overlap": pl.Float64}, orient="row")


def occurrences(selections: Mapping[str, Collection[str]]) -> pl.DataFrame:
    """In how many selections each chosen row occurs (arXiv 2603.13201, figure 7).

    Args:
        selections: Distinct sample ids by name.

    Returns:
        Columns `n_selections`, from 1 to the number of selections, `n_rows`, and `share` of all chosen rows.
    """
    counts = Counter(Counter(sample_id for rows in selections.values() for sample_id in set(rows)).values())
    n_chosen = counts.total()
    rows = [(n, counts[n], counts[n] / n_chosen if n_chosen else 0.0) for n in range(1, len(selections) + 1)]
    return pl.DataFrame(rows, schema={"n_selections": pl.Int64, "n_rows": pl.Int64, "share": pl.Float64}, orient="row")


def shared_core(selections: Mapping[str, Collection[str]], comprehensive: Collection[str]) -> pl.DataFrame:
    """How much of each capability's selection lies in the comprehensive one: columns `capability`, `overlap`."""
    rows = [(name, overlap(rows, comprehensive)) for name, rows in selections.items()]
    return pl.DataFrame(rows, schema={"capability": pl.String, "overlap": pl.Float64}, orient="row")


def best_targets(selections: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The selection in which each chosen row ranks highest, the first of equals.

    Positions are compared and not scores: the scores of different targets have no common scale.

    Args:
        selections: Sample ids by name, best first.
    """
    best: dict[str, tuple[int, str]] = {}
    for selection, rows in selections.items():
        for position, sample_id in enumerate(rows):
            if sample_id not in best or position < best[sample_id][0]:
                best[sample_id] = position, selection
    return {sample_id: selection for sample_id, (_, selection) in best.items()}
