"""The page's charts, as Vega-Lite specifications.

They are written out rather than built with Altair, which takes 50 ms to check each one, and numbers what it names.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from nait_assets import plots
from nait_assets.models import cuts
from nait_assets.plots import Spec, data, number, text

BAR, CUT, CHANCE, GREY = "#4c78a8", "#f58518", "#d62728", "#cfd3d8"
SHADES = ("#67000d", "#cb181d", "#fb6a4a", "#fc9272", "#fcbba1")
CELL = 34  # pixels of a heat map's cell
PERCENT = {"format": "%", "tickCount": 5}


def score_histogram(scores: pl.Series, thresholds: Mapping[str, float]) -> Spec:
    """How often each score occurs, with the score of the last chosen row of each ratio."""
    colours = ratio_colours(list(thresholds))
    bars = {**data(plots.bins(scores)), "mark": {"type": "bar", "color": BAR}, "encoding": _bins("score", ".4g")}
    rules = [
        {
            **data(pl.DataFrame({"threshold": [value], "ratio": [ratio]})),
            "mark": {"type": "rule", "size": 2, "color": colours[ratio]},
            "encoding": {"x": number("threshold"), "tooltip": [text("ratio"), number("threshold", format=".4g")]},
        }
        for ratio, value in thresholds.items()
    ]
    return {"layer": [bars, *rules], "width": 230, "height": 90}


def ratio_colours(ratios: Sequence[str]) -> dict[str, str]:
    """The colour of each ratio's threshold; the smallest one is the darkest."""
    return {ratio: SHADES[min(index, len(SHADES) - 1)] for index, ratio in enumerate(ratios)}


def length_histogram(samples: pl.DataFrame, max_tokens: int) -> Spec:
    """How many tokens the candidates have, those that were cut in another colour."""
    import numpy as np

    counted = plots.bins(samples["n_tokens"].cast(pl.Float64))
    edges = [*counted["begin"].to_list(), counted["end"][-1]]
    n_cut = pl.Series("cut", np.histogram(samples.filter(cuts.is_cut())["n_tokens"].to_numpy(), bins=edges)[0])
    whole, cut = "read whole", f"cut to {max_tokens} tokens"
    stacked = pl.concat(
        [
            counted.select("begin", "end", (pl.col("count") - n_cut).alias("count"), kind=pl.lit(whole)),
            counted.select("begin", "end", n_cut.alias("count"), kind=pl.lit(cut)),
        ]
    )
    colour = {"domain": [whole, cut], "range": [BAR, CUT]}
    encoding = {**_bins("tokens", ".0f"), "color": text("kind", title=None, scale=colour, legend={"orient": "top"})}
    encoding["tooltip"] = [*encoding["tooltip"], text("kind")]
    return {**data(stacked), "mark": "bar", "encoding": encoding, "width": "container", "height": 160}


def heat_map(matrix: pl.DataFrame) -> Spec:
    """Overlap of every pair; columns as `overlap.overlap_matrix` has them."""
    selections = matrix["one"].unique(maintain_order=True).to_list()
    scale = {"scheme": "blues", "domain": [0, 1]}
    cells = {
        "mark": "rect",
        "encoding": {
            "color": number("overlap", scale=scale, legend=None),
            "tooltip": [text("one"), text("other"), number("overlap", format=".1%")],
        },
    }
    dark = {"condition": {"test": "datum.overlap > 0.55", "value": "white"}, "value": "#1b2733"}
    numbers = {
        "mark": {"type": "text", "fontSize": 10},
        "encoding": {"text": number("overlap", format=".0%"), "color": dark},
    }
    axes = {
        "x": text("one", sort=selections, title=None, axis={"labelAngle": -40}),
        "y": text("other", sort=selections, title=None),
    }
    size = CELL * max(2, len(selections))
    return {**data(matrix), "encoding": axes, "layer": [cells, numbers], "width": size, "height": size}


