"""What is trained for a measurement: an output that is a folder of files, and what it was trained from.

A record names the version of the whole pool, which changes with a row's topic or place in its file. A training reads
less than that; where what it reads is the same, the folder is kept, and with it all that was measured by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nait_assets.catalogue import FolderOutput
from nait_assets.lineage import Record
from nait_assets.measurements.engine import of_the_model
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version

TRAINED_FROM = "trained_from.txt"
"""File in a folder of what was trained: the fingerprint of all that the training read."""


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


def is_trained_from(folder: Path, identity: str, before: Record | None) -> bool:
    """Whether a folder holds, as it was written, what was trained from the same.

    Args:
        folder: Folder of the result.
        identity: Fingerprint of all that a training would read now.
        before: Record of the result that is there, or None.
    """
    file = folder / TRAINED_FROM
    same = before is not None and file.is_file() and file.read_text() == identity
    return same and before is not None and folder_version(folder) == before.data_version
