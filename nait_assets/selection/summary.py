"""A summary for people: what was read, what was chosen, and how far the choice fits the topics.

Topics are labels that no method reads, so the share of a capability's own topic among its best rows is an honest, if
small, check.
"""

from collections.abc import Mapping

import polars as pl

from nait_assets.catalogue import losses_of
from nait_assets.corpora.eligibility import reason_of
from nait_assets.extraction import activation_table
from nait_assets.models import cuts
from nait_assets.partitions import Partitions
from nait_assets.recipe import COMPREHENSIVE_TARGET, POOL, Recipe, rounded_up
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.chance import PERCENT_BY_CHANCE, PERCENT_OF_EXAMPLES
from nait_assets.scoring.methods import method_of
from nait_assets.selection.duplicates import duplicates_in, near_duplicates_read, texts_of
from nait_assets.selection.held_against import held_against, standing
from nait_assets.selection.turns import rows_by_turn, takes_turns, turns_sentence
from nait_assets.shown import QUESTION, one_line
from nait_assets.tables import CANDIDATE_POOL, REJECTED_ROWS, REJECTED_SAMPLES, SUBSETS, scores_table

N_BEST = 5
TOP = "0.10"


def own_topic_share(scores: pl.DataFrame, pool: pl.DataFrame, topic: str, ratio: str = TOP) -> tuple[float, float]:
    """Shares of a topic: among the best rows, and the most that could be.

    Args:
        scores: Columns `sample_id`, `rank`.
        pool: Columns `sample_id`, `topic`.
        topic: The capability's own.
        ratio: Share of the pool that counts as best.
    """
    n_best = rounded_up(ratio, len(scores))
    topics = scores.filter(pl.col("rank") <= n_best).join(pool, on="sample_id")["topic"]
    n_own = pool.filter(pl.col("topic") == topic).height
    return float((topics == topic).sum() or 0) / n_best, min(n_own, n_best) / n_best


def summarize(
    recipe: Recipe, warehouse: Warehouse, tokens_per_second: float | None, n_rows_read: int | None = None
) -> str:
    """The text that `nait summary` prints.

    Args:
        recipe: Recipe whose outputs are all made.
        warehouse: Warehouse that holds them.
        tokens_per_second: Tokens per second of the last extraction of the pool, where it is known.
        n_rows_read: Number of rows read from the sources of all corpora, where it is known.

    Raises:
        WarehouseError: Something has not been materialized.
    """
    with warehouse.tables.snapshot() as snapshot:
        topics = snapshot.read(CANDIDATE_POOL.only("sample_id", "topic"))
        rejected = snapshot.connection.execute(
            f"SELECT corpus, count(*) FROM {REJECTED_ROWS.name} GROUP BY corpus ORDER BY corpus"
        ).fetchall()
        judged = [name for name in recipe.capability_names if name in set(topics["topic"].unique().to_list())]
        shares = _shares(recipe, snapshot, topics, judged)
        best = {name: _best_lines(recipe, snapshot, name) for name in recipe.capability_names}
        near = near_duplicates_read(recipe, snapshot)
        chosen = SUBSETS.columns.to_frame()
        if snapshot.has_table(SUBSETS.name):
            chosen = snapshot.rows(SUBSETS, method=recipe.leading_method, ratio=recipe.ratios[-1])
        repeated = _duplicate_lines(recipe, snapshot, chosen, near)
        turn_lines = _turn_lines(recipe, snapshot)
        standing_lines = _standing_lines(recipe, snapshot)
    rejected += _rejected_samples(recipe, warehouse)
    refused = ", ".join(f"{n} in {corpus}" for corpus, n in rejected) or "none"
    rows_read = f" {n_rows_read:,} rows read from all sources." if n_rows_read is not None else ""
    lines = [f"Pool: {len(topics):,} candidates.{rows_read} Rejected rows: {refused}."]
    lines += _lost_lines(recipe, warehouse)
    lines += _reading_lines(recipe, warehouse, tokens_per_second)
    leading = recipe.leading_method
    if recipe.is_targeted(leading):
        for capability in recipe.capability_names:
            lines += ["", f"Best for {capability} ({leading}):", *best[capability]]
        lines += [*turn_lines, "", *standing_lines]
    if judged:
        lines += [
            "",
            f"Own topic among the best {TOP} of the pool (topics are labels that no method reads):",
            *_share_lines(shares, judged),
        ]
    lines += ["", f"Duplicates inside the subsets of {leading}:", *repeated] if repeated else []
    return "\n".join(
        [*lines, "", f"Subsets: {warehouse.folder / 'subsets'}/<method>/<target>/<ratio>/train.jsonl and train.parquet"]
    )


