"""How comparisons and foresight are written for people: in metadata, by `nait summary`, and on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from nait_assets.evaluation.catalogue import COMPARISON_OUTPUT, FORESIGHT_OUTPUT, conclusions
from nait_assets.evaluation.comparison import OWN
from nait_assets.evaluation.measured import BASE, FULL, LOWER_IS_BETTER, MATCHED, RANDOM
from nait_assets.evaluation.tables import COMPARISON, FORESIGHT
from nait_assets.recipe import COMPREHENSIVE_TARGET, Recipe
from nait_assets.resources import Warehouse
from nait_assets.shown import as_text

SIGNS = {"better": "better", "worse": "worse", "not told apart": "="}
"""Verdicts where there is little room."""
AGAINST = {FULL: "against full", RANDOM: "against random", MATCHED: "against length-matched"}
"""By the end of a reference's name, the heading of the change from it."""

MEAN = "mean"
"""Heading of the mean over targets."""


@dataclass(frozen=True)
class Figure:
    """A number in a table.

    Attributes:
        value: The number.
        interval: Its interval of 95 %, "" where there is none.
        beside: What stands beside it: a verdict, or the same number given something else.
        short: The same where there is little room.
        told: Whether the interval tells it from 0; None where that is not asked.
    """

    value: str
    interval: str = ""
    beside: str = ""
    short: str = ""
    told: bool | None = None

    def __str__(self) -> str:
        """On one line."""
        return " ".join(filter(None, [self.value, self.interval, self.short]))


def comparison_table(
    comparison: pl.DataFrame, metric: str, every_target: bool = False
) -> tuple[list[str], list[list[str | Figure]]]:
    """Header and rows of the models: on average over the tasks of a metric, how far that differs, and each task.

    The references stand first; of each ratio the models with the best average, or result of the only task.

    Args:
        comparison: Rows of `tables.COMPARISON`.
        metric: Metric of the tasks.
        every_target: Whether all models have a row, those trained for one target and length-matched draws too.
    """
    of_metric = comparison.filter(pl.col("metric") == metric)
    tasks = sorted(task for task in of_metric["task"].unique() if task)
    judged = "" if "" in set(of_metric["task"]) else tasks[0]
    columns = dict.fromkeys([judged, *tasks])
    against = [end for end in AGAINST if of_metric["against"].str.ends_with(end).any()]
    header = ["model", "target", "ratio", "seeds", judged or "average"]
    header += [*(AGAINST[end] for end in against), *list(columns)[1:]]
    rows: list[list[str | Figure]] = []
    for model, target, ratio in _cells(of_metric if every_target else leading_rows(of_metric), judged):
        own = of_metric.filter(model=model, target=target, ratio=ratio)
        first, *others = (_with_interval(own.filter(task=task, against="")) for task in columns)
        of_judged = own.filter(task=judged)
        changes = [_change(of_judged.filter(pl.col("against").str.ends_with(end))) for end in against]
        rows.append([model, target, ratio, str(own["n_models"].max()), first, *changes, *others])
    return header, rows


def comparison_verdicts(comparison: pl.DataFrame, metric: str) -> list[str]:
    """A sentence a ratio: which models are better than random rows, which worse, and which not told apart.

    Args:
        comparison: Rows of `tables.COMPARISON`.
        metric: Metric of the tasks.
    """
    leading = leading_rows(comparison.filter(metric=metric))
    several = "" in set(leading["task"])
    of_models = leading.filter(against=RANDOM, task="") if several else leading.filter(against=RANDOM)
    sentences = []
    for (ratio, task), rows in sorted(of_models.group_by("ratio", "task")):
        told = {verdict: _names(rows.filter(verdict=verdict)) for verdict in SIGNS}
        of_task = f" on {task}" if task else ""
        said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in told.items() if names)
        sentences.append(f"{metric}{of_task}, ratio {ratio}, against random rows: {said}.")
    return sentences


def _names(rows: pl.DataFrame) -> list[str]:
    """Models with their targets, where those say more than the model."""
    named = rows.select("model", "target").sort("model", "target").rows()
    return [model if target == OWN else f"{model} [{target}]" for model, target in named]


