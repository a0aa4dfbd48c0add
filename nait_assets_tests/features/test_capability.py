"""Directions of a capability: examples that were cut have no last token to speak of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nait_assets.errors import DataError
from nait_assets.extraction import activation_table
from nait_assets.features.capability import changes, whole_examples
from nait_assets.features.directions import principal_direction
from nait_assets.recipe import Recipe
from nait_assets.resources.warehouse import Store

WIDTH = 4


def store_with(folder: Path, cuts: list[str], last: np.ndarray) -> Store:
    """A table of one layer, whose first token is zero everywhere."""
    n = len(cuts)
    columns = {
        "sample_id": [f"s{number:02}" for number in range(n)],
        "layer": [0] * n,
        "n_tokens": [9] * n,
        "cut": cuts,
        "n_answers": [1] * n,
        "n_answers_whole": [int(cut != "answer") for cut in cuts],
        "activation": np.ones((n, WIDTH), np.float32).tolist(),
        "first_token_activation": np.zeros((n, WIDTH), np.float32).tolist(),
        "last_token_activation": last.astype(np.float32).tolist(),
    }
    schema = activation_table.shard_schema(WIDTH, keep_first_and_last=True)
    store = Store(folder / "math.duckdb")
    with store.transaction() as transaction:
        shard = pa.table(columns, schema=schema)
        activation_table.fold(transaction, "one", columns["sample_id"], [shard], schema)
    return store


def test_cut_examples_do_not_decide_the_direction(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Their last token is any word, far from the template's: the first component would be whether one was cut."""
    random = np.random.default_rng(0)
    whole = random.normal(size=(12, 1)) * [0, 3, 0, 0] + random.normal(scale=0.1, size=(12, WIDTH))
    cut = np.array([50, 0, 0, 0]) + random.normal(scale=0.1, size=(4, WIDTH))
    store = store_with(tmp_path, [""] * 12 + ["answer", "prompt"] * 2, np.concatenate([whole, cut]))
    recipe = make_recipe()

    with store.snapshot() as snapshot:
        used = whole_examples(activation_table.samples(snapshot), recipe, "math")
        change = changes(snapshot, recipe, 0)

    assert used.tolist() == [True] * 12 + [False] * 4
    assert abs(principal_direction(change)[0][0]) > 0.9
    assert abs(principal_direction(change[used])[0][1]) > 0.9


def test_where_most_are_cut_one_error_says_what_to_do(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """A direction of the few short ones would be that of another capability."""
    store = store_with(tmp_path, ["", "", "", "prompt", "prompt", "answer", "answer"], np.eye(7, WIDTH))

    with store.snapshot() as snapshot:
        with pytest.raises(
            DataError, match=r"'math': 4 of 7 examples are longer than .* Use a larger `extraction.max_"
        ) as e:
            whole_examples(activation_table.samples(snapshot), make_recipe(), "math")
        by_mean = make_recipe(features={"change": "mean_minus_first"})
        assert "mean_minus_first" in str(e.value)
        assert whole_examples(activation_table.samples(snapshot), by_mean, "math").all()
