"""The audit as an asset: every chain of every subset, verified on a schedule."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage
from nait_assets.audit.chain import Auditor, Link, first_broken, subsets_of
from nait_assets.audit.home import HOME, home_links, other_outputs
from nait_assets.catalogue import Catalogue, Output
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.selection.catalogue import subset_output
from nait_assets.tables import AUDIT_LINKS

ROOM = "audit"
ALGORITHM = "2"
WEEKLY = "0 4 * * 1"
CHECK = "every_chain_holds"


def build_assets(
    recipe: Recipe,
    catalogue: Catalogue,
    code_versions: Mapping[str, str | None],
    output_named: Callable[[str], Output | None],
) -> list[dg.AssetsDefinition]:
    """The audit of a recipe's subsets.

    Args:
        recipe: Recipe whose subsets they are.
        catalogue: outputs of the recipe.
        code_versions: Code versions of all other assets, by key as a path.
        output_named: Function from the key of an output that the recipe no longer has to the output, or None.
    """
    deps = [lineage.asset_key(subset_output(method).key) for method in recipe.methods]

    @dg.asset(
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"duckdb"},
        code_version=ALGORITHM,
        deps=deps,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK, asset=lineage.asset_key(f"{ROOM}/lineage_audit"), description="No chain is broken."
            )
        ],
    )
    def lineage_audit(warehouse: Warehouse, language_model: LanguageModel) -> dg.MaterializeResult:
        """Whether stored outputs are still what their records state. One row is one link that a subset depends on.

        It runs on its weekly schedule or by hand, because files can change without Dagster's knowledge.
        """
        auditor = Auditor(recipe, warehouse, language_model, catalogue, code_versions, output_named)
        chains = {"/".join(cell): auditor.chain(*cell) for cell in subsets_of(recipe, None)}
        n_subsets = len(chains)
        chains |= {name: auditor.links(name) for name in other_outputs(auditor)} | {HOME: home_links(auditor)}
        frame = links_frame(chains.values())
        with warehouse.tables.transaction() as transaction:
            transaction.replace(AUDIT_LINKS, frame)
        broken = {name: found for name, chain in chains.items() if (found := first_broken(chain)) is not None}
        verdict = _verdict(broken, len(chains))
        return dg.MaterializeResult(
            metadata={"n_subsets": n_subsets, "n_chains": len(chains), "n_broken": len(broken), **_metadata(frame)},
            check_results=[dg.AssetCheckResult(check_name=CHECK, passed=not broken, description=verdict)],
        )

    return [lineage_audit]


def links_frame(chains: Iterable[Sequence[Link]]) -> pl.DataFrame:
    """The links of some chains, each once, columns of `tables.AUDIT_LINKS`."""
    links = sorted({link for chain in chains for link in chain}, key=lambda link: (link.output, link.what))
    return pl.DataFrame([vars(link) for link in links], AUDIT_LINKS.columns)


def _metadata(frame: pl.DataFrame) -> dict[str, Any]:
    return {
        "dagster/table_name": AUDIT_LINKS.name,
        "dagster/row_count": len(frame),
        "n_unverified": frame["holds"].null_count(),
        "not_holding": lineage.table_metadata(frame.filter(~pl.col("holds").fill_null(False)).head(50)),
    }


def build_schedules() -> list[dg.ScheduleDefinition]:
    """The weekly audit, off until someone switches it on."""
    job = dg.define_asset_job("audit", selection=dg.AssetSelection.groups(ROOM))
    return [
        dg.ScheduleDefinition(
            name="weekly_audit",
            job=job,
            cron_schedule=WEEKLY,
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description="Verifies every chain on Mondays at 4:00 UTC. Off until it is switched on.",
        )
    ]


def _verdict(broken: Mapping[str, Link], n_chains: int) -> str:
    if not broken:
        return f"all {n_chains} chains hold"
    causes = sorted({f"{link.output}, {link.what}: {link.says}" for link in broken.values()})
    return f"{len(broken)} of {n_chains} chains are broken; first {causes[0]}"
