"""`nait audit`: verify what subsets rest on."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import AUDIT_BROKEN, say
from nait_assets.cli.options import home_option, recipe_option


@click.command("audit")
@click.argument("subset", required=False)
@click.option(
    "--row", "sample_id", default=None, help="Show where a row came from, and which subsets it is in and why."
)
@click.option(
    "--sign",
    type=click.Path(path_type=Path, dir_okay=False),
    help="If all holds, write a manifest of all outputs to this file, to be kept elsewhere or signed.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Name what differs from a manifest that --sign wrote, as well.",
)
@recipe_option
@home_option
def command(
    subset: str | None,
    sample_id: str | None,
    sign: Path | None,
    against: Path | None,
    recipe_path: Path | None,
    home: Path | None,
) -> int:
    """Verify everything that subsets depend on, back to sources, model and code. Exit code 4 if a chain is broken.

    SUBSET is <method>/<target>/<ratio>, or a beginning of it; all by default, and then the other outputs and the rest
    of the home as well.
    """
    from nait_assets.audit import manifest
    from nait_assets.audit.chain import subsets_of
    from nait_assets.audit.home import HOME, home_links, other_outputs
    from nait_assets.audit.row import describe_row

    if (sign or against) and (subset or sample_id):
        raise click.UsageError("--sign and --against are about the whole home: leave out SUBSET and --row.")
    known = manifest.read(against) if against else None
    with opened(recipe_path, home, dagster=False) as workplace:
        if sign and sign.expanduser().absolute().is_relative_to(workplace.home):
            raise click.UsageError(f"--sign {sign} lies in the home itself: name a file outside of {workplace.home}.")
        if sample_id is not None:
            say(describe_row(workplace.recipe, workplace.warehouse, sample_id))
            return 0
        auditor, cells = auditor_of(workplace), subsets_of(workplace.recipe, subset)
        holds = [_say("/".join(cell), auditor.chain(*cell), len(cells) == 1) for cell in cells]
        if subset is None:
            holds += [_say(name, auditor.links(name), False) for name in other_outputs(auditor)]
            holds.append(_say(HOME, home_links(auditor), False))
        if known is not None:
            holds.append(_compare(manifest.differences(known, manifest.stated_outputs(auditor)), against))
        if sign and all(holds):
            _sign(workplace, auditor, sign)
        return 0 if all(holds) else AUDIT_BROKEN


def _compare(lines: Sequence[str], against: Path | None) -> bool:
    """Print what differs from a manifest; whether nothing does."""
    for line in lines:
        say(line)
    say(f"{len(lines)} outputs differ from {against}" if lines else f"every output is as in {against}")
    return not lines


def _sign(workplace: Workplace, auditor: Any, path: Path) -> None:
    """Write the manifest of a home, outside of it: inside, whoever alters an output could alter it too."""
    from nait_assets.audit import manifest

    outputs = manifest.stated_outputs(auditor)
    root = manifest.write(path.expanduser().absolute(), workplace.recipe.name, outputs)
    say(f"{path} states {len(outputs)} outputs; their root is {root}")


def auditor_of(workplace: Workplace) -> Any:
    """The auditor of a recipe's home."""
    from nait_assets.audit.chain import Auditor
    from nait_assets.definitions import ROOMS, output_named
    from nait_assets.lineage import asset_path

    specs = workplace.defs.resolve_all_asset_specs()
    code_versions = {asset_path(spec.key): spec.code_version for spec in specs}
    of_rooms = functools.partial(output_named, ROOMS)
    parts = workplace.recipe, workplace.warehouse, workplace.model, workplace.catalogue
    return Auditor(*parts, code_versions, of_rooms)


def _say(name: str, chain: Sequence[Any], link_by_link: bool) -> bool:
    """Print what was found of a chain; whether it holds."""
    from nait_assets.audit.chain import first_broken

    fault, n_unverified = first_broken(chain), sum(link.holds is None for link in chain)
    said = f"intact: {len(chain) - n_unverified} links verified"
    if n_unverified:
        said += f", {n_unverified} unverifiable offline"
    if fault is not None:
        said = f"BROKEN at {fault.output}, {fault.what}: {fault.says}"
    say(f"{name:<44} {said}")
    for link in chain if link_by_link else []:
        mark = {True: "ok", False: "BROKEN", None: "unverified"}[link.holds]
        say(f"    {mark:<10} {link.output}, {link.what}: {link.says}")
    return fault is None
