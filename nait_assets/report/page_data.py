"""What the page is made from: everything it reads from the warehouse, and the versions of what was read.

Belongs here: queries. Does not belong here: what is drawn of the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import polars as pl

from nait_assets.corpora.catalogue import corpora
from nait_assets.corpora.filtered import FILTERED_CANDIDATES
from nait_assets.errors import WarehouseError
from nait_assets.evaluation.catalogue import conclusions
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CANDIDATE_ACTIVATIONS, IN_DOMAIN_ACTIVATIONS
from nait_assets.measurements.catalogue import OUTPUTS, MeasurementOutput
from nait_assets.recipe import POOL, Recipe, pooled
from nait_assets.report.activation_map import MOST_CANDIDATES, MOST_EXAMPLES, sampled
from nait_assets.report.activations import MethodInputs, gather
from nait_assets.report.catalogue import COMPARISON_OUTPUT
from nait_assets.report.comparison import METHOD_PRICES, Comparison
from nait_assets.report.trainings import Trainings, read_trainings
from nait_assets.resources import Warehouse
from nait_assets.resources.spooled_rows import SpooledFrames, SpooledRows
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.explanation import explained_by, explanations
from nait_assets.scoring.method import Explanation
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.texts import texts_of_examples
from nait_assets.selection.catalogue import subset_output
from nait_assets.selection.choice import columns_read
from nait_assets.selection.duplicates import near_duplicates_read, texts_of
from nait_assets.selection.held_against import held_against
from nait_assets.selection.placing import last_chosen
from nait_assets.tables import (
    CANDIDATE_POOL,
    CORPUS_COUNTS,
    REJECTED_ROWS,
    REJECTED_SAMPLES,
    STANDARDIZED_CENTROIDS,
    SUBSETS,
    Table,
    scores_table,
)

N_REASONS, N_EXTREMES = 5, 5
MOST_IN_TABLE = 10_000
"""Of the recommended method's best rows, how many are looked at for the page's table, which has room for fewer."""
MOST_EXPLAINED = 40
"""For how many of a target's best rows the page says what contributes most to the score."""
COUNTED = pl.Schema({"corpus": pl.String(), "what": pl.String(), "n_rows": pl.Int64()})


