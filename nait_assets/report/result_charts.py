"""Charts of trainings, as Vega-Lite specifications."""

from collections.abc import Mapping, Sequence

import polars as pl

from nait_assets.evaluation.charts import COLOURS, SOFT
from nait_assets.plots import Spec, data, number, text


def target_colours(targets: Sequence[str]) -> dict[str, str]:
    """A colour for each target, and one for what has none."""
    return {**{name: COLOURS[place % len(COLOURS)] for place, name in enumerate(targets)}, "": SOFT}


def loss_curves(curves: pl.DataFrame, colours: Mapping[str, str], bounds: tuple[float, float]) -> Spec:
    """Losses by epoch, a line a model.

    Args:
        curves: Columns `run`, `target`, `epoch`, `loss`.
        colours: As `target_colours` gives them.
        bounds: Lowest and highest loss of the axis.
    """
    n_lines = curves["run"].n_unique()
    scale = {"domain": list(colours), "range": list(colours.values())}
    encoding = {
        "x": number("epoch", scale={"domainMin": 0}, axis={"tickCount": 4}),
        "y": number("loss", scale={"domain": list(bounds), "nice": True, "zero": False}, axis={"tickCount": 5}),
        "color": text("target", scale=scale, legend=None),
        "detail": text("run"),
        "tooltip": [text("run")],
    }
    mark: Spec = {"type": "line", "strokeWidth": 1.5 if n_lines <= 10 else 1, "opacity": 0.85 if n_lines <= 10 else 0.5}
    mark |= {"point": {"size": 14}} if len(curves) <= 2 * n_lines else {}
    drawn = curves.select("run", "target", pl.col("epoch", "loss").round(4))
    return {**data(drawn), "mark": mark, "encoding": encoding, "width": 230, "height": 130}
