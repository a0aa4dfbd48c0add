"""The candidates that the recipe's filters find: those outside a bound, and of the others the near duplicates."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.corpora.near_duplicates import near_duplicates
from nait_assets.corpora.quality import Said, first_finding
from nait_assets.losses import Losses
from nait_assets.recipe import Filters
from nait_assets.resources import Warehouse
from nait_assets.resources.spooled_rows import SpooledRows
from nait_assets.tables import CANDIDATE_POOL, Table

NEAR_DUPLICATES = "near_duplicates"
FILTERED_CANDIDATES = Table(
    "corpora.filtered_candidates",
    pl.Schema(
        {
            "sample_id": pl.String(),
            "filter": pl.String(),
            "value": pl.Float64(),
            "duplicate_of": pl.String(),
            "reason": pl.String(),
        }
    ),
    (),
    ("sample_id",),
)
"""`value` is what the filter measured: of a near duplicate, its similarity to `duplicate_of`, which stays."""
LEFT = pl.Schema(
    {
        "place": pl.Int64(),
        "source_row": pl.Int64(),
        "sample_id": pl.String(),
        "question": pl.String(),
        "answer": pl.String(),
    }
)
READ = CANDIDATE_POOL.only("sample_id", "messages", "source", "source_row")


@dataclass(frozen=True, eq=False)
class FilteredOutput(Output):
    """What the filters find, as losses where no subset may take it.

    Attributes:
        drops: Whether no subset may take it.
    """

    drops: bool = True

    def losses(self, warehouse: Warehouse, partition: str) -> Losses | None:  # noqa: ARG002, D102
        if not self.drops:
            return None
        with warehouse.tables.snapshot() as snapshot:
            n_candidates = snapshot.n_rows(CANDIDATE_POOL)
            counted = snapshot.counted(FILTERED_CANDIDATES, "filter")
        kinds = tuple(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))
        return Losses(n_candidates, n_candidates - sum(counted.values()), kinds)


def filtered(
    pool: Iterable[pl.DataFrame], filters: Filters, sources: Sequence[str], folder: Path | None = None
) -> pl.DataFrame:
    """The candidates that the filters find, each by the first filter that finds it: bounds, then near duplicates.

    Of near duplicates the first stays, in the order of the recipe's sources and of the rows of each.

    Args:
        pool: Parts of the pool in any order, columns of `READ`.
        filters: What is looked for.
        sources: Names of the pool's sources, in the recipe's order.
        folder: As for `SpooledRows`.

    Returns:
        Columns of `FILTERED_CANDIDATES`, ordered by `sample_id`.
    """
    places = {name: place for place, name in reversed(list(enumerate(sources)))}
    found: list[tuple[str, str, float, str | None, str]] = []
    left = SpooledRows(LEFT, folder)
    for part in pool:
        kept = []
        for sample_id, messages, source, source_row in part.select(list(READ.columns)).iter_rows():
            said = Said.of(messages)
            finding = first_finding(said, filters.quality) if filters.quality else None
            if finding is not None:
                found.append((sample_id, finding.filter, float(finding.value), None, finding.reason))
            elif filters.near_duplicates:
                kept.append((places.get(source, len(places)), source_row, sample_id, said.question, said.answer))
        left.append(pl.DataFrame(kept, LEFT, orient="row"))
    if filters.near_duplicates:
        texts = _in_order_of_sources(left)
        found += [_near(*near) for near in near_duplicates(texts, filters.near_duplicates, folder)]
    return pl.DataFrame(found, schema=FILTERED_CANDIDATES.columns, orient="row").sort("sample_id")


def _in_order_of_sources(left: SpooledRows) -> Iterator[tuple[str, str, str]]:
    """Id, question and answer of candidates, as they stand in the sources: as a pool is stored; another is sorted."""
    keys = left.frame("place", "source_row", "sample_id")
    is_in_order = keys.equals(keys.sort(keys.columns))
    parts = left.parts() if is_in_order else [left.frame().sort(keys.columns)]
    return (row for part in parts for row in part.select("sample_id", "question", "answer").iter_rows())


def _near(sample_id: str, duplicate_of: str, similarity: float) -> tuple[str, str, float, str, str]:
    reason = f"nearly repeats {duplicate_of}: both texts have at least {similarity:.2f} of their n-grams in common"
    return sample_id, NEAR_DUPLICATES, similarity, duplicate_of, reason
