"""How comparisons and foresight are written for people: in metadata, by `nait summary`, and on the page."""

from collections.abc import Sequence

import polars as pl

from nait_assets.evaluation.catalogue import COMPARISON_OUTPUT, FORESIGHT_OUTPUT, conclusions
from nait_assets.evaluation.comparison import OWN
from nait_assets.evaluation.measured import FULL, RANDOM
from nait_assets.evaluation.tables import COMPARISON, FORESIGHT
from nait_assets.recipe import Recipe
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
    """Header and rows of methods and controls by targets, each with its correlation and the one given length.

    Args:
        foresight: Rows of `tables.FORESIGHT`.
    """
    joint = set(foresight.filter(task="")["target"])
    main = foresight.filter((pl.col("task") == "") | ~pl.col("target").is_in(list(joint)))
    targets = sorted(main["target"].unique().to_list(), key=lambda name: (name == "all", name))
    means = main.group_by("predictor", "kind").agg(pl.col("correlation").mean())
    order = means.sort("kind", "correlation", "predictor", descending=[True, True, False], nulls_last=True)
    rows = []
    for predictor, kind in order.select("predictor", "kind").rows():
        own = {target: main.filter(predictor=predictor, kind=kind, target=target) for target in targets}
        rows.append([predictor if kind == "method" else f"{predictor} (control)", *map(_correlation, own.values())])
    return ["", *targets], rows


def _correlation(row: pl.DataFrame) -> str:
    if row.is_empty() or row["correlation"][0] is None:
        return "–"
    ends = "" if row["low"][0] is None else f" [{row['low'][0]:+.2f}, {row['high'][0]:+.2f}]"
    partial = "" if row["partial"][0] is None else f" | {row['partial'][0]:+.2f}"
    return f"{row['correlation'][0]:+.2f}{ends}{partial}"


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
