"""How comparisons and foresight are written for people: in metadata, by `nait summary`, and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from nait_assets.evaluation.catalogue import COMPARISON_OUTPUT, FORESIGHT_OUTPUT, conclusions
from nait_assets.evaluation.comparison import OWN
from nait_assets.evaluation.measured import FULL, RANDOM
from nait_assets.evaluation.tables import COMPARISON, FORESIGHT
from nait_assets.recipe import COMPREHENSIVE_TARGET, Recipe
from nait_assets.resources import Warehouse

MARKS = {"better": "better", "worse": "worse", "not told apart": "="}


def comparison_table(comparison: pl.DataFrame, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the models on all tasks of a metric, with the change against full and random.

    Args:
        comparison: Rows of `tables.COMPARISON`.
        metric: Metric of the tasks.
    """
    of_metric = comparison.filter(pl.col("metric") == metric)
    tasks = sorted(task for task in of_metric["task"].unique() if task)
    several = "" in set(of_metric["task"])
    columns = [*tasks, *([""] if several else [])]
    against = [name for name in (FULL, RANDOM) if name in set(of_metric["against"])]
    header = ["model", "target", "ratio", "n", *tasks, *(["average"] if several else [])]
    header += [f"against {name}" for name in against]
    rows = []
    cells = of_metric.select("model", "target", "ratio").unique().sort("ratio", "model", "target")
    for model, target, ratio in cells.rows():
        own = of_metric.filter(model=model, target=target, ratio=ratio)
        values = {task: own.filter(task=task, against="") for task in columns}
        told = [_with_interval(values[task]) for task in columns]
        told += [_change(own.filter(task="" if several else tasks[0], against=name)) for name in against]
        rows.append([model, target, ratio, str(own["n_models"].max()), *told])
    return header, rows


def _with_interval(row: pl.DataFrame) -> str:
    if row.is_empty():
        return ""
    return f"{row['value'][0]:.3f} [{row['low'][0]:.3f}, {row['high'][0]:.3f}]"


def _change(row: pl.DataFrame) -> str:
    if row.is_empty():
        return ""
    return f"{row['value'][0]:+.3f} [{row['low'][0]:+.3f}, {row['high'][0]:+.3f}] {MARKS[row['verdict'][0]]}"


def foresight_table(foresight: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of methods and controls by targets, best first, their mean before them where there are several.

    Args:
        foresight: Rows of `tables.FORESIGHT`.
    """
    main = _of_targets(foresight)
    targets = sorted(main["target"].unique().to_list(), key=lambda name: (name == COMPREHENSIVE_TARGET, name))
    rows = []
    for predictor, kind in _ordered(foresight).select("predictor", "kind").rows():
        own = [main.filter(predictor=predictor, kind=kind, target=target) for target in targets]
        rows.append([predictor if kind == "method" else f"{predictor} (control)", *map(_correlation, own)])
    return ["", *(target or "mean" for target in targets)], rows


def foresight_verdict(foresight: pl.DataFrame) -> str:
    """Which method foretells training best, and whether it is told apart from the length of the answers; or ""."""
    methods = _ordered(foresight).filter(pl.col("correlation").is_not_null(), kind="method")
    if methods.is_empty():
        return ""
    best = methods.row(0, named=True)
    return f"`{best['predictor']}` foretells training best: {_signed(best, '')}. {_against_length(best)}"


def _against_length(row: Mapping[str, Any]) -> str:
    above = _signed(row, "above_length")
    if row["above_length_low"] is None:
        return "Whether it is better than the answers' length alone cannot be said."
    if row["above_length_low"] > 0:
        return f"It is better than the answers' length alone, by {above}."
    return (
        f"It is not told apart from the answers' length alone ({above}): a method that knows length would do as well."
    )


def _signed(row: Mapping[str, Any], name: str) -> str:
    """A figure of a row with its interval."""
    columns = (name, f"{name}_low", f"{name}_high") if name else ("correlation", "low", "high")
    value, low, high = (row[column] for column in columns)
    return f"{value:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")


def _of_targets(foresight: pl.DataFrame) -> pl.DataFrame:
    """A row a target and predictor: of all tasks together where a target has several."""
    several = foresight.filter(pl.col("task") == "")["target"].unique().to_list()
    return foresight.filter((pl.col("task") == "") | ~pl.col("target").is_in(several))


def _ordered(foresight: pl.DataFrame) -> pl.DataFrame:
    """A row a predictor, methods first and the best first: the mean over targets, or the only target's."""
    main = _of_targets(foresight)
    targets = main["target"].unique().to_list()
    of = "" if "" in targets else min(targets, key=lambda name: (name == COMPREHENSIVE_TARGET, name), default="")
    return main.filter(target=of).sort(
        "kind", "correlation", "predictor", descending=[True, True, False], nulls_last=True
    )


def _correlation(row: pl.DataFrame) -> str:
    if row.is_empty() or row["correlation"][0] is None:
        return "–"
    partial = "" if row["partial"][0] is None else f" | {row['partial'][0]:+.2f}"
    return _signed(row.row(0, named=True), "") + partial


def as_markdown(comparison: pl.DataFrame) -> str:
    """The comparison as tables in Markdown, one a metric."""
    parts = []
    for metric in sorted(comparison["metric"].unique()):
        header, rows = comparison_table(comparison, metric)
        lines = [header, ["---"] * len(header), *rows]
        parts.append(f"**{metric}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) or "nothing to compare"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """A table as lines of text."""
    widths = [max(len(line[place]) for line in (header, *rows)) for place in range(len(header))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    ]


def curve_of_averages(proportions: pl.DataFrame) -> pl.DataFrame:
    """Of the curve, what is drawn: one metric, the average where there is one, and each task by its own models."""
    if proportions.is_empty():
        return proportions
    of_metric = proportions.filter(metric=sorted(proportions["metric"].unique())[0])
    task = "" if "" in set(of_metric["task"]) else sorted(of_metric["task"].unique())[0]
    drawn = of_metric.filter(task=task)
    return drawn.filter(pl.col("target").is_in(["", OWN])) if OWN in set(drawn["target"]) else drawn


def result_lines(recipe: Recipe, warehouse: Warehouse) -> list[str]:
    """What `nait summary` says first: what scores foretell, and what was measured; nothing without an evaluation.

    Raises:
        WarehouseError: Something has not been made.
    """
    made, lines = conclusions(recipe), []
    with warehouse.tables.snapshot() as tables:
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
                    "",
                ]
    return lines
