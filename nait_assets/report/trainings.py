"""What was trained, as the page shows it: the models of every output, and their loss curves.

Belongs here: queries. Does not belong here: what is drawn of the answers (`training_sections`).
"""

from dataclasses import dataclass

import polars as pl

from nait_assets import plots
from nait_assets.partitions import Partitions, cell_of
from nait_assets.recipe import Recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.training.catalogue import ModelsOutput
from nait_assets.training.catalogue import outputs as training_outputs
from nait_assets.training.tables import LOSS_CURVES


@dataclass(frozen=True)
class Trainings:
    """What a recipe trained.

    Attributes:
        models: Rows of `training.tables.TRAINED_MODELS` with `target` and `ratio`, "" where there is none, and
            `n_tokens_read`, the tokens of all epochs; in the order of the recipe's outputs.
        curves: Columns `key`, `epoch`, `loss`, of every model once; neighbouring steps are averaged.
    """

    models: pl.DataFrame
    curves: pl.DataFrame


def model_outputs(recipe: Recipe) -> list[ModelsOutput]:
    """Outputs of a recipe that are models."""
    return [output for output in training_outputs(recipe) if isinstance(output, ModelsOutput)]


def read_trainings(recipe: Recipe, warehouse: Warehouse, tables: Snapshot) -> Trainings | None:
    """What was trained; None where a recipe trains nothing. Each output is noted as read.

    Raises:
        WarehouseError: Something has not been made.
    """
    partitions, found = Partitions.of(recipe), []
    for output in model_outputs(recipe):
        definition = partitions.of_output(output.partitions)
        for key in definition.get_partition_keys() if definition else [""]:
            rows, _ = output.read(warehouse, tables, str(key))
            target, ratio = ("", str(key)) if output.partitions == "trained_ratio" else cell_of(key)
            found.append(rows.with_columns(target=pl.lit(target), ratio=pl.lit(ratio)))
    if not found:
        return None
    models = pl.concat(found)
    steps = pl.concat(tables.rows(LOSS_CURVES, key=str(key)) for key in models["key"].unique(maintain_order=True))
    read = steps.group_by("key").agg(n_tokens_read=pl.col("n_tokens").max())
    joined = models.join(read, on="key", how="left", maintain_order="left")
    return Trainings(joined, plots.thinned(steps, "epoch", "loss", by="key"))
