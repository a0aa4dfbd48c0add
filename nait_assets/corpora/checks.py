"""Checks of the corpora: every row of a source is accounted for, and every id is its content's own."""

from collections.abc import Collection, Mapping, Sequence

from nait_assets.checks import AssetChecks, Check, CheckResult, check_losses, checks_of_losses, such_as
from nait_assets.conversation import conversations_of
from nait_assets.corpora.catalogue import CorpusOutput, conversations, filtered_output, published_output
from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import CANDIDATE_POOL, CORPUS_COUNTS, REJECTED_ROWS

CHECKS = [
    Check("ids_are_their_own", "Every sample_id is the hash of its row's conversation, and occurs once."),
    Check(
        "rows_are_accounted_for",
        "Rows in the sources = examples + rejected + duplicates + left out by `where`, `limit` and `skip`.",
    ),
]
ARE_CANDIDATES = Check("rows_are_candidates", "Every row is a candidate, and occurs once.")
PUBLISHED_CHECKS = [ARE_CANDIDATES, CHECKS[1]]
FILTERED_CHECKS = [
    ARE_CANDIDATES,
    Check("first_ones_stay", "What a near duplicate repeats is a candidate that no filter finds."),
]


def build_checks(recipe: Recipe, _: Partitions) -> list[AssetChecks]:
    """Checks of the pool, the in-domain sets, the held-out sets, the filters and the published lists."""
    lists, of_filters = [published_output(name) for name in recipe.published_lists], filtered_output(recipe)
    return [
        *(_checks_of_examples(recipe, output) for output in conversations(recipe)),
        *(
            [AssetChecks(of_filters.key, FILTERED_CHECKS, lambda warehouse, _: check_filtered(warehouse))]
            if of_filters
            else []
        ),
        *map(_checks_of_list, lists),
    ]


def _checks_of_list(output: CorpusOutput) -> AssetChecks:
    def execute(warehouse: Warehouse, _: str) -> Mapping[str, CheckResult]:
        return check_published(warehouse, output)

    return AssetChecks(output.key, PUBLISHED_CHECKS, execute)


def _checks_of_examples(recipe: Recipe, output: CorpusOutput) -> AssetChecks:
    def execute(warehouse: Warehouse, partition: str) -> Mapping[str, CheckResult]:
        lost = check_losses(recipe, output.losses(warehouse, partition))
        return {**check_corpus(warehouse, output, partition), **lost}

    return AssetChecks(output.key, [*CHECKS, *checks_of_losses(recipe)], execute)


def check_corpus(warehouse: Warehouse, output: CorpusOutput, partition: str) -> dict[str, CheckResult]:
    """Check a corpus of conversations."""
    with warehouse.tables.snapshot() as snapshot:
        assert output.table is not None
        rows = output.table.only("sample_id", "messages", "conversation")
        stored = snapshot.spooled(rows, **output.table.slice_of(partition))
        accounted = _accounted(snapshot, output.corpus(partition), len(stored))
    wrong = [name for part in stored.parts() for name, one in conversations_of(part) if name != one.sample_id]
    ids = stored.frame("sample_id")["sample_id"]
    twice = len(ids) - ids.n_unique()
    examples_of_wrong = f", such as {wrong[0]}" if wrong else ""
    return {
        "ids_are_their_own": CheckResult(
            not wrong and not twice,
            f"{len(wrong)} of {len(ids)} ids are not the hash of their content{examples_of_wrong}; {twice} occur twice",
        ),
        "rows_are_accounted_for": accounted,
    }


def check_published(warehouse: Warehouse, output: CorpusOutput) -> dict[str, CheckResult]:
    """Check a published list."""
    with warehouse.tables.snapshot() as snapshot:
        ids = output.read(warehouse, snapshot, "")[0]["sample_id"].to_list()
        pool = set(snapshot.read(CANDIDATE_POOL.only("sample_id"))["sample_id"].to_list())
        accounted = _accounted(snapshot, output.corpus(""), len(ids))
    return {ARE_CANDIDATES.name: _are_candidates(ids, pool), "rows_are_accounted_for": accounted}


def check_filtered(warehouse: Warehouse) -> dict[str, CheckResult]:
    """Check what the filters found."""
    with warehouse.tables.snapshot() as snapshot:
        rows = snapshot.rows(FILTERED_CANDIDATES)
        pool = set(snapshot.read(CANDIDATE_POOL.only("sample_id"))["sample_id"].to_list())
    ids = rows["sample_id"].to_list()
    repeated = set(rows["duplicate_of"].drop_nulls())
    gone = (repeated - pool) | (repeated & set(ids))
    return {
        ARE_CANDIDATES.name: _are_candidates(ids, pool),
        "first_ones_stay": CheckResult(
            not gone, f"{len(gone)} of {len(repeated)} candidates that others repeat do not stay{such_as(gone)}"
        ),
    }


def _are_candidates(ids: Sequence[str], pool: Collection[str]) -> CheckResult:
    strange, n_twice = set(ids).difference(pool), len(ids) - len(set(ids))
    said = f"{len(strange)} of {len(ids)} rows are not candidates{such_as(strange)}; {n_twice} occur twice"
    return CheckResult(not strange and not n_twice, said, {"n_rows": len(ids)})


def _accounted(snapshot: Snapshot, corpus: str, n_examples: int) -> CheckResult:
    n_rejected = snapshot.n_rows(REJECTED_ROWS, corpus=corpus)
    counts = snapshot.rows(CORPUS_COUNTS, corpus=corpus).row(0, named=True)
    numbers = {"n_rows": counts["n_rows"], "n_examples": n_examples, "n_rejected": n_rejected}
    numbers |= {name: counts[name] for name in ("n_duplicates", "n_unsampled", "n_excluded")}
    total = sum(number for name, number in numbers.items() if name != "n_rows")
    said = ", ".join(f"{name} {number}" for name, number in numbers.items())
    return CheckResult(total == counts["n_rows"], said, numbers)
