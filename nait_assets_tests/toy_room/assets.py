"""Assets of the toy room."""

import dagster as dg
import polars as pl

from nait_assets.corpora.catalogue import POOL_OUTPUT
from nait_assets.lineage import asset_key
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.rooms import asset_arguments, write_table
from nait_assets_tests.toy_room.catalogue import COUNTS


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The counts."""

    @dg.asset(
        **asset_arguments(COUNTS, partitions), deps=[asset_key(POOL_OUTPUT.key)], code_version="1", kinds={"polars"}
    )
    def word_counts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How often a word occurs. One row is one candidate."""
        inputs = COUNTS.external_versions(recipe, warehouse, language_model, "")
        with warehouse.tables.snapshot() as snapshot:
            pool, versions = POOL_OUTPUT.read(warehouse, snapshot, "")
        frame = counts(pool, COUNTS.file(recipe).read_text().strip())
        return write_table(context, warehouse, COUNTS, frame, {**inputs, **versions}, {})

    return [word_counts]


def counts(pool: pl.DataFrame, word: str) -> pl.DataFrame:
    """Occurrences of a word in each candidate's messages."""
    text = pl.col("messages").list.eval(pl.element().struct.field("content")).list.join(" ")
    return pool.select("sample_id", n_times=text.str.count_matches(word, literal=True).cast(pl.Int64))
