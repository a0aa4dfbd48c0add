"""Storing what was trained: rows, curves and records; and training again what was removed after its evaluation."""

from collections.abc import Callable, Sequence

import polars as pl

from nait_assets.errors import WarehouseError
from nait_assets.lineage import Record, reference
from nait_assets.models.cost import Cost, add_cost
from nait_assets.recipe import Recipe
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.training.catalogue import ModelsOutput, drop_unused, restate
from nait_assets.training.making import Made, TrainingOptions, make
from nait_assets.training.models import Model
from nait_assets.training.planned import plan_runs
from nait_assets.training.tables import LOSS_CURVES, TRAINED_MODELS


def model_rows(made: list[Made]) -> pl.DataFrame:
    """Rows of `tables.TRAINED_MODELS` but the columns of the partition."""
    rows = []
    for one in made:
        said = one.model.manifest
        names = ("n_rows", "n_tokens", "n_answer_tokens", "n_steps", "loss", "seconds", "peak_bytes")
        batch = min(said["settings"]["batch_size"], said["n_rows"])
        shared = "" if said["label"] == one.run.label else said["label"]
        rows.append(
            {
                "number": one.run.number,
                "seed": one.run.seed,
                "key": one.run.key,
                "batch_size": batch,
                "shared_with": shared,
                **{name: said[name] for name in names},
            }
        )
    written = {name: kind for name, kind in TRAINED_MODELS.columns.items() if name not in TRAINED_MODELS.slice_columns}
    return pl.DataFrame(rows, schema=written)


def store(
    warehouse: Warehouse, output: ModelsOutput, record: Record, rows: pl.DataFrame, made: list[Made]
) -> tuple[list[str], Cost]:
    """Write rows, curves and the record of an output's partition.

    Args:
        warehouse: Warehouse of the home.
        output: Output that the models are of.
        record: Version record of the partition.
        rows: Rows of `tables.TRAINED_MODELS`, as `model_rows` gives them.
        made: The models.

    Returns:
        Keys of earlier models that no output has any more, and were removed; and the cost so far.
    """
    where = {"asset": output.key, "partition": record.partition}
    trained = [one for one in made if one.trained]
    n_rows = sum(one.model.manifest["n_rows"] * one.run.settings["epochs"] for one in trained)
    n_tokens = sum(one.model.manifest["n_tokens"] * one.run.settings["epochs"] for one in trained)
    seconds = sum(one.model.manifest["seconds_of_process"] for one in trained)
    with warehouse.tables.transaction() as tables:
        before = output.keys(tables, record.partition)
        tables.replace(TRAINED_MODELS, rows, **where)
        for one in made:
            tables.replace(LOSS_CURVES, one.curve, key=one.run.key)
        dropped = drop_unused(warehouse, tables, before)
        tables.put_record(record)
        restate(warehouse, tables, rows["key"].to_list())
        cost = add_cost(tables, record.asset, record.partition, Cost(n_rows, n_rows, n_tokens, 0, seconds))
    return dropped, cost


def restore(
    models: Sequence[Model],
    output: ModelsOutput,
    partition: str,
    recipe: Recipe,
    warehouse: Warehouse,
    model: LanguageModel,
    log_line: Callable[[str], None],
) -> None:
    """Train those of an output's models again whose weights were removed; nothing where all are there.

    Args:
        models: Models of the output, as `models.trained_models` gives them.
        output: Output that they are of.
        partition: Partition key, or "".
        recipe: Recipe with a section `training`.
        warehouse: Warehouse of the home.
        model: Model of the recipe.
        log_line: Function that takes lines for the run's log.

    Raises:
        WarehouseError: The recipe, or what the models rest on, changed since.
    """
    gone = {one.key for one in models if not one.is_present}
    if not gone:
        return
    planned = plan_runs(output, recipe, warehouse, model, partition)
    runs = [run for run in planned.runs if run.key in gone]
    if {run.key for run in runs} != gone:
        raise WarehouseError(
            f"{reference(output.key, partition)}: its models were removed after their evaluation, and what they were "
            "trained on has changed since. Materialize it first; `nait run` does so in order."
        )
    made = make(runs, recipe, planned.base, warehouse.folder, TrainingOptions(), log_line, with_weights=True)
    with warehouse.tables.transaction() as tables:
        for one in made:
            tables.replace(LOSS_CURVES, one.curve, key=one.run.key)
        restate(warehouse, tables, gone)
