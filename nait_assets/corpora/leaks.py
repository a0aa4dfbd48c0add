"""Held-out rows that models would be trained on, or that helped to choose what they are trained on.

Belongs here: rows that are the same conversation, which end a recipe that trains. Does not belong here: what is only
alike, which `contamination` reports.
"""

from collections.abc import Iterator, Mapping

import polars as pl

from nait_assets.errors import DataError
from nait_assets.recipe import EVALUATION, TASKS, Recipe

MOST_NAMED = 5
POOL_NAME = "the candidate pool"


def require_apart(recipe: Recipe, pool: pl.DataFrame, examples: Mapping[str, pl.DataFrame]) -> None:
    """Whether no held-out row is a candidate that may be trained on, or an in-domain example.

    Args:
        recipe: Recipe; one that trains nothing is passed over.
        pool: Candidates that may be chosen, column `sample_id`.
        examples: By corpus, in-domain sets, held-out sets and tasks' examples, columns of `tables.EXAMPLE`.

    Raises:
        DataError: Some are, and which.
    """
    found = list(_shared(pool, examples)) if recipe.training is not None else []
    if not found:
        return
    drop = "`decontamination: {action: drop}` keeps such candidates out of all that is trained on"
    told = "; ".join(f"{corpus} and {other} share {_named(rows)}" for corpus, other, rows in found)
    advice = [*([drop] if any(other == POOL_NAME for _, other, _ in found) else []), "`skip` and `limit` take others"]
    raise DataError(
        f"{recipe.path}: held-out rows leak, so that models would be measured by what they have seen or were chosen "
        f"by: {told}. {'; '.join(advice)}."
    )


def _shared(pool: pl.DataFrame, examples: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """A held-out corpus, what shares rows with it, and those rows."""
    held_out = {name: rows for name, rows in examples.items() if name.startswith((EVALUATION, TASKS))}
    others = {f"capability {name}": rows for name, rows in examples.items() if name not in held_out}
    for corpus, rows in sorted(held_out.items()):
        for other, seen in ((POOL_NAME, pool), *sorted(others.items())):
            shared = rows.join(seen.select("sample_id"), on="sample_id", how="semi")
            if len(shared):
                yield corpus, other, shared


def _named(rows: pl.DataFrame) -> str:
    """How many rows, and where the first of them stand."""
    places = rows.sort("source", "source_row").head(MOST_NAMED).select("sample_id", "source", "source_row").rows()
    told = ", ".join(f"{sample_id} ({source}, row {row})" for sample_id, source, row in places)
    more = f" and {len(rows) - len(places)} more" if len(rows) > len(places) else ""
    return f"{len(rows)} row{'s' if len(rows) > 1 else ''}, {told}{more}"
