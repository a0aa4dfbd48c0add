"""Pictures in metadata: real SVG, small enough for an event log."""

import base64
import re
from xml.etree import ElementTree

import dagster as dg
import numpy as np
import polars as pl
import pytest

from nait_assets import plots

MOST_BYTES = 50_000


def svg_of(value: dg.MetadataValue) -> ElementTree.Element:
    """The picture inside a Markdown value, parsed."""
    assert isinstance(value, dg.MarkdownMetadataValue)
    markdown = value.md_str or ""
    assert len(markdown) < MOST_BYTES
    match = re.fullmatch(r"!\[plot\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert match, markdown[:80]
    root = ElementTree.fromstring(base64.b64decode(match.group(1)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return root


def text_of(root: ElementTree.Element) -> set[str]:
    """Every label of a picture."""
    return {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}


def n_marks(root: ElementTree.Element, kind: str) -> int:
    """How many marks of a kind a picture draws, axes apart."""
    groups = [group for group in root.iter("{http://www.w3.org/2000/svg}g")]
    return sum(len(group) for group in groups if {f"mark-{kind}", "role-mark"} <= set(group.get("class", "").split()))


@pytest.mark.parametrize("n_layers", [1, 30, 126], ids=str)
def test_a_line_is_a_small_svg_however_many_layers(n_layers: int) -> None:
    """126 layers is the largest open model; every byte stays in Dagster's event log for good."""
    values = np.random.default_rng(0).normal(size=n_layers)
    labels = text_of(svg_of(plots.line(pl.DataFrame({"layer": range(n_layers), "norm": values}), "layer", "norm")))
    assert {"layer", "norm"} <= labels


@pytest.mark.parametrize(("n_lines", "n_steps"), [(1, 20_000), (3, 12), (32, 12), (200, 1000)])
def test_loss_curves_are_a_small_svg_however_many_and_long(n_lines: int, n_steps: int) -> None:
    """A training of days must not fail because of the picture of its losses."""
    steps = pl.DataFrame({"step": range(n_steps), "loss": np.linspace(3, 1, n_steps)})
    frame = pl.concat([steps.with_columns(number=pl.lit(number)) for number in range(n_lines)])
    assert {"step", "loss"} <= text_of(svg_of(plots.lines(frame, "step", "loss", "number")))
    assert {"step", "loss"} <= text_of(svg_of(plots.line(frame.filter(number=0), "step", "loss")))


def test_no_output_fails_for_its_picture() -> None:
    """Twenty models at thirty shares are too much for an event log; the asset's table has them."""
    many = pl.DataFrame({"share": range(600), "value": range(600)})
    encoding = {"x": plots.number("share"), "y": plots.number("value"), "color": plots.text("share")}
    spec = {**plots.data(many), "mark": "circle", "encoding": encoding}
    assert str(plots.picture(spec).value).startswith("not drawn: the picture would have ")


def test_a_thinned_line_has_the_means_of_neighbours() -> None:
    """Of every line by itself, in order; a short one stays as it is."""
    frame = pl.DataFrame({"key": ["a"] * 4 + ["b"], "step": [4, 3, 2, 1, 1], "loss": [1.0, 3.0, 5.0, 7.0, 9.0]})
    found = plots.thinned(frame, "step", "loss", by="key", most=2)
    assert found.rows() == [("a", 1.5, 6.0), ("a", 3.5, 2.0), ("b", 1.0, 9.0)]
    whole = plots.thinned(frame.filter(key="a"), "step", "loss", most=4)
    assert whole.rows() == [(1, 7.0), (2, 5.0), (3, 3.0), (4, 1.0)]


def test_a_line_without_values_is_still_a_picture() -> None:
    """A direction that comes from a feature file has no explained variance."""
    frame = pl.DataFrame({"layer": [0, 1], "norm": [None, None]}, schema={"layer": pl.Int16, "norm": pl.Float64})
    svg_of(plots.line(frame, "layer", "norm"))


def test_a_histogram_shows_every_value_and_every_threshold() -> None:
    """Where a ratio cuts the scores is what a person looks for."""
    scores = np.random.default_rng(0).normal(size=1000)
    root = svg_of(plots.histogram(pl.DataFrame({"score": scores}), "score", {"0.10": 1.3, "0.30": 0.5}))
    assert {"score", "count", "0.10", "0.30"} <= text_of(root)
    assert n_marks(root, "rect") == 40
    assert n_marks(root, "rule") == 2


@pytest.mark.parametrize("n_ratios", [0, 5, 20, 40], ids=str)
def test_a_histogram_is_a_small_svg_however_many_ratios(n_ratios: int) -> None:
    """A recipe with many ratios must not fail because of its picture."""
    frame = pl.DataFrame({"score": np.random.default_rng(0).normal(size=1000)})
    svg_of(plots.histogram(frame, "score", {f"{0.01 * n:.2f}": n / n_ratios for n in range(1, n_ratios + 1)}))


@pytest.mark.parametrize(
    "scores",
    [[0.5], [0.0] * 5, [0.5, np.nextafter(0.5, 1)], [-2e9, np.nextafter(-2e9, 1)]],
    ids=["one", "zeros", "neighbours", "large neighbours"],
)
def test_a_histogram_of_scores_that_hardly_differ_is_a_picture(scores: list[float]) -> None:
    """Between neighbouring floats there is no room for 40 bins, and a picture must not fail the scores."""
    svg_of(plots.histogram(pl.DataFrame({"score": scores}), "score", {"0.10": scores[0]}))


def test_the_bins_of_a_histogram_hold_every_value_once() -> None:
    """The report draws the same bins; a value on the last edge belongs to the last bin."""
    counted = plots.bins(pl.Series([0.0, 1.0, 1.5, 4.0]), n_bins=4)
    assert counted["count"].to_list() == [1, 2, 0, 1]
    assert counted["begin"].to_list() == [0.0, 1.0, 2.0, 3.0]
    assert counted["end"][-1] == 4.0


def test_a_histogram_of_nothing_says_so() -> None:
    """A capability all of whose examples the model refused has no lengths, and its step must say why it failed."""
    assert (
        plots.histogram(pl.DataFrame({"n_tokens": []}, {"n_tokens": pl.Int32}), "n_tokens").value == "nothing to count"
    )