@dataclass(frozen=True)
class PageData:
    """What the warehouse says of a recipe.

    Attributes:
        recipe: Recipe whose page it is.
        n_pool: Number of candidates.
        texts: What the rows of every subset of the largest ratio ask and answer, as hashes: columns of `texts_of`.
        counts: Rows of each corpus, by what became of them: columns `corpus`, `what`, `n_rows`.
        scores: By method and target, of the candidates that have one, read from disk when they are asked for.
        subsets: Chosen sample ids, best first, by method, target and ratio.
        samples: Candidates that the model read, by `n_tokens` and what was cut; None where no method needs the model.
        centroids: By capability, rows of `standardized_centroids`; empty where no method reads them.
        shown: Candidates whose texts the page may show: the best rows, the worst, those on the map.
        on_map: Candidates that the map shows, ascending.
        candidates: Activations of those; None without a model.
        examples: By capability, activations of those in-domain examples that the map shows.
        explanations: By target and `sample_id`, why the best rows of the leading method score as they do; empty where
            it gives no reasons.
        near_texts: Question and answer of the in-domain examples that these name, by `sample_id`.
        thresholds: By method and target, the row of `THRESHOLDS`, or none.
        comparison: Comparison of the methods.
        results: What is concluded from results of trained models, by table.
        trainings: What was trained; None where a recipe trains nothing.
        near: Near duplicates and the candidate that each repeats; None where the recipe looks for none.
        prices: Rows of `report.comparison.METHOD_PRICES`; None where the recipe has no prices.
        inputs: Versions of all that was read.
    """

    recipe: Recipe
    n_pool: int
    texts: pl.DataFrame
    counts: pl.DataFrame
    scores: Mapping[tuple[str, str], pl.DataFrame]
    subsets: Mapping[tuple[str, str, str], list[str]]
    samples: pl.DataFrame | None = None
    centroids: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    shown: pl.DataFrame = field(default_factory=CANDIDATE_POOL.columns.to_frame)
    on_map: Sequence[str] = ()
    candidates: MethodInputs | None = None
    examples: Mapping[str, MethodInputs] = field(default_factory=dict)
    explanations: Mapping[tuple[str, str], Explanation] = field(default_factory=dict)
    near_texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    thresholds: Mapping[tuple[str, str], pl.DataFrame] = field(default_factory=dict)
    comparison: Comparison | None = None
    results: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    trainings: Trainings | None = None
    near: Mapping[str, str] | None = None
    prices: pl.DataFrame | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Methods of the recipe, the leading one first."""
        leading = self.recipe.leading_method
        return [leading, *(method for method in self.recipe.methods if method != leading)]

    @property
    def recommended(self) -> str:
        """The method whose rows the page shows."""
        return self.methods[0]

    @cached_property
    def best_ranks(self) -> dict[str, int]:
        """Of every row that the recommended method has chosen for some target, the best of its ranks there."""
        best: dict[str, int] = {}
        for target in self.recipe.targets:
            for sample_id, (rank, _) in self.ranks_of_chosen(target).items():
                best[sample_id] = min(rank, best.get(sample_id, rank))
        return best

    def ranks_of_chosen(self, target: str) -> dict[str, tuple[int, float]]:
        """Rank and score of the rows that the recommended method has chosen for a target, by `sample_id`."""
        chosen = {name for ratio in self.recipe.ratios for name in self.subsets[self.recommended, target, ratio]}
        ids = pl.DataFrame({"sample_id": list(chosen)}, {"sample_id": pl.String})
        found = self.scores[self.recommended, target].drop_nulls("rank").join(ids, on="sample_id", how="semi")
        return {name: (rank, score) for name, rank, score in found.select("sample_id", "rank", "score").iter_rows()}

    def last_chosen(self, method: str, target: str) -> dict[str, tuple[int, float]]:
        """By ratio, rank and score of the chosen row of the worst rank; none of an empty subset."""
        chosen = {ratio: self.subsets[method, target, ratio] for ratio in self.recipe.ratios}
        return last_chosen(self.scores[method, target], chosen)


def read(recipe: Recipe, warehouse: Warehouse) -> PageData:
    """Everything that the page is made from.

    Raises:
        WarehouseError: Something has not been materialized.
    """
    of_centroids = centroids_shown(recipe)
    with warehouse.tables.snapshot() as tables:
        tables.note(CANDIDATE_POOL.asset)
        chosen = subsets(tables, recipe)
        page_data = PageData(
            recipe,
            tables.n_rows(CANDIDATE_POOL),
            _texts(tables, chosen, recipe.ratios[-1]),
            pl.concat(
                [
                    _counts(tables),
                    _found_by_filters(recipe, tables),
                    _rejected_by_measurements(recipe, warehouse, tables.inputs),
                ]
            ),
            spooled_scores(tables, recipe, scored_only=True),
            chosen,
            centroids=(
                {name: tables.read(of_centroids, capability=name) for name in recipe.capability_names}
                if of_centroids.asset in recipe.outputs_read
                else {}
            ),
            thresholds={
                (method, target): held_against(recipe, tables, method, target)
                for method in recipe.methods
                for target in recipe.targets
            },
            comparison=_comparison(tables),
            results={table.name: tables.read(table) for table in results_shown(recipe)},
            trainings=read_trainings(recipe, warehouse, tables),
            near=near_duplicates_read(recipe, tables),
            prices=tables.read(METHOD_PRICES) if recipe.prices else None,
            inputs=tables.inputs,
        )
        _note_corpora(tables, recipe)
        for name in recipe.smaller_sets if page_data.centroids else ():
            tables.note(of_centroids.asset, name)
    page_data = _with_reasons(page_data, warehouse)
    page_data = _with_activations(page_data, warehouse) if recipe.reads_activations else page_data
    return _with_texts(page_data, warehouse)


def spooled_scores(tables: Snapshot, recipe: Recipe, scored_only: bool = False) -> SpooledFrames[tuple[str, str]]:
    """The scores of a recipe by method and target, noted as read.

    Args:
        tables: Snapshot of the warehouse's tables.
        recipe: Recipe of the methods.
        scored_only: Whether candidates without a score are left out.
    """
    found = {}
    for method in recipe.methods:
        for target in recipe.targets:
            table = scores_table(method).only(*columns_read(recipe.strategy_of(method, target)))
            rows = SpooledRows(table.columns, tables.path.parent)
            for part in tables.slices(table, target=target):
                rows.append(part.drop_nulls("score") if scored_only else part)
            found[method, target] = rows
    return SpooledFrames(found)


def _texts(tables: Snapshot, chosen: Mapping[tuple[str, str, str], Sequence[str]], ratio: str) -> pl.DataFrame:
    """What the rows of every subset of a ratio ask and answer, columns of `texts_of`."""
    wanted = {name for (_, _, of_ratio), rows in chosen.items() if of_ratio == ratio for name in rows}
    ids = pl.DataFrame({"sample_id": list(wanted)}, {"sample_id": pl.String})
    texts = CANDIDATE_POOL.only("sample_id", "messages")
    kept = SpooledRows(texts_of(texts.columns.to_frame()).schema, tables.path.parent)
    for part in tables.slices(texts):
        kept.append(texts_of(part.join(ids, on="sample_id", how="semi")))
    return kept.frame()


def _with_texts(page_data: PageData, warehouse: Warehouse) -> PageData:
    """The same with the candidates whose texts the page may show.

    Raises:
        WarehouseError: The pool was made anew meanwhile.
    """
    wanted = set(sorted(page_data.best_ranks, key=page_data.best_ranks.__getitem__)[:MOST_IN_TABLE])
    for target in page_data.recipe.targets:
        ordered = page_data.scores[page_data.recommended, target].sort("rank")["sample_id"]
        wanted |= {*ordered.head(N_EXTREMES), *ordered.tail(N_EXTREMES)}
    with warehouse.tables.snapshot() as tables:
        if tables.note(CANDIDATE_POOL.asset).data_version != page_data.inputs[CANDIDATE_POOL.asset]:
            raise WarehouseError("the pool was made anew while its page was made; run again")
        return replace(page_data, shown=tables.rows_of(CANDIDATE_POOL, wanted | set(page_data.on_map)))


def centroids_shown(recipe: Recipe) -> Table:
    """The table of the centroids that the page shows, where a method reads them: of the leading method's pooling."""
    return STANDARDIZED_CENTROIDS.of_pooling(recipe.pooling_of(recipe.leading_method))


