"""The page as text: what is on it, what is cut, and that nothing of a candidate becomes markup."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nait_assets.audit.why import why
from nait_assets.audit.why_text import text_of
from nait_assets.report.contents import Page, build_page
from nait_assets.report.page import embedded_json
from nait_assets.report.page_data import read
from nait_assets.report.rows import excerpts, table_rows
from nait_assets_tests.report.pages import HOSTILE, home_with_subsets, page_of
from nait_assets_tests.small_home import small_recipe


class Elements(HTMLParser):
    """The elements of a page with their attributes, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))


def data_of(html: str) -> dict[str, Any]:
    """What the page's script reads."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert match
    return json.loads(match.group(1))


def test_the_page_names_nothing_outside_of_itself(tmp_path: Path) -> None:
    """It is opened years later, on a plane, from a mail: what it would have to fetch is what it will lack."""
    elements = Elements(page_of(small_recipe(tmp_path), tmp_path / "home").html).found
    assert [tag for tag, _ in elements if tag in {"link", "img", "iframe", "object", "embed", "base"}] == []
    named = [value for _, attributes in elements for name, value in attributes.items() if name in {"src", "href"}]
    assert [value for value in named if not (value or "").startswith("#")] == []
    (policy,) = [a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'; script-src 'unsafe-eval' 'sha256-")
    assert "'unsafe-inline'" not in (policy or "").split("style-src")[0]


def test_no_text_of_a_candidate_becomes_markup(tmp_path: Path) -> None:
    """Pools are scraped from anywhere, and a report is opened with the rights of who opens it."""
    recipe = small_recipe(tmp_path)
    hostile = page_of(recipe, tmp_path / "hostile", HOSTILE).html
    plain = page_of(recipe, tmp_path / "plain", "harmless", "harmless").html
    assert [tag for tag, _ in Elements(hostile).found] == [tag for tag, _ in Elements(plain).found]
    assert not {name for _, attributes in Elements(hostile).found for name in attributes if name.startswith("on")}
    assert "49\u2028" not in hostile  # nor a template
    questions = [candidate[4] for candidate in data_of(hostile)["table"]["candidates"]]
    assert questions
    assert all(question.startswith(HOSTILE) for question in questions)  # and it is still what the candidate says


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "\u2028\u2029", "é", '"\\'])
def test_embedded_json_says_the_same_and_ends_no_element(text: str) -> None:
    """`<!--` matters as much as `</script>`: together with `<script` it swallows the rest of the page."""
    written = embedded_json({"text": [text]})
    assert json.loads(written) == {"text": [text]}
    assert not set("<>&\u2028\u2029") & set(written)


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    """Its hash is its version: a page that names its charts by a counter would be new at every run."""
    recipe = small_recipe(tmp_path)
    warehouse = home_with_subsets(recipe, tmp_path / "home")
    assert build_page(read(recipe, warehouse)).html == build_page(read(recipe, warehouse)).html


def test_every_section_says_which_question_it_answers(tmp_path: Path) -> None:
    """A chart that nobody asked for is noise."""
    html = page_of(small_recipe(tmp_path), tmp_path / "home").html
    sections = re.findall(r"<section.*?</section>", html, re.DOTALL)
    assert len(sections) == 11
    assert all('class="question">' in section and "?" in section for section in sections)


def test_the_table_holds_each_choice_with_its_rank_and_score(tmp_path: Path) -> None:
    """What the page shows is what the subsets hold: three rows of ten at 0.30, one at 0.10, for each target."""
    recipe = small_recipe(tmp_path)
    page_data = read(recipe, home_with_subsets(recipe, tmp_path / "home"))
    data = table_rows(page_data).data
    shown = {
        (data["targets"][place], data["candidates"][number][0]): (rank, score)
        for place, number, rank, score, _ in data["choices"]
    }
    for target in recipe.targets:
        scores = page_data.scores["nait_standardized", target]
        best = {(target, row[0]): (row[2], float(f"{row[1]:.5g}")) for row in
                scores.sort("rank").head(3).select("sample_id", "score", "rank").iter_rows()}  # fmt: skip
        assert {key: value for key, value in shown.items() if key[0] == target} == best
    assert {rank: ratios for _, _, rank, _, ratios in data["choices"]} == {1: 0b11, 2: 0b10, 3: 0b10}


def test_the_table_knows_each_ratio_s_rows_where_they_are_no_beginning_of_the_larger_ones(tmp_path: Path) -> None:
    """By facility location the row of 0.10 need not be among those of 0.30, and none of them the best by score."""
    recipe = small_recipe(tmp_path)
    page_data = read(recipe, home_with_subsets(recipe, tmp_path / "home"))
    order = page_data.scores["nait_standardized", "math"].sort("rank")["sample_id"].to_list()
    subsets = {("nait_standardized", "math", "0.10"): [order[4]], ("nait_standardized", "math", "0.30"): order[1:4]}
    data = table_rows(replace(page_data, subsets={**page_data.subsets, **subsets})).data
    place = data["targets"].index("math")
    assert {choice[2]: choice[4] for choice in data["choices"] if choice[0] == place} == {2: 2, 3: 2, 4: 2, 5: 1}


def test_a_table_without_room_keeps_the_best_ranks_and_says_what_it_cut(tmp_path: Path) -> None:
    """Alpaca at 0.30 has 15,600 rows for each target; a page that no browser opens shows none of them."""
    recipe = small_recipe(tmp_path)
    page_data = read(recipe, home_with_subsets(recipe, tmp_path / "home"))
    whole = table_rows(page_data)
    size = sum(len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in whole.data["candidates"][:2])
    cut = table_rows(page_data, most_bytes=size)
    assert (whole.n_kept, cut.n_kept, cut.n_chosen) == (whole.n_chosen, 2, whole.n_chosen)
    assert cut.data["candidates"] == whole.data["candidates"][:2]
    assert {rank for _, number, rank, *_ in whole.data["choices"] if number < 2} >= {1}
    assert {number for _, number, *_ in cut.data["choices"]} == {0, 1}


def test_neurons_are_those_of_the_explanation_and_only_of_the_recommended_method(tmp_path: Path) -> None:
    """The page and `nait explain` must not give two reasons for one row, nor a reason where there is none."""
    recipe = small_recipe(tmp_path)
    page_data = read(recipe, home_with_subsets(recipe, tmp_path / "home"))
    assert set(page_data.explanations) == {
        (target, name) for target in recipe.targets for name in page_data.subsets["nait_standardized", target, "0.30"]
    }
    (target, name), explanation = next(iter(page_data.explanations.items()))
    reason = explanation.reasons[0]
    home = home_with_subsets(recipe, tmp_path / "again")
    assert f"  {reason.label}  {reason.detail}" in text_of(why(recipe, home, name, target, 1)).splitlines()
    assert read(recipe.model_copy(update={"methods": ("random",)}), home).explanations == {}


def test_a_recipe_without_a_model_has_a_page_without_what_only_a_model_says(tmp_path: Path) -> None:
    """`random` alone reads no activations: there is nothing to map, no tokens to count and no neuron to name."""
    recipe = small_recipe(tmp_path)
    warehouse = home_with_subsets(recipe, tmp_path / "home")
    page: Page = build_page(read(recipe.model_copy(update={"methods": ("random",)}), warehouse))
    assert "No method of this recipe reads the candidates with a model" in page.html
    assert 'id="map"' not in page.html
    assert 'id="methods"' not in page.html
    assert page.n_on_map == 0
    assert data_of(page.html)["table"]["reasons"] == {}


@pytest.mark.parametrize(
    ("messages", "question", "answer"),
    [
        (
            [("system", "s"), ("user", "why?"), ("assistant", "so"), ("user", "and?"), ("assistant", "yes")],
            "why?",
            "yes",
        ),
        ([("user", "x" * 20)], "x" * 9 + "…", ""),
        ([("system", "s")], "", ""),
    ],
)
def test_an_excerpt_is_the_first_question_and_the_last_answer(
    messages: list[tuple[str, str]], question: str, answer: str
) -> None:
    """A system message is the same for a whole pool, and tells rows apart no better than an empty cell."""
    parts = [{"role": role, "content": content} for role, content in messages]
    assert excerpts(parts, 10) == (question, answer)
