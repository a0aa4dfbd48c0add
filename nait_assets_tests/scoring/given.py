"""Inputs of methods, written by target as tests think of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from nait_assets.scoring.method import ScoringInputs


def for_capabilities(
    sample_ids: list[str], key: str, rows: Mapping[str, Mapping[str, pl.DataFrame]], **rest: Any
) -> ScoringInputs:
    """Inputs of a method that reads an output about capabilities.

    Args:
        sample_ids: The candidates.
        key: Key of the output.
        rows: Its rows, by target and capability of the target.
        rest: Further fields of the inputs.
    """
    frames = {name: frame for of_target in rows.values() for name, frame in of_target.items()}
    targets = {target: list(of_target) for target, of_target in rows.items()}
    return ScoringInputs(sample_ids, targets, by_capability={key: frames}, **rest)


def without_capabilities(sample_ids: list[str], targets: Iterable[str], **rest: Any) -> ScoringInputs:
    """Inputs of a method that reads nothing about capabilities."""
    return ScoringInputs(sample_ids, {target: [target] for target in targets}, **rest)