def leading_rows(comparison: pl.DataFrame) -> pl.DataFrame:
    """The rows that say most: each task by the model of its own target, that of all together, and references.

    Length-matched draws are left out: what differs from them stands beside their method.
    """
    leading = pl.col("target").is_in(["", OWN, COMPREHENSIVE_TARGET])
    has_own = (pl.col("target") == OWN).any().over("model", "ratio")
    return comparison.filter((leading | ~has_own) & ~pl.col("model").str.ends_with(MATCHED))


def _cells(rows: pl.DataFrame, judged: str) -> list[tuple[str, str, str]]:
    """Model, target and ratio of the rows, in order: references, then ratio by ratio, the best on a task first."""
    values = rows.filter(against="", task=judged).select("model", "target", "ratio", "metric", "value")
    sign = pl.when(pl.col("metric").is_in(LOWER_IS_BETTER)).then(-1).otherwise(1)
    place = pl.col("model").replace_strict({BASE: 0, FULL: 1, RANDOM: 2}, default=3)
    cells = rows.select("model", "target", "ratio").unique().join(values, on=["model", "target", "ratio"], how="left")
    ordered = cells.with_columns(gain=sign * pl.col("value"), place=place).sort(
        "ratio", "place", "gain", "model", "target", descending=[False, False, True, False, False], nulls_last=True
    )
    return [(str(model), str(target), str(ratio)) for model, target, ratio, *_ in ordered.rows()]


def _with_interval(row: pl.DataFrame) -> str | Figure:
    if row.is_empty():
        return ""
    return Figure(f"{row['value'][0]:.3f}", f"[{row['low'][0]:.3f}, {row['high'][0]:.3f}]")


def _change(row: pl.DataFrame) -> str | Figure:
    if row.is_empty():
        return ""
    verdict = str(row["verdict"][0])
    interval = f"[{row['low'][0]:+.3f}, {row['high'][0]:+.3f}]"
    return Figure(f"{row['value'][0]:+.3f}", interval, verdict, SIGNS[verdict], verdict != "not told apart")


def foresight_table(foresight: pl.DataFrame) -> tuple[list[str], list[list[str | Figure]]]:
    """Header and rows of methods and controls by targets, best first, their mean before them where there are several.

    Args:
        foresight: Rows of `tables.FORESIGHT`.
    """
    main = main_foresight(foresight)
    targets = targets_in_order(main)
    rows: list[list[str | Figure]] = []
    for predictor, kind in _ordered(foresight).select("predictor", "kind").rows():
        own = [main.filter(predictor=predictor, kind=kind, target=target) for target in targets]
        rows.append([predictor_name(predictor, kind), *map(_correlation, own)])
    return ["method", *(target or MEAN for target in targets)], rows


def foresight_verdict(foresight: pl.DataFrame) -> str:
    """Which method foretells training best, and whether it is told apart from length alone; or ""."""
    methods = _ordered(foresight).filter(pl.col("correlation").is_not_null(), kind="method")
    if methods.is_empty():
        return ""
    best = methods.row(0, named=True)
    if best["correlation"] <= 0:
        return f"No method foretells training: the best, `{best['predictor']}`, has {_signed(best, '')}."
    return f"`{best['predictor']}` foretells training best: {_signed(best, '')}. {_against_length(best)}"


def _against_length(row: Mapping[str, Any]) -> str:
    if row["above_length_low"] is None:
        return "Whether it is better than length alone cannot be said."
    above = _signed(row, "above_length")
    if row["above_length_low"] > 0:
        return f"It is better than length alone, by {above}."
    return f"It is not told apart from length alone ({above}): a method that knows nothing else would do as well."


def _signed(row: Mapping[str, Any], name: str) -> Figure:
    """A figure of a row with its interval."""
    columns = (name, f"{name}_low", f"{name}_high") if name else ("correlation", "low", "high")
    value, low, high = (row[column] for column in columns)
    if low is None:
        return Figure(f"{value:+.2f}")
    return Figure(f"{value:+.2f}", f"[{low:+.2f}, {high:+.2f}]", told=not low <= 0 <= high)


def main_foresight(foresight: pl.DataFrame) -> pl.DataFrame:
    """A row a target and predictor: of all tasks together where a target has several."""
    several = foresight.filter(pl.col("task") == "")["target"].unique().to_list()
    return foresight.filter((pl.col("task") == "") | ~pl.col("target").is_in(several))


