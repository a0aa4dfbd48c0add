"""A pool of short texts and in-domain examples of two capabilities, as the methods that read words get them."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from nait_assets.recipe import CANDIDATES
from nait_assets.recipe import EXAMPLES as EXAMPLES_KEY
from nait_assets.scoring.method import ScoringInputs
from nait_assets.tables import EXAMPLE
from nait_assets_tests.scoring.given import for_capabilities

POOL = [
    ("Add two and three.", "Two and three are five."),
    ("Add 12, 30 and 7!", "12 + 30 = 42; 42 + 7 = 49."),
    ("What is a cat?", "A cat is a small animal. A cat sleeps, a cat eats, and a cat sleeps again."),
    ("写一首关于猫的诗", "猫在睡觉，猫在梦里。"),
    ("Write a function that adds.", "def add(a, b):\n    return a + b"),
    ("???", "!"),
    ("Sing.", "La la la la la la la la la la la la la la la la."),
]
EXAMPLES = {
    "math": [("Add four and five.", "Nine, since four and five are nine."), ("What is 30 + 12?", "42")],
    "code": [("Write a function that returns a cat.", "def cat():\n    return 'cat'"), ("猫", "def f(): return 1")],
}
TARGETS = {"math": ["math"], "code": ["code"], "all": ["code", "math"]}


def frame(rows: Sequence[tuple[str, str]], prefix: str) -> pl.DataFrame:
    """Questions and answers as rows of a corpus, by ascending id, of sources `a` and `b` in turns, without a topic."""
    return pl.DataFrame(
        [
            {
                "sample_id": f"{prefix}{number:02}",
                "messages": [
                    {"role": "system", "content": "You add cats."},
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ],
                "source": "ab"[number % 2],
                "source_row": number,
                "topic": None,
            }
            for number, (question, answer) in enumerate(rows)
        ],
        schema=EXAMPLE,
    )


def inputs(
    options: Any = None,
    targets: Mapping[str, Sequence[str]] = TARGETS,
    pool: pl.DataFrame | None = None,
    seed: int = 0,
) -> ScoringInputs:
    """What a method that reads the pool and the examples gets."""
    pool = frame(POOL, "s") if pool is None else pool
    features = {target: {name: frame(EXAMPLES[name], name) for name in names} for target, names in targets.items()}
    return for_capabilities(
        pool["sample_id"].to_list(), EXAMPLES_KEY, features, frames={CANDIDATES: pool}, seed=seed, options=options
    )
