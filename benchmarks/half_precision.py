"""What does `extraction.store: float16` change? Scores from halved activations against those of a home in float32.

Takes a home in which a recipe was run, stores its activations in a copy as float16, makes features and scores anew from
them, by every method of the recipe that reads activations, and prints for each the lowest Spearman correlation with the
home's scores over the targets, the smallest share of its best tenth that stays, and the largest fall of the area under
the ROC curve where the pool has rows of a capability's topic.

    nait run --recipe recipes/demo.yaml
    python benchmarks/half_precision.py --recipe recipes/demo.yaml --json half_precision.json
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from common import demo_recipe, parser, tell
from scipy.stats import spearmanr

from nait_assets.extraction import activation_table
from nait_assets.extraction.stored_numbers import HALF, halved, scale_of, vectors
from nait_assets.features.capability import centroids, directions_of, pool_statistics
from nait_assets.features.catalogue import feature_output, statistics_output
from nait_assets.recipe import ACTIVATIONS, POOL, Recipe, load_recipe, rounded_up
from nait_assets.report.comparison import retrieval
from nait_assets.resources import LanguageModel, Warehouse, home_of
from nait_assets.resources.warehouse import Snapshot, Store
from nait_assets.scoring.assets import score
from nait_assets.scoring.latest import Latest
from nait_assets.scoring.methods import method_of
from nait_assets.tables import CANDIDATE_POOL, REJECTED_SAMPLES, scores_table


def halve(store: Store) -> float:
    """Store a file's activations as float16; how large it then is, as a share of what it was."""
    before = store.path.stat().st_size
    other = Store(store.path.with_suffix(".half"))
    with store.snapshot() as whole, other.transaction() as transaction:
        names = activation_table.samples(whole)["sample_id"].to_list()
        rows = whole.connection.sql(f"FROM {activation_table.ACTIVATION} LIMIT 0").to_arrow_table().schema
        of_samples = activation_table.shard_schema(1, False)
        fields = [of_samples.field(name) for name in of_samples.names[:6]]
        stored = pa.schema([*fields, *(field for field in rows if field.name not in {*of_samples.names[:2], "digest"})])
        shards = (_halved(shard) for shard in activation_table.lent(whole, names, stored))
        first = next(shards)
        activation_table.fold(transaction, "halved", names, _chained(first, shards), first.schema)
        transaction.replace(REJECTED_SAMPLES, whole.rows(REJECTED_SAMPLES))
        for record in whole.records().values():
            transaction.put_record(record)
    other.path.replace(store.path)
    return store.path.stat().st_size / before


def _chained(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def _halved(shard: pa.Table) -> pa.Table:
    columns: dict[str, Any] = {}
    for field in shard.schema:
        if not (pa.types.is_fixed_size_list(field.type) and field.name.endswith("activation")):
            columns[field.name] = shard[field.name]
            continue
        bits, columns[scale_of(field.name)] = halved(vectors(shard, field.name))
        columns[field.name] = pa.FixedSizeListArray.from_arrays(pa.array(bits.ravel(), HALF), bits.shape[1])
    return pa.table(columns)


def remake(recipe: Recipe, warehouse: Warehouse, model: LanguageModel) -> None:
    """Statistics, directions and centroids of every pooling, from what is stored now."""
    read = {key for method in recipe.methods for key in recipe.reads_of(method)}
    for pooling in recipe.extraction.pool:
        _put(warehouse, statistics_output(pooling).table, "", pool_statistics(recipe, warehouse, pooling)[0])
        for name in recipe.in_domain_names:
            for feature, make in (("nait_directions", directions_of), ("standardized_centroids", centroids)):
                output = feature_output(feature, pooling)
                if output.key in read:
                    _put(warehouse, output.table, name, make(recipe, warehouse, model, name, pooling)[0])


def _put(warehouse: Warehouse, table: Any, capability: str, frame: pl.DataFrame) -> None:
    with warehouse.tables.transaction() as tables:
        tables.replace(table, frame, **table.slice_of(capability))


def compared(method: str, exact: Snapshot, found: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """A row of the table."""
    topics = exact.rows(CANDIDATE_POOL.only("sample_id", "topic"))
    correlations, kept, falls = [], [], []
    for target, scores in found.items():
        before = exact.rows(scores_table(method), target=target)
        both = before.join(scores, on="sample_id").drop_nulls(["score", "score_right"])
        correlations.append(float(spearmanr(both["score"], both["score_right"]).statistic))
        size = rounded_up("0.10", len(before))
        best = [set(frame.filter(pl.col("rank") <= size)["sample_id"].to_list()) for frame in (before, scores)]
        kept.append(len(best[0] & best[1]) / size)
        wanted = topics.filter(topic=target)["sample_id"]
        if len(wanted):
            falls.append(retrieval(before, wanted)[0] - retrieval(scores, wanted)[0])
    return {
        "method": method,
        "lowest Spearman": f"{min(correlations):.6f}",
        "least of the best tenth that stays": f"{min(kept):.3f}",
        "largest fall of the AUC": f"{max(falls):+.5f}" if falls else "",
    }


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--recipe", type=Path)
    options.add_argument("--home", type=Path)
    arguments = options.parse_args()
    recipe = load_recipe(arguments.recipe) if arguments.recipe else demo_recipe()
    home, copy = arguments.home or home_of(recipe), arguments.work / "half_precision"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home / "activations", copy / "activations")
    shutil.copy(home / "warehouse.duckdb", copy / "warehouse.duckdb")
    warehouse = Warehouse(home=str(copy))
    corpora = [POOL, *(name for name in recipe.in_domain_names if recipe.capability_named(name).examples)]
    shares = [halve(activation_table.activations_of(warehouse, corpus)) for corpus in corpora]
    model = LanguageModel(source=recipe.model.source, home=str(copy))
    remake(recipe, warehouse, model)
    rows = []
    with Warehouse(home=str(home)).tables.snapshot() as exact:
        for name in recipe.methods:
            if ACTIVATIONS in recipe.reads_of(name) and exact.has_table(scores_table(name).name):
                method, latest = method_of(recipe, name), Latest[Any]()
                # what rows are held against is not looked at
                method = replace(method, stand_ins=None)
                found = {target: score(method, recipe, warehouse, target, latest)[0] for target in recipe.targets}
                rows.append(compared(name, exact, found))
    facts = {"recipe": recipe.name, "size of the pool's file": f"{shares[0]:.2f} of float32's"}
    tell("Activations as float16 against float32", rows, facts, arguments.json)


if __name__ == "__main__":
    main()
