"""`nait audit`: verify what subsets rest on."""

from pathlib import Path

import click

from nait_assets.cli.home import opened
from nait_assets.cli.messages import AUDIT_BROKEN
from nait_assets.cli.options import home_option, recipe_option


@click.command("audit")
@click.argument("subset", required=False)
@click.option(
    "--row", "sample_id", default=None, help="Show where a row came from, and which subsets it is in and why."
)
@recipe_option
@home_option
def command(subset: str | None, sample_id: str | None, recipe_path: Path | None, home: Path | None) -> int:
    """Verify everything that subsets depend on, back to sources, model and code. Exit code 4 if a chain is broken.

    SUBSET is <method>/<target>/<ratio>, or a beginning of it; all by default.
    """
    from nait_assets.audit.chain import Auditor, first_broken, subsets_of
    from nait_assets.audit.row import describe_row
    from nait_assets.lineage import asset_path

    with opened(recipe_path, home) as workplace:
        if sample_id is not None:
            click.echo(describe_row(workplace.recipe, workplace.warehouse, sample_id))
            return 0
        specs = workplace.defs.resolve_all_asset_specs()
        code_versions = {asset_path(spec.key): spec.code_version for spec in specs}
        auditor = Auditor(workplace.recipe, workplace.warehouse, workplace.model, workplace.catalogue, code_versions)
        cells = subsets_of(workplace.recipe, subset)
        broken = 0
        for cell in cells:
            chain = auditor.chain(*cell)
            fault = first_broken(chain)
            broken += fault is not None
            unverified = sum(link.holds is None for link in chain)
            said = f"intact: {len(chain) - unverified} links verified" + (
                f", {unverified} unverifiable offline" if unverified else ""
            )
            if fault is not None:
                said = f"BROKEN at {fault.output}, {fault.what}: {fault.says}"
            click.echo(f"{'/'.join(cell):<44} {said}")
            for link in chain if len(cells) == 1 else []:
                mark = {True: "ok", False: "BROKEN", None: "unverified"}[link.holds]
                click.echo(f"    {mark:<10} {link.output}, {link.what}: {link.says}")
        return AUDIT_BROKEN if broken else 0
