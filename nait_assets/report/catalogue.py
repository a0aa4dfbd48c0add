"""Outputs of the report: the comparison of the methods, and the page."""

from dataclasses import dataclass
from pathlib import Path

from nait_assets.catalogue import Output
from nait_assets.lineage import Record
from nait_assets.recipe import Recipe
from nait_assets.report.comparison import METHOD_PRICES, STORED, Comparison
from nait_assets.resources import Warehouse
from nait_assets.resources.files import sha256
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import METHOD_COSTS


@dataclass(frozen=True, eq=False)
class ComparisonOutput(Output):
    """The tables of the comparison, under one version."""

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        return {table.name: stored.digest(table) for table in STORED}

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """The costs, which differ from run to run."""
        return {METHOD_COSTS.name: stored.digest(METHOD_COSTS)}

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:  # noqa: D102
        with warehouse.tables.snapshot() as snapshot:
            same = Comparison.stored(snapshot).data_version == record.data_version
        return [] if same else ["the tables of the comparison hold other rows than their record says"]


@dataclass(frozen=True, eq=False)
class PageOutput(Output):
    """One page, a file."""

    def file(self, warehouse: Warehouse) -> Path:
        """Where the page lies."""
        return warehouse.folder / "report" / "index.html"

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:  # noqa: ARG002, D102
        return [self.file(warehouse)]

    def content(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002, D102
        return {self.file(warehouse).name: sha256(self.file(warehouse))}

    def faults(self, warehouse: Warehouse, record: Record) -> list[str]:  # noqa: D102
        file = self.file(warehouse)
        if not file.exists():
            return [f"{file} is gone"]
        return [] if sha256(file)[:16] == record.data_version else [f"{file} is not as it was written"]


COMPARISON_OUTPUT = ComparisonOutput("report/method_comparison")
COST_OUTPUT = Output(METHOD_PRICES.asset, None, METHOD_PRICES)
PAGE_OUTPUT = PageOutput("report/selection_report")


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the report of a recipe."""
    return [COMPARISON_OUTPUT, *([COST_OUTPUT] if recipe.prices else []), PAGE_OUTPUT]


def output_named(key: str) -> Output | None:
    """An output that a recipe may no longer have, by its key."""
    return COST_OUTPUT if key == COST_OUTPUT.key else None
