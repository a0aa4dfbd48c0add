"""In whose turn the rows of the comprehensive target were taken, where its capabilities take turns."""

from collections.abc import Collection, Mapping, Sequence

import polars as pl

from nait_assets.recipe import COMPREHENSIVE_TARGET, Recipe


def takes_turns(recipe: Recipe, method: str, target: str) -> bool:
    """Whether a method's subsets for a target are made by its capabilities in turns."""
    by_turns = recipe.strategy_of(method, target).name == "round_robin_targets"
    return by_turns and target == COMPREHENSIVE_TARGET and target in recipe.targets and recipe.is_targeted(method)


def rows_by_turn(scores: pl.DataFrame, chosen: Collection[str], capabilities: Sequence[str]) -> dict[str, int]:
    """How many of the chosen rows were taken in the turn of each capability; empty where there were no turns.

    The numbers differ by more than one only where a capability has no rows left that may be chosen.

    Args:
        scores: Columns `sample_id`, `whose_turn` of a method's scores for the comprehensive target.
        chosen: Ids of the chosen rows.
        capabilities: The recipe's, in the order of their names.
    """
    turns = scores.filter(pl.col("sample_id").is_in(list(chosen)))["whose_turn"].drop_nulls().to_list()
    found = dict.fromkeys(capabilities, 0)
    for turn in turns:
        found[turn] += 1
    return found if turns else {}


def turns_sentence(turns: Mapping[str, int]) -> str:
    """How many rows were taken in whose turn, without a full stop."""
    total = sum(turns.values())
    return ", ".join(f"{n} ({n / total:.0%}) in the turn of {name}" for name, n in turns.items())
