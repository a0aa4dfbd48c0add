"""Comparisons: intervals against scipy, verdicts that hold, averages of the same tasks, transfer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import bootstrap

from nait_assets.evaluation.bootstrap import Draws, interval
from nait_assets.evaluation.comparison import OWN, compared, means_of, proportions, transferred, with_own
from nait_assets.evaluation.measured import Cell, Measure, Measured
from nait_assets.evaluation.shown import (
    Figure,
    comparison_markdown,
    comparison_table,
    comparison_verdicts,
    result_lines,
)
from nait_assets.evaluation.tables import COMPARISON
from nait_assets.lineage import Record
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets_tests.command import nait
from nait_assets_tests.evaluation.recipes import trained_recipe

N = 60
EXAM, QUIZ = Measure("exam", "loss"), Measure("quiz", "loss")


@pytest.fixture
def measured() -> Measured:
    """Losses of two tasks: a method that is better than random on exam, and hardly different from the whole pool."""
    rng = np.random.default_rng(1)
    hard = {EXAM: rng.gamma(2, 1, N), QUIZ: rng.gamma(2, 1, N)}
    better = {"math": 0.3, "code": 0.1}

    def of(shift: float, n_models: int = 1) -> dict[Measure, np.ndarray]:
        return {one: values + shift + 0.05 * rng.normal(size=(n_models, N)) for one, values in hard.items()}

    values = {Cell("base", "", ""): of(1.0), Cell("full_reference", "", ""): of(0.0)}
    values[Cell("random_reference", "", "0.10")] = of(0.3, 3)
    for target, gain in better.items():
        values[Cell("nait", target, "0.10")] = of(0.3 - gain, 2)
    weights = {EXAM: np.ones(N), QUIZ: rng.integers(1, 9, N).astype(float)}
    return Measured(values, weights)


def table(measured: Measured) -> pl.DataFrame:
    """The comparison."""
    means = with_own(means_of(measured), {"exam": "math", "quiz": "code"})
    return compared(means, measured.n_models(), measured.n_examples())


def test_an_interval_is_that_of_a_paired_bootstrap() -> None:
    """As scipy's, of differences over the same examples."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=N)
    other = one + 0.1 + 0.2 * rng.normal(size=N)
    draws = Draws.of(np.ones(N))
    value, low, high = interval(draws.means(other[None], 1) - draws.means(one[None], 2))
    wanted = bootstrap((other - one,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(5))
    assert value == pytest.approx((other - one).mean(), abs=1e-6)
    assert (low, high) == pytest.approx(tuple(wanted.confidence_interval), abs=0.01)


def test_several_models_widen_an_interval() -> None:
    """Two seeds that disagree are less certain than their mean over many examples."""
    values = np.stack([np.zeros(N), np.ones(N)])
    _, low, high = interval(Draws.of(np.ones(N)).means(values, 1))
    assert (low, high) == pytest.approx((0.0, 1.0))


def test_verdicts_say_what_can_be_told(measured: Measured) -> None:
    """Lower losses are better; a change whose interval holds 0 is none."""
    found = table(measured)
    verdicts = {
        (row["target"], row["task"], row["against"]): row["verdict"] for row in found.filter(model="nait").to_dicts()
    }
    assert verdicts["math", "exam", "random_reference"] == verdicts["math", "exam", "base"] == "better"
    assert verdicts["math", "exam", "full_reference"] == "not told apart"
    assert verdicts["code", "exam", "full_reference"] == "worse"
    assert verdicts[OWN, "", "random_reference"] == "better"
    own = found.filter(model="nait", target=OWN, against="")
    exam = found.filter(model="nait", target="math", task="exam", against="")
    assert own.filter(task="exam")["value"].item() == exam["value"].item()
    average = own.filter(pl.col("task") != "")["value"].mean()
    assert own.filter(task="")["value"].item() == pytest.approx(average)
    assert set(found.filter(model="random_reference")["n_models"]) == {3}
    assert own.filter(task="")["n_examples"].item() == 2 * N
    assert found.equals(table(measured))
    assert "| nait | (own) | 0.10 | 2 |" in comparison_markdown(found)


def test_the_table_begins_with_the_references_and_then_has_the_best_first(measured: Measured) -> None:
    """What a person reads first: what there is to beat, and which model did so; models of one target are left out."""
    values = dict(measured.values)
    matched, bm25 = Cell("nait_random_matched", "math", "0.10"), [Cell("bm25", one, "0.10") for one in ("math", "code")]
    values |= {one: values[Cell("base", "", "")] for one in (matched, *bm25)}
    found = table(Measured(values, measured.weights))
    header, rows = comparison_table(found, "loss")
    assert header[:5] == ["model", "target", "ratio", "seeds", "average"]
    assert header[5:] == ["against full", "against random", "against length-matched", "exam", "quiz"]
    assert [row[:3] for row in rows] == [
        ["base", "", ""],
        ["full_reference", "", ""],
        ["random_reference", "", "0.10"],
        ["nait", OWN, "0.10"],
        ["bm25", OWN, "0.10"],
    ]
    _, every = comparison_table(found, "loss", every_target=True)
    assert {tuple(row[:2]) for row in every} >= {("nait", "math"), ("nait", "code"), ("nait_random_matched", "math")}
    assert comparison_verdicts(found, "loss") == ["loss, ratio 0.10, against random rows: better: nait; worse: bm25."]
    random = rows[3][6]
    assert isinstance(random, Figure)
    assert (random.beside, random.told) == ("better", True)
    assert str(random) == f"{random.value} {random.interval} better"


def test_a_target_trained_for_alone_is_shown_with_its_average(measured: Measured) -> None:
    """`(own)` would have one of two tasks, no average, and no change from anything."""
    values = {cell: own for cell, own in measured.values.items() if cell.target != "code"}
    alone = Measured(values, measured.weights)
    means = with_own(means_of(alone), {"exam": "math"})
    found = compared(means, alone.n_models(), alone.n_examples())
    assert OWN not in set(found["target"])
    _, rows = comparison_table(found, "loss")
    assert rows[-1][:3] == ["nait", "math", "0.10"]
    assert all(isinstance(cell, Figure) for cell in rows[-1][4:7])
    assert comparison_verdicts(found, "loss") == ["loss, ratio 0.10, against random rows: better: nait [math]."]


def test_a_single_example_tells_nothing_apart(measured: Measured) -> None:
    """Every resample is that example: an interval without width is no certainty."""
    values = {cell: {one: array[:1, :1] for one, array in own.items()} for cell, own in measured.values.items()}
    single = Measured(values, {one: weights[:1] for one, weights in measured.weights.items()})
    assert set(table(single)["verdict"]) == {"", "not told apart"}
    transfer = transferred(means_of(single), {"exam": "math", "quiz": "code"}, single.n_examples())
    assert set(transfer["verdict"]) == {"not told apart"}


def test_names_stay_text_in_their_cells() -> None:
    """Metrics of lm-eval have the names that their authors gave them, and Dagster's page shows Markdown."""
    rows = [("base", "", "", "a|b\nc", "![x](http://y)<b>", "", 0.5, 0.4, 0.6, "", 1, 9)]
    text = comparison_markdown(pl.DataFrame(rows, schema=COMPARISON.columns, orient="row"))
    title, _, header, rule, row = text.splitlines()
    assert title == r"**\!\[x\](http://y)\<b>**"
    assert header == r"| model | target | ratio | seeds | a\|b c |"
    assert rule.count("|") == row.count("|") == 6


def test_a_value_is_the_mean_by_the_weights_of_examples(measured: Measured) -> None:
    """Nats a token: an answer of eight tokens counts eight times."""
    values = measured.values[Cell("base", "", "")][QUIZ][0]
    found = table(measured).filter(model="base", task="quiz", against="")
    assert found["value"].item() == pytest.approx(np.average(values, weights=measured.weights[QUIZ]), rel=1e-5)


def test_transfer_is_the_difference_from_the_tasks_own_model(measured: Measured) -> None:
    """Equation 9, zero on its own task."""
    found = transferred(means_of(measured), {"exam": "math", "quiz": "code"}, measured.n_examples())
    of = {(row["target"], row["task"]): row for row in found.to_dicts()}
    assert of["math", "exam"]["value"] == of["code", "quiz"]["value"] == 0
    assert of["code", "exam"]["value"] == pytest.approx(0.2, abs=0.05)
    assert (of["code", "exam"]["verdict"], of["math", "quiz"]["verdict"]) == ("worse", "better")


def test_the_curve_begins_with_the_base_and_ends_with_the_whole_pool(measured: Measured) -> None:
    """Figure 2."""
    found = proportions(table(measured)).filter(task="exam")
    shares = dict(found.select("model", "share").unique().rows())
    assert shares == {"base": 0.0, "full_reference": 1.0, "random_reference": 0.1, "nait": 0.1}


def test_the_summary_shows_what_is_there_and_names_what_is_not(
    measured: Measured, make_recipe: Callable[..., Recipe], causal_folder: Path, tmp_path: Path
) -> None:
    """A run of hours that was ended says what it has found out."""
    recipe, warehouse = trained_recipe(make_recipe, causal_folder, tmp_path), Warehouse(home=str(tmp_path / "home"))
    with warehouse.tables.transaction() as tables:
        tables.replace(COMPARISON, table(measured))
        tables.put_record(Record(COMPARISON.asset, "", "1", "2"))
    lines = result_lines(recipe, warehouse)
    assert "Models after training, loss [95 %]:" in lines
    (lacking,) = [line for line in lines if line.startswith("Not made yet")]
    assert "evaluation/foresight" in lacking
    assert "evaluation/comparison" not in lacking


def test_homes_are_compared_under_their_names(measured: Measured, tmp_path: Path) -> None:
    """Two bases, one table; a folder that is no home is named."""
    homes = [tmp_path / "small" / "home", tmp_path / "large" / "home"]
    for home in homes:
        home.mkdir(parents=True)
        with Warehouse(home=str(home)).tables.transaction() as tables:
            tables.replace(COMPARISON, table(measured))
            tables.put_record(Record(COMPARISON.asset, "", "1", "2"))
    answer = nait("compare", *homes)
    assert answer.code == 0, answer.err
    assert "small/home: nait" in answer.out
    assert "large/home: full_reference" in answer.out
    answer = nait("compare", tmp_path / "nowhere")
    assert answer.code == 2
    assert "is no home" in answer.err
