"""`nait audit`: verify what subsets rest on."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from nait_assets.cli.home import Workplace, opened
from nait_assets.cli.messages import AUDIT_BROKEN, say, say_json
from nait_assets.cli.options import complete_subset, home_option, json_option, recipe_option


@click.command("audit")
@click.argument("subset", required=False, shell_complete=complete_subset)
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
@json_option
@recipe_option
@home_option
def command(
    subset: str | None,
    sample_id: str | None,
    sign: Path | None,
    against: Path | None,
    as_data: bool,
    recipe_path: Path | None,
    home: Path | None,
) -> int:
    """Verify everything that subsets depend on, back to sources, model and code. Exit code 4 if a chain is broken.

    SUBSET is <method>/<target>/<ratio>, or a beginning of it; all by default, and then the other outputs and the rest
    of the home as well.
    """
    from nait_assets.audit import manifest
    from nait_assets.audit.chain import subsets_of
    from nait_assets.audit.row import describe_row

    if (sign or against) and (subset or sample_id):
        raise click.UsageError("--sign and --against are about the whole home: leave out SUBSET and --row.")
    if sample_id and as_data:
        raise click.UsageError("--json is about chains; what is known of a row is `nait explain --json`.")
    known = manifest.read(against) if against else None
    with opened(recipe_path, home, dagster=False) as workplace:
        if sign and sign.expanduser().absolute().is_relative_to(workplace.home):
            raise click.UsageError(f"--sign {sign} lies in the home itself: name a file outside of {workplace.home}.")
        if sample_id is not None:
            say(describe_row(workplace.recipe, workplace.warehouse, sample_id))
            return 0
        auditor, chains = auditor_of(workplace), list[_Verified]()
        cells = subsets_of(workplace.recipe, subset)
        for name, chain in _chains(auditor, cells, whole=subset is None):
            chains.append(_Verified(name, chain))
            if not as_data:
                chains[-1].say(link_by_link=len(cells) == len(chains) == 1)
        differing = None if known is None else manifest.differences(known, manifest.stated_outputs(auditor))
        holds = all(one.holds for one in chains) and not differing
        if as_data:
            say_json({"holds": holds, "chains": [one.data() for one in chains], "differences": differing})
        elif differing is not None:
            _print_differences(differing, against)
        if sign and holds:
            _sign(workplace, auditor, sign, err=as_data)
        return 0 if holds else AUDIT_BROKEN


def _chains(auditor: Any, cells: Sequence[tuple[str, str, str]], whole: bool) -> Iterator[tuple[str, Sequence[Any]]]:
    """The chain of each subset as it is verified; of a `whole` home, then those of the other outputs and its own."""
    from nait_assets.audit.home import HOME, home_links, other_outputs

    for cell in cells:
        yield "/".join(cell), auditor.chain(*cell)
    if whole:
        for name in other_outputs(auditor):
            yield name, auditor.links(name)
        yield HOME, home_links(auditor)


@dataclass(frozen=True)
class _Verified:
    """A chain, and what was found of it.

    Attributes:
        name: subset or output whose chain it is.
        chain: its links.
    """

    name: str
    chain: Sequence[Any]

    @property
    def holds(self) -> bool:
        return all(link.holds is not False for link in self.chain)

    def say(self, link_by_link: bool) -> None:
        from nait_assets.audit.chain import first_broken

        fault, n_unverified = first_broken(self.chain), sum(link.holds is None for link in self.chain)
        said = f"intact: {len(self.chain) - n_unverified} links verified"
        if n_unverified:
            said += f", {n_unverified} unverifiable offline"
        if fault is not None:
            said = f"BROKEN at {fault.output}, {fault.what}: {fault.says}"
        say(f"{self.name:<44} {said}")
        for link in self.chain if link_by_link else []:
            mark = {True: "ok", False: "BROKEN", None: "unverified"}[link.holds]
            say(f"    {mark:<10} {link.output}, {link.what}: {link.says}")

    def data(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "links": [asdict(link) for link in self.chain]}


def _print_differences(lines: Sequence[str], against: Path | None) -> None:
    for line in lines:
        say(line)
    say(f"{len(lines)} outputs differ from {against}" if lines else f"every output is as in {against}")


def _sign(workplace: Workplace, auditor: Any, path: Path, err: bool) -> None:
    """Write the manifest of a home, outside of it: inside, whoever alters an output could alter it too."""
    from nait_assets.audit import manifest

    outputs = manifest.stated_outputs(auditor)
    root = manifest.write(path.expanduser().absolute(), workplace.recipe.name, outputs)
    say(f"{path} states {len(outputs)} outputs; their root is {root}", err=err)


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
