"""Poolings: the tokens of an example whose activations are averaged, and the names of what is made of each."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from nait_assets.recipe.section import Section

Pooling = Literal["all", "answer", "prompt"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""In the order in which they are stored; the first that an extraction has is read where a method names none."""
ALL: Pooling = "all"


def pooled(name: str, pooling: Pooling) -> str:
    """The name of what is made of a pooling: `name` itself of `all`, which was there before the others."""
    return name if pooling == ALL else f"{pooling}_{name}"


def pooled_key(key: str, pooling: Pooling) -> str:
    """The key of the output that a method reads of a pooling: features are outputs of their own, activations one."""
    room, _, name = key.partition("/")
    return f"{room}/{pooled(name, pooling)}" if room == "features" else key


def listed(given: Any) -> Any:
    """A list of one where a name is given, as a recipe may have it."""
    return (given,) if isinstance(given, str) else given


def in_order(poolings: Sequence[Pooling]) -> tuple[Pooling, ...]:
    """Poolings in the order in which they are stored.

    Raises:
        ValueError: One is there twice.
    """
    if len(set(poolings)) != len(poolings):
        raise ValueError(f"pool {list(poolings)} must be distinct")
    return tuple(pooling for pooling in POOLINGS if pooling in poolings)


class ActivationOptions(Section):
    """Options of a method that reads activations."""

    pool: Pooling | None = Field(
        None,
        exclude_if=lambda pool: pool is None,  # what was scored before there was a choice stays as it is
        description="Which of the poolings under `extraction.pool` is read; by default `all`, or where that is not "
        "stored the first of `answer` and `prompt` that is.",
    )