def _standing_lines(recipe: Recipe, snapshot: Snapshot) -> list[str]:
    """Where the leading method's subsets stand against what chance and the examples reach."""
    method = recipe.leading_method
    if not method_of(recipe, method).stand_ins:
        return [f"What scores of {method} chance would reach is not defined: rows cannot stand in for its examples."]
    if not snapshot.has_table(SUBSETS.name):
        return []
    header, rows = ["", "chance", "examples", *recipe.ratios], []
    for target in recipe.targets:
        thresholds = held_against(recipe, snapshot, method, target)
        found = [
            standing(thresholds, snapshot.rows(SUBSETS, method=method, target=target, ratio=ratio)["score"])
            for ratio in recipe.ratios
        ]
        rows.append([target, *found[0].thresholds, *(one.counts for one in found)])
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return [
        f"Scores of {method} that {PERCENT_BY_CHANCE} of candidates reach by chance, and {PERCENT_OF_EXAMPLES} of the "
        "in-domain examples; of each",
        "ratio's subset, how many rows are below the one | reach the other, of how many:",
        *(f"  {line}".rstrip() for line in cells),
    ]


def _turn_lines(recipe: Recipe, snapshot: Snapshot) -> list[str]:
    """Of the leading method's subsets for the comprehensive target, how many rows were taken in whose turn."""
    method = recipe.leading_method
    if not takes_turns(recipe, method, COMPREHENSIVE_TARGET) or not snapshot.has_table(SUBSETS.name):
        return []
    table = scores_table(method).only("sample_id", "whose_turn")
    scores, lines = snapshot.rows(table, target=COMPREHENSIVE_TARGET), []
    for ratio in recipe.ratios:
        rows = snapshot.rows(SUBSETS, method=method, target=COMPREHENSIVE_TARGET, ratio=ratio)
        found = rows_by_turn(scores, rows["sample_id"].to_list(), recipe.capability_names)
        lines += [f"  {ratio}: {turns_sentence(found)}"] if found else []
    title = f"Rows for {COMPREHENSIVE_TARGET} ({method}), which the capabilities chose in turns:"
    return ["", title, *lines] if lines else []


def _lost_lines(recipe: Recipe, warehouse: Warehouse) -> list[str]:
    """What became of the rows of every output that has rejected some, and why."""
    partitions, wanted = Partitions.of(recipe), []
    for record in warehouse.records().values():
        output = recipe.outputs.get(record.asset)
        definition = partitions.of_output(output.partitions) if output else None
        if output and (definition is None or record.partition in definition.get_partition_keys()):
            wanted.append(record)
    lost = losses_of(recipe.outputs, warehouse, wanted)
    return [f"  {name}: {losses.sentence}" for name, losses in sorted(lost.items()) if losses.n_rejected]


def _read_corpora(recipe: Recipe) -> list[str]:
    return [POOL, *(recipe.capabilities_with_examples if recipe.reads_activations_of_examples else ())]


def _rejected_samples(recipe: Recipe, warehouse: Warehouse) -> list[tuple[str, int]]:
    """How many samples of each corpus the model could not read."""
    if not recipe.reads_activations:
        return []
    counts = []
    for corpus in _read_corpora(recipe):
        with activation_table.activations_of(warehouse, corpus).snapshot() as snapshot:
            (count,) = snapshot.connection.execute(f"SELECT count(*) FROM {REJECTED_SAMPLES.name}").fetchall()[0]
            counts.append((f"{corpus} when the model read it", count))
    return [(name, count) for name, count in counts if count]


