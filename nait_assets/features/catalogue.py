"""Outputs of the features: what the pool's neurons do, and what each capability looks like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nait_assets.catalogue import Output
from nait_assets.features.capability import exported_file, feature_file_inputs, feature_from_file
from nait_assets.recipe import FeatureName, Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import NAIT_DIRECTIONS, NEURON_STATISTICS, STANDARDIZED_CENTROIDS


@dataclass(frozen=True, eq=False)
class FeatureOutput(Output):
    """A feature of each capability: made from its examples, or taken from a feature file; it is exported as one.

    Attributes:
        feature: name of the feature in feature files.
    """

    feature: FeatureName = "nait_directions"

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,
    ) -> dict[str, str]:
        return feature_file_inputs(recipe, model, partition, self.feature)

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:
        """Raise a UserError where a feature file cannot be read, or does not fit the recipe."""
        for capability in partitions:
            feature_from_file(recipe, model, capability, self.feature)

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:
        """The feature file for other recipes; projections have none."""
        return [] if recipe.extraction.projection else [exported_file(warehouse, partition, self.feature)]

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """The feature file, where there is one."""
        file = exported_file(warehouse, partition, self.feature)
        return {file.relative_to(warehouse.folder).as_posix(): sha256(file)} if file.is_file() else {}


STATISTICS_OUTPUT = Output(NEURON_STATISTICS.asset, None, NEURON_STATISTICS, on_demand=True)
DIRECTIONS_OUTPUT = FeatureOutput(
    NAIT_DIRECTIONS.asset, "capability", NAIT_DIRECTIONS, on_demand=True, feature="nait_directions"
)
CENTROIDS_OUTPUT = FeatureOutput(
    STANDARDIZED_CENTROIDS.asset, "capability", STANDARDIZED_CENTROIDS, on_demand=True, feature="standardized_centroids"
)


def outputs(_: Recipe) -> list[Output]:
    """Outputs of the features of a recipe."""
    return [STATISTICS_OUTPUT, DIRECTIONS_OUTPUT, CENTROIDS_OUTPUT]
