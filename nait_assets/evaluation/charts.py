"""Charts of results, as Vega-Lite specifications: one drawing for the page and for Dagster's metadata."""

from collections.abc import Iterator, Sequence

import polars as pl

from nait_assets.evaluation.measured import BASE, FULL, LOWER_IS_BETTER, MATCHED, RANDOM
from nait_assets.evaluation.shown import curve_of_averages, predictor_name
from nait_assets.evaluation.sizes import drawn_sizes
from nait_assets.plots import Spec, data, number, text

MOST_MAPS = 4  # side by side in metadata; the page has all
INK, SOFT, BAND = "#1b2733", "#5b6876", "#9aa5b1"
COLOURS = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#72b7b2", "#9d755d", "#eeca3b", "#ff9da6", "#439894",
)  # fmt: skip
"""Those of Vega's scheme `tableau10`, but its grey."""


def foresight_dots(foresight: pl.DataFrame, order: Sequence[str]) -> Spec:
    """Correlations of one target with their intervals, and given length.

    Args:
        foresight: Rows of `tables.FORESIGHT`, one a method or control.
        order: Methods and controls from above, as `predictor_name` has them.
    """
    names = [predictor_name(*one) for one in foresight.select("predictor", "kind").rows()]
    columns = ["kind", "correlation", "low", "high", "partial"]
    frame = foresight.select(columns).with_columns(name=pl.Series(names, dtype=pl.String)).drop_nulls("correlation")
    scale = {"domain": [-1, 1]}
    colour = {"condition": {"test": "datum.kind == 'control'", "value": SOFT}, "value": COLOURS[0]}
    told = [text("name"), *(number(name, format="+.2f") for name in columns[1:])]
    zero = {**data(pl.DataFrame({"zero": [0]})), "mark": {"type": "rule", "color": BAND}}
    layers = [
        {**zero, "encoding": {"x": number("zero", scale=scale)}},
        {"mark": {"type": "rule"}, "encoding": {"x": number("low", scale=scale, title=None), "x2": {"field": "high"}}},
        {"mark": {"type": "circle", "size": 60, "opacity": 1}, "encoding": {"x": number("correlation", scale=scale)}},
        {
            "mark": {"type": "point", "shape": "diamond", "size": 45, "fill": "white", "opacity": 1},
            "encoding": {"x": number("partial", scale=scale)},
        },
    ]
    for layer in layers[1:]:
        layer["encoding"] |= {"y": text("name", sort=list(order), title=None), "color": colour, "tooltip": told}
    return {**data(frame), "layer": layers, "width": 190, "height": 17 * max(2, len(frame))}


def proportion_curve(curve: pl.DataFrame) -> Spec:
    """Values by the share of the pool, a line a method, random's band, and the base's and the whole pool's value.

    Args:
        curve: Rows of `tables.PROPORTION_CURVE` of one metric and task.
    """
    ends = curve.filter(pl.col("model").is_in([BASE, FULL]))
    random = curve.filter(model=RANDOM)
    subsets = curve.filter(~pl.col("model").is_in([BASE, FULL]))
    names = subsets["model"].unique().sort().to_list()
    methods = [name for name in names if name != RANDOM]
    colours = [*(COLOURS[place % len(COLOURS)] for place in range(len(methods))), *([SOFT] if RANDOM in names else [])]
    domain = [*methods, *([RANDOM] if RANDOM in names else [])]
    colour = text(
        "model", title=None, scale={"domain": domain, "range": colours}, legend={"orient": "right", "symbolOpacity": 1}
    )
    x = number("share", title="share of the pool", scale={"zero": False}, axis={"format": "%", "tickCount": 6})
    y = {"title": curve["metric"][0], "scale": {"zero": False}}
    told = [text("model"), text("target"), *(number(name, format=".4g") for name in ("share", "value", "low", "high"))]
    rules = {"mark": {"type": "rule", "strokeDash": [5, 4], "color": INK}, "encoding": {"y": number("value", **y)}}
    names_of_rules = {
        "mark": {"type": "text", "align": "left", "dy": -6, "x": 3, "color": INK},
        "encoding": {"y": number("value", **y), "text": text("model")},
    }
    of_random = {"x": x, "y": number("low", **y), "y2": {"field": "high"}}
    layers = [
        {**data(random), "mark": {"type": "area", "color": BAND, "opacity": 0.3}, "encoding": of_random},
        {**data(ends), "layer": [rules, names_of_rules]},
        {**data(subsets), "mark": {"type": "line"}, "encoding": {"x": x, "y": number("value", **y), "color": colour}},
        {
            **data(subsets),
            "mark": {"type": "rule", "opacity": 0.45},
            "encoding": {**of_random, "color": colour, "tooltip": told},
        },
        {
            **data(subsets),
            "mark": {"type": "circle", "size": 55, "opacity": 1},
            "encoding": {"x": x, "y": number("value", **y), "color": colour, "tooltip": told},
        },
    ]
    return {"layer": layers, "width": 460, "height": 260}


