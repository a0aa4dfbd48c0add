"""`nait status`: what is missing or out of date, and why."""

from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import AUDIT_BROKEN, STATUS_STALE, leftover_lines, reason_lines, say
from nait_assets.cli.options import home_option, recipe_option
from nait_assets.errors import DamagedError


@click.command("status")
@recipe_option
@home_option
def command(recipe_path: Path | None, home: Path | None) -> int:
    """Show what is missing or out of date, and why. Exit code 3 if anything is, 4 if a file of the home is damaged."""
    from nait_assets.leftovers import leftovers

    with opened(recipe_path, home, dagster=False) as workplace:
        damage = ""
        try:
            with workplace.reading_dagster():
                lines, is_stale = _outputs(workplace, without_dagster=not (workplace.home / "dagster").exists())
        except DamagedError as error:
            damage = str(error)
            lines, is_stale = _outputs(workplace, without_dagster=True)
        for line in lines:
            say(line)
        left = leftovers(workplace.recipe, workplace.defs, workplace.warehouse)
        if left:
            say(f"{len(left)} outputs that the recipe no longer has; `nait clean` removes them:")
            for line in leftover_lines(left):
                say(f"    {line}")
        if damage:
            say(f"BROKEN: {damage}")
            return AUDIT_BROKEN
        if is_stale:
            say("`nait run` brings it up to date.")
            return STATUS_STALE
    return 0


def _outputs(workplace: Workplace, without_dagster: bool) -> tuple[list[str], bool]:
    """The lines about the outputs, and whether one is missing or out of date."""
    plan, records = workplace.plan(None, without_dagster), workplace.warehouse.records()
    graph = workplace.defs.resolve_asset_graph()
    stale: set[Any] = set()
    lines = []
    for asset in (asset for stage in plan.stages() for asset in stage):
        steps, n_partitions = plan.out_of_date(asset, records), len(plan.partitions(asset))
        above = sorted("/".join(key.path) for key in stale & graph.get_ancestor_asset_keys(asset))
        note = f", may change once {', '.join(above)} is made" if above and not steps else ""
        lines.append(f"{'/'.join(asset.path):<40} {n_partitions - len(steps):>3} of {n_partitions} current{note}")
        lines += [f"    {line}" for line in reason_lines(steps, n_partitions)]
        if steps:
            stale.add(asset)
    return lines, bool(stale)