def core_bars(core: pl.DataFrame, by_chance: float) -> Spec:
    """Overlap of each capability's subset with the comprehensive one, and what chance would give."""
    bars = {
        **data(core),
        "mark": {"type": "bar", "color": BAR},
        "encoding": {
            "y": text("capability", title=None, sort=None),
            "x": number("overlap", title="shared with all", scale={"domain": [0, 1]}, axis=PERCENT),
            "tooltip": [text("capability"), number("overlap", format=".1%")],
        },
    }
    chance = {
        **data(pl.DataFrame({"chance": [by_chance]})),
        "mark": {"type": "rule", "color": CHANCE, "strokeDash": [4, 3]},
        "encoding": {"x": number("chance")},
    }
    return {"layer": [bars, chance], "width": 210, "height": max(60, 20 * len(core))}


def occurrence_bars(counts: pl.DataFrame) -> Spec:
    """In how many capabilities' subsets the chosen rows occur; columns as `overlap.occurrences` has them."""
    encoding = {
        "x": {
            **text("n_selections", title="capabilities that choose a row", axis={"labelAngle": 0}),
            "type": "ordinal",
        },
        "y": number("share", title="of the chosen rows", scale={"domain": [0, 1]}, axis=PERCENT),
        "tooltip": [number("n_selections"), number("n_rows"), number("share", format=".1%")],
    }
    mark = {"type": "bar", "color": BAR}
    return {**data(counts), "mark": mark, "encoding": encoding, "width": max(130, 26 * len(counts)), "height": 120}


def candidate_map(points: pl.DataFrame, capabilities: Sequence[str]) -> Spec:
    """The candidates in the plane, with the capabilities among them.

    Args:
        points: Columns `x`, `y`, `kind` (candidate, example, centroid), `target` (None where none chose it), `text`.
        capabilities: Capabilities in the order of their colours.
    """
    scheme = "tableau10" if len(capabilities) <= 10 else "tableau20"
    legend = {"orient": "top", "titleOrient": "left", "columns": 4, "symbolOpacity": 1}
    colour = text("target", title="chosen for", legend=legend, scale={"domain": list(capabilities), "scheme": scheme})
    label = {"type": "text", "dy": -15, "fontWeight": "bold", "fontSize": 12}
    layers = [
        ("candidate", {"type": "circle", "color": GREY, "size": 18, "opacity": 0.8}, False, {}),
        ("candidate", {"type": "circle", "size": 26, "opacity": 0.85}, True, {"color": colour}),
        ("example", {"type": "point", "shape": "triangle-up", "size": 36, "strokeWidth": 1.2}, True, {"color": colour}),
        (
            "centroid",
            {"type": "point", "shape": "cross", "size": 220, "filled": True, "stroke": "black", "strokeWidth": 1.2},
            True,
            {"color": colour},
        ),
        ("centroid", {**label, "stroke": "white", "strokeWidth": 4}, True, {"text": text("target")}),
        ("centroid", {**label, "color": "#111111"}, True, {"text": text("target")}),
    ]
    axes = {axis: number(axis, axis=None, scale={"zero": False}) for axis in ("x", "y")}
    return {
        **data(points),
        "encoding": {**axes, "tooltip": [text("target"), text("kind"), text("text")]},
        "layer": [
            {
                "transform": [{"filter": f"datum.kind == '{kind}' && isValid(datum.target) == {str(chosen).lower()}"}],
                "mark": mark,
                "encoding": encoding,
            }
            for kind, mark, chosen, encoding in layers
        ],
        "width": "container",
        "height": 520,
        "usermeta": {"renderer": "canvas"},  # thousands of points are slow as elements of the page
    }


def _bins(title: str, form: str) -> Spec:
    """Encoding of `plots.bins`."""
    return {
        "x": number("begin", bin={"binned": True}, title=title, axis={"tickCount": 5}),
        "x2": {"field": "end"},
        "y": number("count", title="candidates", axis={"tickCount": 4}),
        "tooltip": [number("begin", format=form), number("end", format=form), number("count")],
    }
