"""What a person sees first: what scores foretell, what training does, how it went and what it cost."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from nait_assets import plots
from nait_assets.evaluation import charts
from nait_assets.evaluation.tables import PROPORTION_CURVE, TRANSFERABILITY
from nait_assets.plots import MOST_MARKS
from nait_assets.report.contents import build_page
from nait_assets.report.page_data import PageData
from nait_assets_tests.report.pages import HOSTILE
from nait_assets_tests.report.results import page_data_with_results, results
from nait_assets_tests.report.test_page import Elements, data_of
from nait_assets_tests.test_plots import svg_of, text_of

OF_TRAINING = ("foresight", "models", "proportions", "transfer", "losses")


@pytest.fixture
def page_data(tmp_path: Path) -> PageData:
    """A page with everything that a training brings."""
    return page_data_with_results(tmp_path)


def sections(html: str) -> dict[str, str]:
    """The sections of a page by their ids, in order."""
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', html, re.DOTALL))


def text(html: str) -> str:
    """What a person reads of it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_what_training_does_stands_first(page_data: PageData) -> None:
    """It decides which method to trust; how the scores came about is for later. The bar at the top names it all."""
    html = build_page(page_data).html
    assert tuple(sections(html))[:6] == (*OF_TRAINING, "cost")
    bar = re.search(r"<nav>(.*?)</nav>", html, re.DOTALL)
    assert bar
    assert set(re.findall(r'href="#(\w+)"', bar.group(1))) == set(sections(html))


def test_without_a_training_there_is_none_of_it(page_data: PageData) -> None:
    """An empty table would say that there is nothing to see where there is nothing to look for."""
    bare = replace(page_data, results={}, trainings=None, prices=None)
    found = sections(build_page(bare).html)
    assert not set(OF_TRAINING) & set(found)
    assert "Training" not in text(found["cost"])
    assert "money" not in text(found["cost"])


def test_foresight_has_a_row_a_method_and_a_column_a_target(page_data: PageData) -> None:
    """With interval, the same given length, and the controls beside."""
    found = sections(build_page(page_data).html)["foresight"]
    header, *rows = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    assert text(header).split() == ["method", "exam", "all"]
    assert [text(row).split()[0] for row in rows] == ["nait", "random", "tokens"]
    assert text(rows[0]).split() == ["nait", *("+0.50 [+0.30, +0.70] given length +0.25 " * 2).split()]
    assert '<span class="told">+0.50' in rows[0]
    assert '<span class="told">' not in rows[2]
    assert "(control)" in rows[2]
    assert "nait foretells training best: +0.50 [+0.30, +0.70]. It is better than length alone, by" in text(found)


def test_the_comparison_says_in_words_what_can_be_told(page_data: PageData) -> None:
    """Interval, seeds and verdict beside every change."""
    found = text(sections(build_page(page_data).html)["models"])
    assert "against full against random" in found
    assert "nait exam 0.10 2 -0.500 [-0.700, -0.200] -0.500 [-0.700, -0.200] better" in found


def test_dagster_shows_the_pages_own_drawings(page_data: PageData) -> None:
    """One drawing, for metadata as an SVG: with the references, one map a method, and no mean over metrics."""
    drawn = data_of(build_page(page_data).html)["charts"]
    found = page_data.results
    curve, maps = (
        charts.curve_of_shares(found[PROPORTION_CURVE.name]),
        charts.first_transfer_maps(found[TRANSFERABILITY.name]),
    )
    assert curve in drawn
    assert maps is not None
    assert all({name: part for name, part in one.items() if name != "title"} in drawn for one in maps["concat"])
    assert {"share of the pool", "base", "full_reference", "nait"} <= text_of(svg_of(plots.picture(curve)))
    assert {"nait, exam, ratio 0.10", "random, exam, ratio 0.10"} <= text_of(svg_of(plots.picture(maps)))
    empty = found[TRANSFERABILITY.name].clear(), found[PROPORTION_CURVE.name].clear()
    assert charts.first_transfer_maps(empty[0]) is charts.curve_of_shares(empty[1]) is None


def test_every_training_is_one_line_however_many_steps_it_had(page_data: PageData) -> None:
    """Small multiples by method on one scale; models that targets share are drawn once."""
    data = data_of(build_page(page_data).html)
    curves = [spec for spec in data["charts"] if spec.get("encoding", {}).get("x", {}).get("field") == "epoch"]
    lines = [{value["run"] for value in spec["data"]["values"]} for spec in curves]
    assert [len(runs) for runs in lines] == [4, 2, 1]
    assert "exam 0.10, math 0.10 no. 0" in lines[1]
    assert len({str(spec["encoding"]["y"]["scale"]["domain"]) for spec in curves}) == 1
    assert max(len(spec["data"]["values"]) / len(runs) for spec, runs in zip(curves, lines, strict=True)) <= MOST_MARKS


def test_costs_say_what_is_measured_and_what_is_scaled(page_data: PageData) -> None:
    """Table 4: an estimate for another pool is not a measurement."""
    found = text(sections(build_page(page_data).html)["cost"])
    assert "Scaled: not measured, but what was measured on 10 candidates times 100.0" in found
    assert "nait_model 0.10 4 10 100 8,000 80.0 100 3.00 GB 80.0000" in found
    assert "all together 7 10 100 14,000 140.0 100 3.00 GB" in found  # of 9 rows, as two share two models


def test_no_name_of_a_result_becomes_markup(tmp_path: Path) -> None:
    """Tasks, metrics and targets may come from files that somebody else wrote."""
    hostile = build_page(page_data_with_results(tmp_path / "hostile", HOSTILE)).html
    plain = build_page(page_data_with_results(tmp_path / "plain", "exam")).html
    assert [tag for tag, _ in Elements(hostile).found] == [tag for tag, _ in Elements(plain).found]
    assert not {name for _, attributes in Elements(hostile).found for name in attributes if name.startswith("on")}


def test_many_methods_are_folded(tmp_path: Path) -> None:
    """A page of fifty charts one below the other is a page that nobody reads to its end."""
    page_data = page_data_with_results(tmp_path)
    assert len(page_data.methods) > 1
    scores = sections(build_page(page_data).html)["scores"]
    folded = re.findall(r'<details class="fold"><summary>(.*?)</summary>', scores)
    assert folded == page_data.methods[1:]


def test_a_map_of_nothing_but_zeros_is_left_out(page_data: PageData) -> None:
    """A method that chooses the same rows for all targets has nothing to transfer."""
    found = results("exam", ("nait", "random"))
    table = "evaluation.transferability"
    zeros = found[table].with_columns(value=0.0)
    html = build_page(replace(page_data, results={**found, table: zeros})).html
    assert "transfer" not in sections(html)
