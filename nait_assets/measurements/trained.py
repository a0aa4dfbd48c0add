"""What is trained for a measurement: an output that is a folder of files."""

from collections.abc import Callable
from dataclasses import dataclass

from nait_assets.catalogue import FolderOutput
from nait_assets.measurements.engine import of_the_model
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse


@dataclass(frozen=True, eq=False)
class TrainedOutput(FolderOutput):
    """A folder of what was trained for a measurement.

    Attributes:
        versions: function from a recipe and its model to the versions of what the training reads from outside.
    """

    versions: Callable[[Recipe, LanguageModel], dict[str, str]] = of_the_model
    on_demand: bool = True
    takes_run_options: bool = True

    def external_versions(  # noqa: D102
        self,
        recipe: Recipe,
        warehouse: Warehouse,  # noqa: ARG002
        model: LanguageModel,
        partition: str,  # noqa: ARG002
    ) -> dict[str, str]:
        return self.versions(recipe, model)
