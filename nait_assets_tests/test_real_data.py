"""The recipe of real data sets, on the real files; skipped where `NAIT_DATA` does not name a folder that holds them."""

import os
from pathlib import Path

import polars as pl
import pytest

from nait_assets.corpora.corpus import read_corpus
from nait_assets.recipe import PROJECT_ROOT, Recipe, load_recipe

NAIT_DATA = os.environ.get("NAIT_DATA", "")  # read before the fixtures hide it
HERE = Path(NAIT_DATA).absolute() if NAIT_DATA else None

needs_data = pytest.mark.skipif(
    HERE is None or not (HERE / "alpaca_52k.parquet").exists(),
    reason="NAIT_DATA names no folder with alpaca_52k.parquet (see recipes/README.md)",
)
pytestmark = [pytest.mark.slow, needs_data]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """`recipes/alpaca.yaml`."""
    monkeypatch.setenv("NAIT_DATA", str(HERE))
    return load_recipe(PROJECT_ROOT / "recipes" / "alpaca.yaml")


def test_planted_rows_are_counted_and_not_among_the_examples(recipe: Recipe) -> None:
    """The retrieval table counts 40 rows of each capability; a method that had seen them would find them too easily."""
    corpus = read_corpus(recipe, "candidates")
    counts = dict(corpus.examples["topic"].value_counts().iter_rows())
    assert counts == {"alpaca": 2000, "gsm8k": 40, "bbh": 40, "bigcodebench": 40, "mmlu": 40, "tydiqa": 40}
    assert corpus.n_rows == 51_941 + 7_473 + 6_511 + 1_140 + 1_531 + 8_076
    pool = set(corpus.examples["sample_id"].to_list())
    for capability in recipe.capability_names:
        examples = read_corpus(recipe, capability).examples
        assert len(examples) == 64
        assert pool.isdisjoint(examples["sample_id"].to_list())


@pytest.mark.parametrize(
    ("capability", "in_question", "in_answer"),
    [
        ("gsm8k", r"\w", r"#### -?[\d,]+"),
        ("mmlu", r"\nA\. .*\nB\. .*\nC\. .*\nD\. ", r"^[ABCD]$"),
        ("bbh", r"\w", r"\S"),
        ("tydiqa", r"\n\n.*\?", r"\S"),
        ("bigcodebench", r"(?i)python|function|should", r"def task_func"),
    ],
)
def test_templates_fit_the_columns_of_the_real_files(
    recipe: Recipe, capability: str, in_question: str, in_answer: str
) -> None:
    """A mapping that renders the wrong column gives text of the wrong kind."""
    contents = pl.col("messages").list.eval(pl.element().struct.field("content"))
    examples = read_corpus(recipe, capability).examples.select(
        question=contents.list.first(), answer=contents.list.last()
    )
    assert examples["question"].str.contains(in_question, literal=False).mean() > 0.9
    assert examples["answer"].str.contains(in_answer, literal=False).all()
