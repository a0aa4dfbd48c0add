"""Small pictures for metadata: drawn with Altair, stored as SVG inside Markdown, so that the Dagster UI shows them.

What the page draws too is a Vega-Lite specification, written out with `data`, `number` and `text`.
"""

import base64
import json
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
MOST_BYTES = 50_000  # every byte of metadata lies in Dagster's event log
MOST_MARKS = 40  # points of a line, and half as many ratios in a legend: more are neither legible nor small
MOST_POINTS = 200  # of a line without points


def line(frame: pl.DataFrame, x: str, y: str) -> dg.MetadataValue:
    """One quantity along another, for example by layer or step."""
    import altair as alt

    mark = alt.MarkDef(type="line", point=len(frame) <= MOST_MARKS)
    return _picture(alt.Chart(thinned(frame, x, y, most=MOST_POINTS), mark=mark).encode(x=alt.X(x), y=alt.Y(y)))


def lines(frame: pl.DataFrame, x: str, y: str, name: str) -> dg.MetadataValue:
    """One quantity along another, a line for each name: colours where there are a few, else thin grey lines."""
    import altair as alt

    if frame.is_empty():
        return dg.MetadataValue.md("nothing to draw")
    names = frame[name].unique(maintain_order=True).to_list()
    names_drawn = names[:MOST_MARKS]
    most = min(MOST_MARKS, MOST_POINTS * 3 // len(names_drawn))
    drawn = alt.Chart(thinned(frame.filter(pl.col(name).is_in(names_drawn)), x, y, by=name, most=most))
    drawn = drawn.encode(x=alt.X(x), y=alt.Y(y, scale=alt.Scale(zero=False)))
    if len(names) <= MOST_MARKS // 4:
        return _picture(drawn.mark_line().encode(color=alt.Color(name, type="nominal")))
    grey = drawn.mark_line(color="#5b6876", opacity=0.4, strokeWidth=1)
    return _picture(grey.encode(detail=alt.Detail(name, type="nominal")))


def thinned(frame: pl.DataFrame, x: str, y: str, by: str | None = None, most: int = MOST_MARKS) -> pl.DataFrame:
    """At most so many points a line, each the mean of as many neighbours: columns `by`, `x`, `y`, in order.

    Args:
        frame: Points of one line, or of several.
        x: Column along which they lie.
        y: Column of their height.
        by: Column that tells lines apart; all points are one line where there is none.
        most: Points of a line.
    """
    names = [by] if by else []
    place, n = pl.int_range(pl.len()), pl.len()
    if by:
        place, n = place.over(by), n.over(by)
    bins = pl.when(n > most).then(place * most // n).otherwise(place)
    ordered = frame.select(*names, x, y).sort(*names, x).with_columns(bins.alias("_bin"))
    return ordered.group_by(*names, "_bin", maintain_order=True).agg(pl.col(x, y).mean()).drop("_bin")


def bins(values: pl.Series, n_bins: int = 40) -> pl.DataFrame:
    """How many values lie in each of some bins of equal width: columns `begin`, `end`, `count`."""
    import numpy as np

    numbers = values.to_numpy()
    low, high = float(numbers.min()), float(numbers.max())
    if high - low < 1e-9 * max(abs(low), abs(high)):  # floats this close have no room for 40 bins between them
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    counts, edges = np.histogram(numbers, bins=n_bins, range=(low, high))
    return pl.DataFrame({"begin": edges[:-1], "end": edges[1:], "count": counts})


def histogram(
    frame: pl.DataFrame, column: str, thresholds: dict[str, float] | None = None, legend_title: str = "ratio"
) -> dg.MetadataValue:
    """How often each value occurs, with a rule at each threshold."""
    import altair as alt

    if frame.is_empty():
        return dg.MetadataValue.md("nothing to count")
    counted = bins(frame[column]).rename({"begin": column})
    chart = alt.Chart(counted).mark_bar().encode(x=alt.X(column, bin="binned", title=column), x2="end", y="count")
    if thresholds:
        rules = pl.DataFrame({column: list(thresholds.values()), legend_title: list(thresholds)})
        legend = alt.Undefined if len(thresholds) <= MOST_MARKS // 2 else None
        chart = chart + alt.Chart(rules).mark_rule(size=2).encode(
            x=column, color=alt.Color(legend_title, legend=legend)
        )
    return _picture(chart)


def picture(spec: Spec) -> dg.MetadataValue:
    """A chart of the page, as it is there."""
    return _svg(json.dumps(spec))


def data(frame: pl.DataFrame) -> Spec:
    """The rows that a chart or a layer of it draws."""
    return {"data": {"values": frame.to_dicts()}}


def number(name: str, **options: Any) -> Spec:
    """Encoding of a column of numbers."""
    return {"field": name, "type": "quantitative", **options}


def text(name: str, **options: Any) -> Spec:
    """Encoding of a column of names."""
    return {"field": name, "type": "nominal", **options}


def _picture(chart: "alt.Chart | alt.LayerChart") -> dg.MetadataValue:
    return _svg(chart.properties(width=420, height=160).to_json())


def _svg(spec: str) -> dg.MetadataValue:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec).encode()
    drawn = f"![plot](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"
    if len(drawn) > MOST_BYTES:  # of many models, say: no output fails for its picture
        drawn = f"not drawn: the picture would have {len(drawn):,} bytes"
    return dg.MetadataValue.md(drawn)