def targets_in_order(foresight: pl.DataFrame) -> list[str]:
    """Targets of `main_foresight`: first "", their mean, where there are several; last the comprehensive one."""
    return sorted(foresight["target"].unique().to_list(), key=lambda name: (name == COMPREHENSIVE_TARGET, name))


def _ordered(foresight: pl.DataFrame) -> pl.DataFrame:
    """A row a predictor, methods first and the best first: the mean over targets, or the only target's."""
    main = main_foresight(foresight)
    first = next(iter(targets_in_order(main)), "")
    return main.filter(target=first).sort(
        "kind", "correlation", "predictor", descending=[True, True, False], nulls_last=True
    )


def predictor_name(predictor: str, kind: str) -> str:
    """How people are shown a method or a control."""
    return predictor if kind == "method" else f"{predictor} (control)"


def _correlation(row: pl.DataFrame) -> str | Figure:
    if row.is_empty() or row["correlation"][0] is None:
        return "–"
    found, partial = _signed(row.row(0, named=True), ""), row["partial"][0]
    if partial is None:
        return found
    return replace(found, beside=f"given length {partial:+.2f}", short=f"| {partial:+.2f}")


def comparison_markdown(comparison: pl.DataFrame) -> str:
    """The comparison as tables in Markdown, one a metric."""
    tables = {metric: comparison_table(comparison, metric, True) for metric in sorted(comparison["metric"].unique())}
    parts = [f"**{as_text(metric)}**\n\n{_markdown(*table)}" for metric, table in tables.items()]
    return "\n\n".join(parts) or "nothing to compare"


def foresight_markdown(foresight: pl.DataFrame) -> str:
    """The foresight as a table in Markdown."""
    return _markdown(*foresight_table(foresight))


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str | Figure]]) -> str:
    cells = [[str(cell) if isinstance(cell, Figure) else as_text(cell) for cell in line] for line in (header, *rows)]
    lines = [cells[0], ["---"] * len(header), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str | Figure]], indent: str = "  ") -> list[str]:
    """A table as lines of text."""
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def curve_of_averages(proportions: pl.DataFrame) -> pl.DataFrame:
    """Of the curve, what is drawn: one metric, the average where there is one, and each task by its own models."""
    proportions = proportions.filter(~pl.col("model").str.ends_with(MATCHED))
    if proportions.is_empty():
        return proportions
    of_metric = proportions.filter(metric=sorted(proportions["metric"].unique())[0])
    task = "" if "" in set(of_metric["task"]) else sorted(of_metric["task"].unique())[0]
    drawn = of_metric.filter(task=task)
    return drawn.filter(pl.col("target").is_in(["", OWN])) if OWN in set(drawn["target"]) else drawn


def result_lines(recipe: Recipe, warehouse: Warehouse) -> list[str]:
    """What `nait summary` says first: what scores foretell, and what was measured; nothing without an evaluation.

    A run that was ended may have made the first and not yet the second: that is said.
    """
    wanted, lines = conclusions(recipe), []
    with warehouse.tables.snapshot() as tables:
        made = [output for output in wanted if output.key in {record.asset for record in tables.records().values()}]
        if FORESIGHT_OUTPUT in made:
            foresight = tables.read(FORESIGHT)
            (n_probes,) = foresight["n_probes"].unique().to_list()
            lines += [
                f"What scores foretell of training, over {n_probes} probes: rank correlation [95 %] | given the "
                "answers' length",
                *aligned(*foresight_table(foresight)),
                f"  {foresight_verdict(foresight)}".rstrip(),
                "",
            ]
        if COMPARISON_OUTPUT in made:
            comparison = tables.read(COMPARISON)
            for metric in sorted(comparison["metric"].unique()):
                lines += [
                    f"Models after training, {metric} [95 %]:",
                    *aligned(*comparison_table(comparison, metric)),
                    *(f"  {sentence}" for sentence in comparison_verdicts(comparison, metric)),
                    "",
                ]
    if lacking := [output.key for output in wanted if output not in made]:
        lines += [f"Not made yet, `nait run` does so: {', '.join(lacking)}", ""]
    return lines