def _reading_lines(recipe: Recipe, warehouse: Warehouse, tokens_per_second: float | None) -> list[str]:
    if not recipe.reads_activations:
        return []
    n_tokens, samples_of = {}, {}
    for corpus in _read_corpora(recipe):
        with activation_table.activations_of(warehouse, corpus).snapshot() as snapshot:
            samples_of[corpus] = activation_table.samples(snapshot)
        n_tokens[corpus] = int(samples_of[corpus]["n_tokens"].sum())
    speed = f" at {tokens_per_second:,.0f} tokens/s" if tokens_per_second else ""
    in_domain = sum(n_tokens.values()) - n_tokens[POOL]
    examples = pl.concat([samples_of[POOL].clear(), *(samples_of[one] for one in samples_of if one != POOL)])
    return [
        f"Read by {recipe.model.source}: {n_tokens[POOL]:,} tokens of candidates{speed}, "
        f"{in_domain:,} tokens of in-domain examples.",
        f"Of the candidates, {cuts.sentence(samples_of[POOL], recipe.extraction)}.",
        f"Of the in-domain examples, {cuts.sentence(examples, recipe.extraction)}.",
    ]


def _best_lines(recipe: Recipe, snapshot: Snapshot, target: str) -> list[str]:
    table = scores_table(recipe.leading_method).only("sample_id", "score", "rank")
    best = snapshot.rows(table, target=target).drop_nulls("rank").sort("rank").head(N_BEST)
    pool = snapshot.rows_of(CANDIDATE_POOL.only("sample_id", "topic", "messages"), best["sample_id"].to_list())
    shown = best.join(pool.with_columns(asked=QUESTION), on="sample_id", maintain_order="left")
    lines = []
    for row in shown.iter_rows(named=True):
        barred = "(may not be chosen) " if reason_of(recipe, snapshot, row["sample_id"]) else ""
        begin = f"  {row['rank']}. {row['score']:+.3f}  {one_line(row['topic'] or '-'):<14} {row['sample_id']}"
        lines.append(f"{begin}  {barred}{one_line(row['asked'], 70)}")
    return lines


def _duplicate_lines(
    recipe: Recipe, snapshot: Snapshot, chosen: pl.DataFrame, near: Mapping[str, str] | None
) -> list[str]:
    """Of each target's subset of the largest ratio, the rows that repeat others."""
    table, lines = CANDIDATE_POOL.only("sample_id", "messages"), []
    for target in recipe.targets:
        rows = texts_of(snapshot.rows_of(table, chosen.filter(pl.col("target") == target)["sample_id"].to_list()))
        if len(rows):
            lines.append(f"  {target}/{recipe.ratios[-1]}: of {len(rows):,} rows, {duplicates_in(rows, near).sentence}")
    return lines


def _shares(
    recipe: Recipe, snapshot: Snapshot, topics: pl.DataFrame, judged: list[str]
) -> dict[str, list[tuple[float, float]]]:
    """By method, of each capability that is a topic, what `own_topic_share` says; all scores have to be there."""
    shares: dict[str, list[tuple[float, float]]] = {}
    for method in recipe.methods:
        table, found = scores_table(method).only("sample_id", "rank"), {}
        for target in recipe.targets:
            scores = snapshot.read(table, target=target)
            found[target] = own_topic_share(scores, topics, target) if target in judged else (0.0, 0.0)
        shares[method] = [found[capability] for capability in judged]
    return shares


def _share_lines(shares: Mapping[str, list[tuple[float, float]]], judged: list[str]) -> list[str]:
    rows = {method: [share for share, _ in found] for method, found in shares.items()}
    rows["most possible"] = [most for _, most in next(iter(shares.values()))]
    width = max(14, *map(len, rows)) + 1
    columns = [max(8, len(capability)) + 2 for capability in judged]
    lines = [" " * (2 + width) + "".join(f"{name:>{size}}" for name, size in zip(judged, columns, strict=True))]
    for name, found in rows.items():
        cells = "".join(f"{share:>{size}.0%}" for share, size in zip(found, columns, strict=True))
        lines.append(f"  {name:<{width}}{cells}")
    return lines
