"""`nait status`: what is missing or out of date, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import AUDIT_BROKEN, STATUS_STALE, leftover_lines, reason_lines, say, say_json
from nait_assets.cli.options import home_option, json_option, recipe_option
from nait_assets.errors import DamagedError


@click.command("status")
@json_option
@recipe_option
@home_option
def command(as_data: bool, recipe_path: Path | None, home: Path | None) -> int:
    """Show what is missing or out of date, and why. Exit code 3 if anything is, 4 if a file of the home is damaged."""
    from nait_assets.leftovers import leftovers

    with opened(recipe_path, home, dagster=False) as workplace:
        damage = ""
        try:
            with workplace.reading_dagster():
                states = _states(workplace, without_dagster=not (workplace.home / "dagster").exists())
        except DamagedError as error:
            damage = str(error)
            states = _states(workplace, without_dagster=True)
        left = leftovers(workplace.recipe, workplace.defs, workplace.warehouse)
        if as_data:
            say_json(_data(states, left, damage))
        else:
            _print(states, left, damage)
    if damage:
        return AUDIT_BROKEN
    return STATUS_STALE if any(state.steps for state in states) else 0


@dataclass(frozen=True)
class _State:
    """How far an output is current.

    Attributes:
        output: key of the output.
        n_partitions: number of its partitions, 1 for an output without partitions.
        steps: those that are not current, and why.
        after: outputs above it that are not current, after which it may change, where it is current itself.
    """

    output: str
    n_partitions: int
    steps: list[Any]
    after: list[str]


def _states(workplace: Workplace, without_dagster: bool) -> list[_State]:
    """The state of every output, in the order in which they are made."""
    plan, records = workplace.plan(None, without_dagster), workplace.warehouse.records()
    graph = workplace.defs.resolve_asset_graph()
    stale: set[Any] = set()
    states = []
    for asset in (asset for stage in plan.stages() for asset in stage):
        steps = plan.out_of_date(asset, records)
        above = sorted("/".join(key.path) for key in stale & graph.get_ancestor_asset_keys(asset))
        states.append(_State("/".join(asset.path), len(plan.partitions(asset)), steps, [] if steps else above))
        if steps:
            stale.add(asset)
    return states


def _print(states: list[_State], left: list[Any], damage: str) -> None:
    for state in states:
        note = f", may change once {', '.join(state.after)} is made" if state.after else ""
        n_current = state.n_partitions - len(state.steps)
        say(f"{state.output:<40} {n_current:>3} of {state.n_partitions} current{note}")
        for line in reason_lines(state.steps, state.n_partitions):
            say(f"    {line}")
    if left:
        say(f"{len(left)} outputs that the recipe no longer has; `nait clean` removes them:")
        for line in leftover_lines(left):
            say(f"    {line}")
    if damage:
        say(f"BROKEN: {damage}")
    elif any(state.steps for state in states):
        say("`nait run` brings it up to date.")


def _data(states: list[_State], left: list[Any], damage: str) -> dict[str, Any]:
    outputs = [
        {
            "output": state.output,
            "n_partitions": state.n_partitions,
            "n_current": state.n_partitions - len(state.steps),
            "out_of_date": [{"partition": step.partition or "", "reasons": step.reasons} for step in state.steps],
            "may_change_after": state.after,
        }
        for state in states
    ]
    leftovers = [{"output": one.output.key, "partition": one.partition} for one in left]
    return {"outputs": outputs, "leftovers": leftovers, "damage": damage}