def results_shown(recipe: Recipe) -> list[Table]:
    """Tables of what is concluded from results of trained models."""
    return [output.table for output in conclusions(recipe) if output.table is not None]


def _with_reasons(page_data: PageData, warehouse: Warehouse) -> PageData:
    """The same with why the best rows score as they do, where the leading method says it."""
    recipe = page_data.recipe
    if not explained_by(recipe, method_of(recipe, recipe.leading_method)):
        return page_data
    wanted = {
        target: page_data.subsets[recipe.leading_method, target, recipe.ratios[-1]][:MOST_EXPLAINED]
        for target in recipe.targets
    }
    found = explanations(recipe, warehouse, recipe.leading_method, wanted, N_REASONS)
    with warehouse.tables.snapshot() as tables:
        texts = texts_of_examples(tables, (one for each in found.explanations.values() for one in each.near))
    inputs = {**page_data.inputs, **found.versions, **tables.inputs}
    return replace(page_data, explanations=found.explanations, near_texts=texts, inputs=inputs)


def _comparison(tables: Snapshot) -> Comparison:
    tables.note(COMPARISON_OUTPUT.key)
    return Comparison.stored(tables)


def subsets(tables: Snapshot, recipe: Recipe) -> dict[tuple[str, str, str], list[str]]:
    """Chosen sample ids, best first, by method, target and ratio; each is noted as read."""
    chosen: dict[tuple[str, str, str], list[str]] = {}
    known: dict[str, str] = {}  # a row of many subsets is one text in memory
    query = f"SELECT sample_id FROM {SUBSETS.name} WHERE method = ? AND target = ? AND ratio = ? ORDER BY rank"
    for method in recipe.methods:
        for target in recipe.targets:
            for ratio in recipe.ratios:
                tables.note(subset_output(method).key, f"{target}|{ratio}")
                rows = tables.connection.execute(query, [method, target, ratio]).fetchall()
                chosen[method, target, ratio] = [known.setdefault(name, name) for (name,) in rows]
    return chosen


def _note_corpora(tables: Snapshot, recipe: Recipe) -> None:
    """Note every corpus as read: the page says what became of its rows."""
    names = {
        None: [""],
        "with_examples": recipe.in_domain_sets,
        "evaluation": recipe.evaluation_names,
        "task": recipe.evaluation.names_with_examples,
    }
    for output in corpora(recipe):
        for partition in names[output.partitions]:
            tables.note(output.key, partition)


