"""What it costs to find something out: passes through a model, tokens, calls of an API, and time."""

from dataclasses import dataclass

import polars as pl

from nait_assets.lineage import reference
from nait_assets.resources.warehouse import Snapshot, Transaction
from nait_assets.tables import COSTS


@dataclass(frozen=True)
class Cost:
    """What a method or one of its inputs took; costs add up.

    Attributes:
        n_forward: Sequences that went through a model forwards.
        n_backward: And backwards.
        n_tokens: Tokens of those sequences, or of the questions and answers of calls.
        n_calls: Calls of an API.
        seconds: Wall time.
    """

    n_forward: int = 0
    n_backward: int = 0
    n_tokens: int = 0
    n_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def add_cost(transaction: Transaction, asset: str, partition: str, cost: Cost) -> Cost:
    """Add what a materialization took to what its earlier ones took; returns the sum.

    Args:
        transaction: On the file of the small tables.
        asset: Key as a path.
        partition: Partition key, or "".
        cost: Cost of this materialization.
    """
    total = cost_of(transaction, asset, partition) + cost
    transaction.replace(COSTS, pl.DataFrame([vars(total)]), asset=asset, partition=partition)
    return total


def cost_of(snapshot: Snapshot, asset: str, partition: str = "") -> Cost:
    """What an output has taken so far; nothing where it is not recorded."""
    if not snapshot.has_table(COSTS.name):
        return Cost()
    rows = snapshot.rows(COSTS, asset=asset, partition=partition).drop("asset", "partition")
    return sum((Cost(**row) for row in rows.iter_rows(named=True)), Cost())


def all_costs(snapshot: Snapshot) -> dict[str, Cost]:
    """What every output has taken so far, by `lineage.reference`."""
    if not snapshot.has_table(COSTS.name):
        return {}
    return {
        reference(row.pop("asset"), row.pop("partition")): Cost(**row)
        for row in snapshot.rows(COSTS).iter_rows(named=True)
    }