def in_domain_size_curve(curve: pl.DataFrame) -> Spec:
    """Values by the number of in-domain examples, a line a method; across it what reads none, random with a band."""
    domain = curve["model"].unique().sort().to_list()
    legend = {"orient": "right", "symbolOpacity": 1, "symbolType": "stroke"}
    colour = text("model", title=None, scale={"domain": domain, "scheme": "tableau10"}, legend=legend)
    told = [text("model"), *(number(name, format=".4g") for name in ("n_in_domain", "value", "low", "high"))]
    y = {"title": curve["metric"][0] if len(curve) else "", "scale": {"zero": False}}
    x = number("n_in_domain", title="in-domain examples", scale={"type": "log"}, axis={"format": "d"})
    methods, flat = ([{"filter": f"datum.n_in_domain {sign} 0"}] for sign in (">", "=="))
    random = [{"filter": f"datum.model == '{RANDOM}'"}]
    value, low = number("value", **y), number("low", **y)
    high = {"y2": {"field": "high"}}
    layers = [
        {"transform": random, "mark": {"type": "rect", "opacity": 0.1}, "encoding": {"y": low, **high}},
        {"transform": flat, "mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"y": value, "tooltip": told}},
        {"transform": methods, "mark": {"type": "rule", "opacity": 0.5}, "encoding": {"x": x, "y": low, **high}},
        {
            "transform": methods,
            "mark": {"type": "line", "point": True},
            "encoding": {"x": x, "y": value, "tooltip": told},
        },
    ]
    return {**data(curve), "encoding": {"color": colour}, "layer": layers, "width": 420, "height": 220}


def transfer_map(transfer: pl.DataFrame, largest: float, lower_is_better: bool) -> Spec:
    """A method's models, each trained for a target, on the tasks of others; zero is white.

    Args:
        transfer: Rows of `tables.TRANSFERABILITY` of one method, ratio and metric.
        largest: Change that has the darkest colour, up or down.
        lower_is_better: Whether a fall is better, and so blue.
    """
    axes = {
        "x": text("task", title="task", axis={"labelAngle": -40}),
        "y": text("target", title="trained for"),
    }
    scale = {"scheme": "redblue", "domain": [-largest or -1, largest or 1], "reverse": lower_is_better}
    told = [text("target"), text("task"), *(number(name, format="+.3f") for name in ("value", "low", "high"))]
    dark = {"condition": {"test": f"abs(datum.value) > {0.6 * largest}", "value": "white"}, "value": INK}
    layers = [
        {
            "mark": "rect",
            "encoding": {"color": number("value", scale=scale, legend=None), "tooltip": [*told, text("verdict")]},
        },
        {
            "mark": {"type": "text", "fontSize": 10},
            "encoding": {"text": number("value", format="+.2f"), "color": dark},
        },
    ]
    width, height = (54 * max(2, transfer[name].n_unique()) for name in ("task", "target"))
    return {**data(transfer), "encoding": axes, "layer": layers, "width": width, "height": height // 2 + 30}


def transfer_maps(transfer: pl.DataFrame) -> Iterator[tuple[str, str, list[tuple[str, Spec]]]]:
    """Metric, ratio, and of each method its name and map, all on one scale of colours.

    Methods that choose the same rows for all targets have none, and draws of random rows.

    Args:
        transfer: Rows of `tables.TRANSFERABILITY`.
    """
    drawable = transfer.filter(
        ~pl.col("model").str.ends_with(MATCHED) & (pl.col("value") != 0).any().over("model", "ratio", "metric")
    )
    for (metric, ratio), of_ratio in sorted(drawable.group_by("metric", "ratio")):
        largest = float(of_ratio["value"].abs().max() or 0)  # type: ignore[arg-type]
        maps = [
            (str(model), transfer_map(rows, largest, metric in LOWER_IS_BETTER))
            for (model,), rows in sorted(of_ratio.group_by("model"))
        ]
        yield str(metric), str(ratio), maps


def first_transfer_maps(transfer: pl.DataFrame) -> Spec | None:
    """The maps of the first metric and ratio side by side, with the methods' names; None where there is none."""
    for metric, ratio, maps in transfer_maps(transfer):
        titled = [{**spec, "title": f"{model}, {metric}, ratio {ratio}"} for model, spec in maps[:MOST_MAPS]]
        return {"concat": titled, "columns": 2}
    return None


def first_size_curve(curve: pl.DataFrame) -> Spec | None:
    """The first curve by the number of in-domain examples, with what it is of; None where there is none."""
    for metric, target, ratio, rows in drawn_sizes(curve):
        return {**in_domain_size_curve(rows), "title": f"{target}, {metric}, ratio {ratio}"}
    return None


def curve_of_shares(proportions: pl.DataFrame) -> Spec | None:
    """The curve by share that `shown.curve_of_averages` chooses; None where nothing is in it."""
    curve = curve_of_averages(proportions)
    return None if curve.is_empty() else proportion_curve(curve)