def _counts(tables: Snapshot) -> pl.DataFrame:
    """What became of the rows of each corpus, where the tables say so."""
    parts = [
        f"SELECT corpus, 'rejected: ' || reason AS what, count(*) AS n_rows FROM {REJECTED_ROWS.name} GROUP BY ALL"
    ]
    if tables.has_table(CORPUS_COUNTS.name):
        stored = tables.connection.sql(f"FROM {CORPUS_COUNTS.name} LIMIT 0").columns
        for column, what in (
            ("n_rows", "read"),
            ("n_duplicates", "dropped: an equal conversation stands earlier"),
            ("n_unsampled", "left out by `limit` and `skip`"),
            ("n_excluded", "left out by `where`"),
            ("n_cut", "lost the turns behind its last response"),
        ):
            if column not in stored:  # of an earlier version of this project
                continue
            counted = f"SELECT corpus, '{what}' AS what, {column} AS n_rows FROM {CORPUS_COUNTS.name}"
            parts.append(f"{counted} WHERE {column} > 0")
    rows = tables.connection.execute(" UNION ALL ".join(parts)).fetchall()
    return pl.DataFrame(rows, schema=COUNTED, orient="row").sort(
        "corpus", "n_rows", "what", descending=[False, True, False]
    )


def _found_by_filters(recipe: Recipe, tables: Snapshot) -> pl.DataFrame:
    """How many candidates each filter found."""
    if recipe.filters is None:
        return COUNTED.to_frame()
    becomes = {"drop": "may not be chosen", "report": "reported"}[recipe.filters.action]
    counted = sorted(tables.counted(FILTERED_CANDIDATES, "filter").items())
    rows = [(POOL, f"{becomes}: {name}", count) for name, count in counted]
    return pl.DataFrame(rows, schema=COUNTED, orient="row")


def measurements_read(recipe: Recipe) -> list[MeasurementOutput]:
    """The measurements that the methods of a recipe read."""
    return [OUTPUTS[key] for key in sorted(recipe.outputs_read) if key in OUTPUTS]


def _rejected_by_measurements(recipe: Recipe, warehouse: Warehouse, inputs: dict[str, str]) -> pl.DataFrame:
    """Samples that a measurement which a method reads could not be made of, by reason; its version goes to `inputs`."""
    rows = []
    for output in measurements_read(recipe):
        for corpus in recipe.in_domain_sets if output.by_capability else [POOL]:
            partition = corpus if output.by_capability else ""
            with output.store(warehouse, partition).snapshot() as snapshot:
                snapshot.note(output.key, partition)
                inputs |= snapshot.inputs
            losses = output.losses(warehouse, partition)
            name = output.measurement.name
            rows += [(corpus, f"rejected by {name}: {reason}", count) for reason, count in losses.reasons]
    return pl.DataFrame(rows, schema=COUNTED, orient="row")


def _rejected_samples(activations: Snapshot, corpus: str) -> pl.DataFrame:
    rejected = f"FROM {REJECTED_SAMPLES.name} GROUP BY ALL"
    query = f"SELECT ?, 'rejected by the model: ' || reason AS what, count(*) AS n_rows {rejected}"
    rows = activations.connection.execute(query, [corpus]).fetchall()
    return pl.DataFrame(rows, schema=COUNTED, orient="row").sort("what")


def _with_activations(page_data: PageData, warehouse: Warehouse) -> PageData:
    """The same with what the model's activations say."""
    recipe, folder, counts = page_data.recipe, warehouse.folder / "report", [page_data.counts]
    examples: dict[str, MethodInputs] = {}
    column = pooled("activation", recipe.pooling_of(recipe.leading_method))
    with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
        snapshot.note(CANDIDATE_ACTIVATIONS)
        inputs = {**page_data.inputs, **snapshot.inputs}
        samples = activation_table.samples(snapshot)
        on_map = sampled(samples["sample_id"], MOST_CANDIDATES)
        candidates = gather(snapshot, on_map, folder, column)
        counts.append(_rejected_samples(snapshot, POOL))
    for capability in recipe.capabilities_with_examples if recipe.reads_activations_of_examples else ():
        with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
            snapshot.note(IN_DOMAIN_ACTIVATIONS, capability)
            inputs |= snapshot.inputs
            sample_ids = activation_table.samples(snapshot)["sample_id"]
            examples[capability] = gather(snapshot, sampled(sample_ids, MOST_EXAMPLES), folder, column)
            counts.append(_rejected_samples(snapshot, capability))
    for name in recipe.smaller_sets if recipe.reads_activations_of_examples else ():  # not on the map
        with activation_table.activations_of(warehouse, name).snapshot() as snapshot:
            snapshot.note(IN_DOMAIN_ACTIVATIONS, name)
            inputs |= snapshot.inputs
    return replace(
        page_data,
        counts=pl.concat(counts),
        samples=samples.drop("sample_id"),
        on_map=on_map,
        candidates=candidates,
        examples=examples,
        inputs=inputs,
    )
