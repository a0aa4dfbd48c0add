"""Sections of the page on what training does: what scores foretell of it, and models side by side."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from nait_assets.evaluation import charts
from nait_assets.evaluation.shown import (
    MEAN,
    comparison_table,
    comparison_verdicts,
    curve_of_averages,
    foresight_table,
    foresight_verdict,
    leading_rows,
    main_foresight,
    targets_in_order,
)
from nait_assets.evaluation.sizes import drawn_sizes
from nait_assets.evaluation.tables import (
    COMPARISON,
    FORESIGHT,
    IN_DOMAIN_SIZE_CURVE,
    PROPORTION_CURVE,
    TRANSFERABILITY,
)
from nait_assets.report.sections import Charts, Section


def result_sections(results: Mapping[str, pl.DataFrame], drawn: Charts) -> list[Section]:
    """The sections, in order; none where nothing was trained."""
    found = []
    if FORESIGHT.name in results and len(results[FORESIGHT.name]):
        found.append(_foresight(results[FORESIGHT.name], drawn))
    if COMPARISON.name in results and len(results[COMPARISON.name]):
        found.append(_models(results[COMPARISON.name]))
        found += _proportions(results[PROPORTION_CURVE.name], drawn)
        if IN_DOMAIN_SIZE_CURVE.name in results:
            found += _sizes(results[IN_DOMAIN_SIZE_CURVE.name], drawn)
        found += _transfer(results[TRANSFERABILITY.name], drawn)
    return found


def _foresight(foresight: pl.DataFrame, drawn: Charts) -> Section:
    header, rows = foresight_table(foresight)
    main = main_foresight(foresight)
    (n_probes,) = foresight["n_probes"].unique().to_list()
    notes = [
        f"Rank correlation over {n_probes} probes, small subsets of the pool that no method chose, between the mean "
        "rank of a probe's rows by a method and how far a model that is trained on them lowers the loss on the "
        "target's tasks, with its interval of 95 %; bold where that does not hold 0. 1: the method puts them in the "
        "order in which they help; 0: it knows nothing.",
        "`given length` is the same with the number of answer tokens and the answers' rank by length taken out of "
        "both, as length by itself decides much: a method whose figure is near 0 there knows nothing else. Controls "
        "are lengths by themselves.",
    ]
    order = [str(row[0]) for row in rows]
    first, *others = [
        drawn.figure(target or MEAN, charts.foresight_dots(main.filter(target=target), order))
        for target in targets_in_order(main)
    ]
    return Section(
        "foresight",
        "Foresight",
        "What scores foretell",
        "Are the rows to which a method gives high scores those from which a model learns?",
        notes,
        groups=[
            {"title": "As a chart: dots are correlations, diamonds those given length", "figures": [first]},
            *([{"title": "each target", "figures": others, "folded": True}] if others else []),
        ],
        tables=[{"title": "", "header": header, "rows": rows, "notes": [], "first": True}],
        findings=list(filter(None, [foresight_verdict(foresight)])),
    )


def _models(comparison: pl.DataFrame) -> Section:
    section = Section(
        "models",
        "Models",
        "Models after training",
        "Is a model that was trained on a subset better than one trained on all rows, or on random ones?",
        [
            "With intervals of 95 %, by resampling examples, and seeds or draws where there are several. A change "
            "whose interval holds 0 is not told apart. `(own)`: each task by the model of its own target. The changes "
            "are of the average, or of the only task. A lower loss is better. Where nothing differs one figure in "
            "twenty is told apart by chance."
        ],
    )
    for metric in sorted(comparison["metric"].unique()):
        section.findings += comparison_verdicts(comparison, metric)
        header, rows = comparison_table(comparison, metric)
        section.tables.append({"title": str(metric), "header": header, "rows": rows, "notes": []})
        if len(leading_rows(comparison)) < len(comparison):
            header, rows = comparison_table(comparison, metric, every_target=True)
            title = f"{metric}, the models of every target"
            section.tables.append({"title": title, "header": header, "rows": rows, "notes": [], "folded": True})
    return section


def _proportions(proportions: pl.DataFrame, drawn: Charts) -> list[Section]:
    curve = curve_of_averages(proportions)
    subsets = curve.filter((pl.col("share") > 0) & (pl.col("share") < 1))
    if subsets["share"].n_unique() < 2:
        return []
    figure = drawn.figure(str(curve["metric"][0]), charts.proportion_curve(curve))
    section = Section(
        "proportions",
        "By share",
        "By the share of the pool",
        "How many rows are enough? (arXiv 2603.13201, figure 2)",
        [
            "The average over the tasks, or the only task, each by the model of its own target. Lines across are the "
            "base without training and the whole pool; the grey band is the interval of random rows."
        ],
        [{"title": "", "figures": [figure], "wide": True}],
    )
    return [section]


def _sizes(curve: pl.DataFrame, drawn: Charts) -> list[Section]:
    figures = [
        drawn.figure(f"{target}, {metric}, ratio {ratio}", charts.in_domain_size_curve(rows))
        for metric, target, ratio, rows in drawn_sizes(curve)
    ]
    if not figures:
        return []
    section = Section(
        "sizes",
        "By examples",
        "By the number of in-domain examples",
        "How many examples of a capability are enough to choose by? (arXiv 2603.13201, figure 3)",
        ["Dashed: the base, the whole pool and random rows, whose band is their interval; they read no example."],
        [{"title": "", "figures": figures[:1], "wide": True}],
    )
    if len(figures) > 1:
        section.groups.append({"title": "the others", "figures": figures[1:], "wide": True, "folded": True})
    return [section]


def _transfer(transfer: pl.DataFrame, drawn: Charts) -> list[Section]:
    groups: list[dict[str, Any]] = []
    for metric, ratio, maps in charts.transfer_maps(transfer):
        figures = [drawn.figure(model, spec) for model, spec in maps]
        groups.append({"title": f"{metric}, ratio {ratio}", "figures": figures, "folded": bool(groups)})
    if not groups:
        return []
    notes = [
        "The result of the model of one target (row) on the task of another (column), less that of the task's own "
        "model: blue is better, red worse. Methods that choose the same rows for all targets have no map."
    ]
    question = "Does training for one capability help another? (arXiv 2603.13201, equation 9 and figure 5)"
    return [Section("transfer", "Transfer", "Transfer between targets", question, notes, groups)]
