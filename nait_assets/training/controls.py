"""Random rows to compare a choice with: of a subset's size, or of its size and the lengths of its answers.

A draw is by hash of its number and of each row, as all draws here are: one more row in the pool changes one row of it.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from nait_assets.conversation import Conversation
from nait_assets.errors import DataError
from nait_assets.recipe import Recipe, seeded_order
from nait_assets.resources import LanguageModel
from nait_assets.training.encoding import encode_rows
from nait_assets.training.runs import settings_of

NEAREST = 8
"""Rows of the nearest lengths among which one is drawn."""


def random_draw(pool: pl.DataFrame, size: int, draw: int) -> pl.DataFrame:
    """`size` rows of the pool, of a draw with a number; they are not those of the method `random`."""
    return pool[seeded_order(pool["sample_id"].to_list(), f"training:random:{draw}")[:size]]


def matched_draws(
    subset: Sequence[str],
    pool: Sequence[tuple[str, Conversation]],
    recipe: Recipe,
    base: LanguageModel,
    n_draws: int,
) -> list[list[tuple[str, Conversation]]]:
    """Draws of random rows that have a subset's number of answer tokens, and its lengths of answers.

    Args:
        subset: Sample ids of the subset's rows.
        pool: Pairs of `sample_id` and conversation; rows of the subset are among them.
        recipe: Recipe with a section `training`.
        base: Model whose tokenizer counts.
        n_draws: Number of draws.

    Raises:
        DataError: The pool has fewer rows with an answer than the subset.
    """
    settings = settings_of(recipe)
    rows, _ = encode_rows(pool, base.tokenizer(), settings["max_tokens"], settings["reading"], "answers")
    lengths = {row.sample_id: row.n_learnt for row in rows}
    wanted = [lengths[name] for name in subset if name in lengths]
    if len(lengths) < len(wanted) or not wanted:
        raise DataError(
            f"{len(lengths)} rows of the pool have an answer to learn, too few for {len(subset)} of a subset."
        )
    conversations, names = dict(pool), sorted(lengths)
    counts = np.asarray([lengths[name] for name in names])
    drawn = [matched(wanted, counts, seeded_order(names, f"training:matched:{draw}")) for draw in range(n_draws)]
    return [[(names[place], conversations[names[place]]) for place in places] for places in drawn]


def matched(wanted: Sequence[int], lengths: np.ndarray, order: Sequence[int]) -> list[int]:
    """Places of distinct rows, one for each wanted length; what one row is too long or short, the next makes up for.

    Rare lengths first, those farthest from the rows' median by ratio. Each is drawn among the unused rows of the
    nearest lengths, so that a length that many rows have does not lead to the subset's own.

    Args:
        wanted: Lengths to match, at most as many as there are rows.
        lengths: `(n,)` lengths of the rows.
        order: Places in the random order of the draw.
    """
    turn = np.empty(len(lengths), np.int64)
    turn[np.asarray(order)] = np.arange(len(lengths))
    free = np.ones(len(lengths), bool)
    places: list[int] = []
    carried = 0
    median = max(1.0, float(np.median(lengths)))
    for length in sorted(wanted, key=lambda length: (-abs(np.log(max(1, length) / median)), length)):
        aim = length + carried
        left = np.flatnonzero(free)
        nearness = np.abs(lengths[left].astype(np.int64) - aim) * len(lengths) + turn[left]  # ties by turn
        near = left[np.argpartition(nearness, min(NEAREST, len(left)) - 1)[:NEAREST]]
        place = int(near[np.argmin(turn[near])])
        free[place] = False
        places.append(place)
        carried = aim - int(lengths[place])
    return places
