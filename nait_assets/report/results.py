"""Sections of the page on what training does: what scores foretell of it, and models side by side."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from nait_assets.evaluation.shown import comparison_table, curve_of_averages, foresight_table, foresight_verdict
from nait_assets.evaluation.sizes import drawn_sizes
from nait_assets.evaluation.tables import (
    COMPARISON,
    FORESIGHT,
    IN_DOMAIN_SIZE_CURVE,
    PROPORTION_CURVE,
    TRANSFERABILITY,
)
from nait_assets.report import result_charts
from nait_assets.report.sections import Charts, Section


def result_sections(results: Mapping[str, pl.DataFrame], drawn: Charts) -> list[Section]:
    """The sections, in order; none where nothing was trained."""
    found = []
    if FORESIGHT.name in results:
        found.append(_foresight(results[FORESIGHT.name]))
    if COMPARISON.name in results and len(results[COMPARISON.name]):
        found.append(_models(results, drawn))
    return found


def _foresight(foresight: pl.DataFrame) -> Section:
    header, rows = foresight_table(foresight)
    (n_probes,) = foresight["n_probes"].unique().to_list() or [0]
    notes = [
        f"Rank correlation over {n_probes} probes, small subsets of the pool that no method chose, between the mean "
        "rank of a probe's rows by a method and how far a model that is trained on them lowers the loss on the "
        "target's tasks, with its interval of 95 %. 1: the method puts them in the order in which they help; 0: it "
        "knows nothing. Behind the bar: the same given the number of answer tokens, which long answers raise by "
        "themselves; a method whose figure is near 0 there knows nothing but length.",
        *([verdict] if (verdict := foresight_verdict(foresight)) else []),
    ]
    return Section(
        "foresight",
        "Foresight",
        "What scores foretell",
        "Are the rows to which a method gives high scores those from which a model learns?",
        notes,
        tables=[{"title": "", "header": ["method", *header[1:]], "rows": rows, "notes": []}],
    )


def _models(results: Mapping[str, pl.DataFrame], drawn: Charts) -> Section:
    comparison = results[COMPARISON.name]
    section = Section(
        "models",
        "Models",
        "Models after training",
        "Is a model that was trained on a subset better than one trained on all rows, or on random ones?",
        [
            "Intervals are of 95 %, by resampling examples, and seeds or draws where there are several (`n`). A change "
            "whose interval holds 0 is not told apart (`=`). `(own)`: each task by the model of its own target. The "
            "changes are of the average, or of the only task. A lower loss is better."
        ],
    )
    for metric in sorted(comparison["metric"].unique()):
        header, rows = comparison_table(comparison, metric)
        section.tables.append({"title": str(metric), "header": header, "rows": rows, "notes": []})
    section.groups += _figures(results, drawn)
    return section


def _figures(results: Mapping[str, pl.DataFrame], drawn: Charts) -> list[dict[str, Any]]:
    groups = []
    curve = curve_of_averages(results[PROPORTION_CURVE.name])
    if curve["share"].n_unique() > 2:
        figure = drawn.figure("By the share of the pool", result_charts.proportion_curve(curve))
        groups.append({"title": "", "figures": [figure], "wide": True})
    if IN_DOMAIN_SIZE_CURVE.name in results:
        figures = [
            drawn.figure(f"{target}, {metric}, ratio {ratio}", result_charts.in_domain_size_curve(rows))
            for metric, target, ratio, rows in drawn_sizes(results[IN_DOMAIN_SIZE_CURVE.name])
        ]
        title = "By the number of in-domain examples; dashed, with a band: what reads none"
        groups.append({"title": title, "figures": figures, "wide": True})
    transfer = results[TRANSFERABILITY.name]
    for (metric, ratio), of_ratio in sorted(transfer.group_by("metric", "ratio")):
        figures = [
            drawn.figure(str(model), result_charts.transfer_map(rows))
            for (model,), rows in sorted(of_ratio.group_by("model"))
        ]
        groups.append({"title": f"Change of `{metric}` from the task's own model, ratio {ratio}", "figures": figures})
    return groups
