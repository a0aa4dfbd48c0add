"""The page in a browser, from a file and without a network: what people see, and that it works."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nait_assets_tests.chromium import headless_chromium
from nait_assets_tests.report.pages import HOSTILE, HOSTILE_TOPIC, page_of
from nait_assets_tests.small_home import small_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with headless_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small home, with hostile texts."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "index.html"
    path.write_text(page_of(small_recipe(folder), folder / "home", HOSTILE).html, encoding="utf-8", newline="\n")
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, drawn; what it complained of and asked for is in `page.heard`."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("request", lambda request: page.heard.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=60_000)
    yield page
    page.close()


def texts(page: Any, column: int) -> list[str]:
    """A column of the table's rows."""
    return page.locator(f"#rows tbody tr.row td:nth-child({column})").all_text_contents()


def found(page: Any, n_rows: int) -> None:
    """Wait until the table says that it has found so many rows."""
    page.wait_for_function(f"document.getElementById('found').textContent === '{n_rows} rows'")


def test_the_page_opens_from_a_file_without_asking_for_anything(page: Any, file: Path) -> None:
    """No message, no error, and one request: for the file itself."""
    assert page.heard == [file.as_uri()]


def test_every_chart_is_drawn(page: Any) -> None:
    """An empty frame where a chart should be is what a wrong specification looks like; folded ones once they open."""
    folded = page.locator("details:not([open]) [data-chart]").count()
    assert folded
    assert page.locator("details:not([open]) [data-chart] svg").count() == 0
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    is_drawn = "one => one.querySelector('svg, canvas')"
    page.wait_for_function(f"[...document.querySelectorAll('[data-chart]')].every({is_drawn})")
    drawn = page.eval_on_selector_all(
        "[data-chart]", "all => all.map(one => one.querySelectorAll('svg, canvas').length)"
    )
    assert len(drawn) > 20
    assert set(drawn) == {1}
    visible = page.locator("[data-chart]:visible svg").evaluate_all("all => all.map(one => one.getBBox().width)")
    assert visible
    assert min(visible) > 50


def test_no_text_of_a_candidate_runs_or_becomes_an_element(page: Any) -> None:
    """Not in the page's text, not in the table, not in what a click opens."""
    page.locator("#rows tbody tr.row").first.click()
    assert page.locator(".detail").count() == 1
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, b[onmouseover]").count() == 0
    assert HOSTILE.strip() in page.locator(".detail p").first.text_content()
    assert HOSTILE_TOPIC in page.locator("#rows tbody tr.row").first.text_content()
    assert HOSTILE_TOPIC in page.locator("#extremes tbody tr").first.text_content()


def test_the_search_shows_rows_that_contain_what_was_typed(page: Any) -> None:
    """Nine choices, three for each target; the id of one candidate finds its own, and clearing brings all back."""
    found(page, 9)
    wanted = texts(page, 6)[0].split("question ")[1]
    page.fill("#filter-text", f"QUESTION {wanted}")
    page.wait_for_function("document.getElementById('found').textContent !== '9 rows'")
    assert texts(page, 6)
    assert all(f"question {wanted}" in text for text in texts(page, 6))
    page.fill("#filter-text", "no candidate says this")
    found(page, 0)
    assert texts(page, 6) == []
    page.fill("#filter-text", "")
    found(page, 9)


def test_target_and_ratio_filter_the_rows(page: Any) -> None:
    """Three rows of ten at ratio 0.30 and one at 0.10, in the order of their ranks."""
    page.select_option("#filter-target", label="math")
    found(page, 3)
    assert texts(page, 2) == ["math"] * 3
    assert texts(page, 1) == ["1", "2", "3"]
    page.select_option("#filter-ratio", label="0.10")
    found(page, 1)
    page.select_option("#filter-target", label="every target")
    found(page, 3)
    assert texts(page, 2) == ["code", "math", "all"]


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(page: Any) -> None:
    """The best score first, as nobody looks for the worst of the best."""
    heading = page.locator('#rows th[data-sort="score"]')
    heading.click()
    scores = [float(text) for text in texts(page, 3)]
    assert scores == sorted(scores, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.click()
    assert [float(text) for text in texts(page, 3)] == sorted(scores)


def test_the_ratio_at_the_top_picks_the_charts(page: Any) -> None:
    """Every ratio at once would be three times as many charts as anybody compares."""
    shown = "all => all.filter(one => !one.hidden).map(one => one.dataset.ratio)"
    assert set(page.eval_on_selector_all("figure[data-ratio]", shown)) == {"0.10"}
    page.select_option("#ratio", label="0.30")
    assert set(page.eval_on_selector_all("figure[data-ratio]", shown)) == {"0.30"}


def test_a_narrow_window_does_not_scroll_sideways(page: Any) -> None:
    """Wide tables and charts scroll by themselves; the text stays where it can be read."""
    page.set_viewport_size({"width": 380, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
