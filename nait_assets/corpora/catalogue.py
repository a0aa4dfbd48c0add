"""Outputs of the corpora."""

from dataclasses import dataclass

import polars as pl

from nait_assets.catalogue import Output
from nait_assets.corpora.corpus import source_inputs
from nait_assets.corpora.filtered import FILTERED_CANDIDATES, FilteredOutput
from nait_assets.losses import Losses, kinds_of_reasons
from nait_assets.recipe import EVALUATION, POOL, PUBLISHED, TASKS, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import (
    CANDIDATE_POOL,
    CONTAMINATED_CANDIDATES,
    CORPUS_COUNTS,
    EVALUATION_SET,
    IN_DOMAIN_SET,
    REJECTED_ROWS,
    TASK_SET,
    published_table,
)


@dataclass(frozen=True, eq=False)
class CorpusOutput(Output):
    """An output that is read from sources.

    Attributes:
        description: what its rows are for, in a sentence.
        prefix: what stands in front of the partition where the recipe and the column `corpus` name a corpus.
    """

    description: str = ""
    prefix: str = ""

    def corpus(self, partition: str) -> str:
        """The name that a partition has in `Recipe.corpus_sources` and in the column `corpus` of tables."""
        return f"{self.prefix}{partition}"

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,
        model: LanguageModel,  # noqa: ARG002
        partition: str,
    ) -> dict[str, str]:
        return source_inputs(recipe, self.corpus(partition), warehouse.hashes)

    def discard(self, recipe: Recipe, warehouse: Warehouse, tables: Transaction, partition: str) -> None:  # noqa: D102
        super().discard(recipe, warehouse, tables, partition)
        for table in (REJECTED_ROWS, CORPUS_COUNTS):
            if tables.has_table(table.name):
                tables.replace(table, table.columns.to_frame(), corpus=self.corpus(partition))

    def stored_beside(self, snapshot: Snapshot, partition: str) -> list[pl.DataFrame]:
        """Its rejected rows, and how many rows became what: subsets' cards and reports say them."""
        corpus = self.corpus(partition)
        return beside(*(snapshot.rows(table, corpus=corpus) for table in (REJECTED_ROWS, CORPUS_COUNTS)))

    def losses(self, warehouse: Warehouse, partition: str) -> Losses | None:  # noqa: D102
        assert self.table is not None, f"{self.key} has no table"
        with warehouse.tables.snapshot() as snapshot:
            if not snapshot.has_table(CORPUS_COUNTS.name):
                return None
            counts = snapshot.rows(CORPUS_COUNTS, corpus=self.corpus(partition))
            reasons = snapshot.counted(REJECTED_ROWS, "reason", corpus=self.corpus(partition))
        if counts.is_empty():
            return None
        of = {name: count or 0 for name, count in counts.drop("corpus").row(0, named=True).items()}
        n_left_out, kinds = of["n_unsampled"] + of["n_excluded"], kinds_of_reasons(reasons)
        n_used = of["n_rows"] - of["n_duplicates"] - n_left_out - sum(count for _, count in kinds)
        return Losses(of["n_rows"], n_used, kinds, of["n_duplicates"], n_left_out, of["n_cut"])


def beside(rejected: pl.DataFrame, counts: pl.DataFrame) -> list[pl.DataFrame]:
    """What a corpus' data version covers beside its rows, as it is hashed: without the corpus' name."""
    stored = ((REJECTED_ROWS, rejected), (CORPUS_COUNTS, counts))
    return [frame.select(list(table.written_columns)).cast(table.written_columns) for table, frame in stored]


POOL_OUTPUT = CorpusOutput(
    CANDIDATE_POOL.asset,
    None,
    CANDIDATE_POOL,
    one_row_each=True,
    description="The examples that we choose from.",
    prefix=POOL,
)
EXAMPLES_OUTPUT = CorpusOutput(
    IN_DOMAIN_SET.asset,
    "with_examples",
    IN_DOMAIN_SET,
    description="Examples of a capability that the model should gain.",
)
EVALUATION_OUTPUT = CorpusOutput(
    EVALUATION_SET.asset,
    "evaluation",
    EVALUATION_SET,
    description="Held-out examples that no subset may leak; nothing else reads them.",
    prefix=EVALUATION,
)
TASK_OUTPUT = CorpusOutput(
    TASK_SET.asset,
    "task",
    TASK_SET,
    description="Examples by which models are measured; no score and no training reads them.",
    prefix=TASKS,
)
CONTAMINATION_OUTPUT = Output(CONTAMINATED_CANDIDATES.asset, None, CONTAMINATED_CANDIDATES)


def filtered_output(recipe: Recipe) -> FilteredOutput | None:
    """The output of the recipe's filters; None where it has none."""
    if recipe.filters is None:
        return None
    return FilteredOutput(FILTERED_CANDIDATES.asset, None, FILTERED_CANDIDATES, drops=recipe.filters.action == "drop")


def findings(recipe: Recipe) -> list[Output]:
    """Outputs that single candidates out: those that leak an example, and those that the filters find."""
    of_filters = filtered_output(recipe)
    return [*([CONTAMINATION_OUTPUT] if recipe.has_examples else []), *([of_filters] if of_filters else [])]


def published_output(name: str) -> CorpusOutput:
    """The output of a published list."""
    table = published_table(name)
    return CorpusOutput(table.asset, None, table, prefix=f"{PUBLISHED}{name}")


def conversations(recipe: Recipe) -> list[CorpusOutput]:
    """Corpora of a recipe whose rows are conversations: the pool, in-domain sets, held-out sets and tasks' examples."""
    return [
        POOL_OUTPUT,
        *([EXAMPLES_OUTPUT] if recipe.capabilities_with_examples else []),
        *([EVALUATION_OUTPUT] if recipe.evaluation.held_out else []),
        *([TASK_OUTPUT] if recipe.evaluation.names_with_examples else []),
    ]


def corpora(recipe: Recipe) -> list[CorpusOutput]:
    """Outputs of a recipe that are read from sources: conversations, and published lists."""
    return [*conversations(recipe), *(published_output(name) for name in recipe.published_lists)]


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the corpora of a recipe."""
    return [*corpora(recipe), *findings(recipe)]


def output_named(key: str) -> Output | None:
    """The output of a key that only some recipes have."""
    of_some = (EXAMPLES_OUTPUT, EVALUATION_OUTPUT, TASK_OUTPUT, CONTAMINATION_OUTPUT)
    fixed = {output.key: output for output in (*of_some, Output(FILTERED_CANDIDATES.asset, None, FILTERED_CANDIDATES))}
    begin = published_output("").key
    return fixed.get(key) or (published_output(key.removeprefix(begin)) if key.startswith(begin) else None)
