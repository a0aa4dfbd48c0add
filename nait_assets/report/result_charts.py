"""Charts of results, as Vega-Lite specifications: values by ratio and by number of examples, and transfer."""

import polars as pl

from nait_assets.report.charts import Spec, data, number, text


def proportion_curve(curve: pl.DataFrame) -> Spec:
    """Values by the share of the pool, a line a model, with intervals; the base and the whole pool are at the ends."""
    domain = curve["model"].unique().sort().to_list()
    colour = text("model", title=None, scale={"domain": domain, "scheme": "tableau20"}, legend={"orient": "right"})
    share = number("share", title="share of the pool")
    told = [text("model"), text("target"), *(number(name, format=".4g") for name in ("share", "value", "low", "high"))]
    y = {"title": curve["metric"][0] if len(curve) else "", "scale": {"zero": False}}
    layers = [
        {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {"y": number("low", **y), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True}, "encoding": {"y": number("value", **y), "tooltip": told}},
    ]
    return {**data(curve), "encoding": {"x": share, "color": colour}, "layer": layers, "width": 420, "height": 220}


def in_domain_size_curve(curve: pl.DataFrame) -> Spec:
    """Values by the number of in-domain examples, a line a method; what reads none is a line with a band across."""
    domain = curve["model"].unique().sort().to_list()
    colour = text("model", title=None, scale={"domain": domain, "scheme": "tableau20"}, legend={"orient": "right"})
    told = [text("model"), *(number(name, format=".4g") for name in ("n_in_domain", "value", "low", "high"))]
    y = {"title": curve["metric"][0] if len(curve) else "", "scale": {"zero": False}}
    x = number("n_in_domain", title="in-domain examples", scale={"type": "log"}, axis={"format": "d"})
    methods, flat = ([{"filter": f"datum.n_in_domain {sign} 0"}] for sign in (">", "=="))
    value, low = number("value", **y), number("low", **y)
    high = {"y2": {"field": "high"}}
    layers = [
        {"transform": flat, "mark": {"type": "rect", "opacity": 0.1}, "encoding": {"y": low, **high}},
        {"transform": flat, "mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"y": value, "tooltip": told}},
        {"transform": methods, "mark": {"type": "rule", "opacity": 0.5}, "encoding": {"x": x, "y": low, **high}},
        {
            "transform": methods,
            "mark": {"type": "line", "point": True},
            "encoding": {"x": x, "y": value, "tooltip": told},
        },
    ]
    return {**data(curve), "encoding": {"color": colour}, "layer": layers, "width": 420, "height": 220}


def transfer_map(transfer: pl.DataFrame) -> Spec:
    """A method's models, each trained for a target, on the tasks of others; zero is white."""
    axes = {
        "x": text("task", title="task", axis={"labelAngle": -40}),
        "y": text("target", title="trained for"),
    }
    colour = number("value", scale={"scheme": "redblue", "domainMid": 0}, legend=None)
    told = [text("target"), text("task"), *(number(name, format="+.3f") for name in ("value", "low", "high"))]
    layers = [
        {"mark": "rect", "encoding": {"color": colour, "tooltip": [*told, text("verdict")]}},
        {"mark": {"type": "text", "fontSize": 10}, "encoding": {"text": number("value", format="+.2f")}},
    ]
    width, height = (54 * max(2, transfer[name].n_unique()) for name in ("task", "target"))
    return {**data(transfer), "encoding": axes, "layer": layers, "width": width, "height": height // 2 + 30}
