"""Small pictures for metadata: drawn with Altair, stored as SVG inside Markdown, so that the Dagster UI shows them."""

import base64
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

if TYPE_CHECKING:
    import altair as alt

MOST_BYTES = 50_000  # every byte of metadata lies in Dagster's event log


def line(frame: pl.DataFrame, x: str, y: str) -> dg.MetadataValue:
    """One quantity along another, for example by layer."""
    import altair as alt

    return _picture(alt.Chart(frame.select(x, y)).mark_line(point=True).encode(x=alt.X(x), y=alt.Y(y)))


def histogram(frame: pl.DataFrame, column: str, thresholds: dict[str, float] | None = None) -> dg.MetadataValue:
    """How often each value occurs, with a rule at each threshold."""
    import altair as alt
    import numpy as np

    counts, edges = np.histogram(frame[column].to_numpy(), bins=40)
    bins = pl.DataFrame({column: edges[:-1], "end": edges[1:], "count": counts})
    chart = alt.Chart(bins).mark_bar().encode(x=alt.X(column, bin="binned", title=column), x2="end", y="count")
    if thresholds:
        rules = pl.DataFrame({column: list(thresholds.values()), "ratio": list(thresholds)})
        chart = chart + alt.Chart(rules).mark_rule(size=2).encode(x=column, color="ratio")
    return _picture(chart)


def _picture(chart: "alt.Chart | alt.LayerChart") -> dg.MetadataValue:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(chart.properties(width=420, height=160).to_json()).encode()
    assert len(svg) <= MOST_BYTES, f"a picture of {len(svg)} bytes"
    return dg.MetadataValue.md(f"![plot](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})")
