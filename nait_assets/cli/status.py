"""`nait status`: what is missing or out of date, and why."""

from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import STATUS_STALE, leftover_lines, reason_lines
from nait_assets.cli.options import home_option, recipe_option


@click.command("status")
@recipe_option
@home_option
def command(recipe_path: Path | None, home: Path | None) -> int:
    """Show what is missing or out of date, and why. Exit code 3 if anything is."""
    from nait_assets.leftovers import leftovers

    with opened(recipe_path, home) as workplace:
        plan, records = workplace.plan(None), workplace.warehouse.records()
        graph = workplace.defs.resolve_asset_graph()
        stale: set[Any] = set()
        for asset in (asset for stage in plan.stages() for asset in stage):
            steps, n_partitions = plan.out_of_date(asset, records), len(plan.partitions(asset))
            above = sorted("/".join(key.path) for key in stale & graph.get_ancestor_asset_keys(asset))
            note = f", may change once {', '.join(above)} is made" if above and not steps else ""
            click.echo(f"{'/'.join(asset.path):<40} {n_partitions - len(steps):>3} of {n_partitions} current{note}")
            for line in reason_lines(steps, n_partitions):
                click.echo(f"    {line}")
            if steps:
                stale.add(asset)
        left = leftovers(workplace.recipe, workplace.defs, workplace.warehouse)
        if left:
            click.echo(f"{len(left)} outputs that the recipe no longer has; `nait clean` removes them:")
            for line in leftover_lines(left):
                click.echo(f"    {line}")
        if stale:
            click.echo("`nait run` brings it up to date.")
            return STATUS_STALE
    return 0
