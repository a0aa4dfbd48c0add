"""Outputs of the features: what the pool's neurons do, and what each capability looks like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from nait_assets.catalogue import Output
from nait_assets.features.capability import TABLES, exported_file, feature_file_inputs, feature_from_file
from nait_assets.features.preflight import require_direction
from nait_assets.recipe import ALL, POOLINGS, FeatureName, Pooling, Recipe, pooled
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import sha256
from nait_assets.resources.warehouse import Snapshot
from nait_assets.tables import NEURON_STATISTICS


@dataclass(frozen=True, eq=False)
class FeatureOutput(Output):
    """A feature of each capability: made from its examples, or taken from a feature file; it is exported as one.

    Attributes:
        feature: name of the feature in feature files.
        pooling: pooling of the activations that it is made from.
    """

    feature: FeatureName = "nait_directions"
    pooling: Pooling = ALL

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,
    ) -> dict[str, str]:
        return feature_file_inputs(recipe, model, partition, self.feature, self.pooling)

    def preflight(self, recipe: Recipe, model: LanguageModel, partitions: Sequence[str]) -> None:
        """Raise a UserError where a feature file cannot be read or does not fit, or examples have no direction."""
        for capability in partitions:
            feature_from_file(recipe, model, capability, self.feature, self.pooling)
            if self.feature == "nait_directions":
                require_direction(recipe, model, capability, self.pooling)

    def files(self, recipe: Recipe, warehouse: Warehouse, partition: str) -> list[Path]:
        """The feature file for other recipes; projections have none."""
        return [] if recipe.extraction.projection else [self._file(warehouse, partition)]

    def beside(self, warehouse: Warehouse, stored: Snapshot, partition: str) -> dict[str, str]:  # noqa: ARG002
        """The feature file, where there is one."""
        file = self._file(warehouse, partition)
        return {file.relative_to(warehouse.folder).as_posix(): sha256(file)} if file.is_file() else {}

    def _file(self, warehouse: Warehouse, capability: str) -> Path:
        return exported_file(warehouse, capability, pooled(self.feature, self.pooling))


def statistics_output(pooling: Pooling) -> Output:
    """The statistics of the pool's neurons, of a pooling."""
    table = NEURON_STATISTICS.of_pooling(pooling)
    return Output(table.asset, None, table, on_demand=True)


def feature_output(feature: FeatureName, pooling: Pooling) -> FeatureOutput:
    """A feature of each capability, of a pooling."""
    table = TABLES[feature].of_pooling(pooling)
    return FeatureOutput(table.asset, "capability", table, on_demand=True, feature=feature, pooling=pooling)


def outputs(recipe: Recipe) -> list[Output]:
    """Outputs of the features of a recipe: of every pooling that it stores."""
    return [output for pooling in recipe.extraction.pool for output in _of_pooling(pooling)]


def output_named(key: str) -> Output | None:
    """The output of a key that only recipes with some pooling have."""
    return {output.key: output for pooling in POOLINGS for output in _of_pooling(pooling)}.get(key)


def _of_pooling(pooling: Pooling) -> list[Output]:
    features = (feature_output(feature, pooling) for feature in get_args(FeatureName))
    return [statistics_output(pooling), *features]
