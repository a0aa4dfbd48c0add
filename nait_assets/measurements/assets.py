"""Assets of the measurements: what is found out about each sample, and what is trained to find it out."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.corpora.catalogue import EXAMPLES_OUTPUT, POOL_OUTPUT
from nait_assets.lineage import Record, asset_key
from nait_assets.losses import as_list, kinds_of_reasons
from nait_assets.measurements import autoencoder, less_checkpoints, outputs, pre_experience
from nait_assets.measurements.autoencoder_training import Trained
from nait_assets.measurements.catalogue import (
    MEASUREMENTS,
    MeasurementOutput,
    outputs_of,
)
from nait_assets.measurements.engine import (
    Measurement,
    MeasurementContext,
    Update,
    bring_up_to_date,
    corpus_of,
    upstream_versions,
)
from nait_assets.measurements.trained import TrainedOutput
from nait_assets.models import cuts
from nait_assets.models.config import ExtractionConfig
from nait_assets.models.cost import Cost, add_cost
from nait_assets.models.running import RunOptions
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.rooms import asset_arguments
from nait_assets.tables import CANDIDATE_POOL


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """Every measurement; `definitions` leaves out those that no method reads."""
    return [
        *(_trained_asset(training, recipe, partitions) for training in _trainings(recipe)),
        *(asset for measurement in MEASUREMENTS for asset in measurement_assets(measurement, recipe, partitions)),
    ]


@dataclass(frozen=True)
class TrainingContext:
    """What a training may use.

    Attributes:
        recipe: recipe of the model.
        model: language model of the recipe.
        pool: the candidates, columns of `tables.EXAMPLE`; None for what does not rest on them.
        folder: place of the result.
        inputs: versions of all that it rests on, by name.
        before: record of the result that is there, or None.
        options: how the model is run.
        log_line: function that takes lines for people.
    """

    recipe: Recipe
    model: LanguageModel
    pool: pl.DataFrame | None
    folder: Path
    inputs: Mapping[str, str]
    before: Record | None
    options: RunOptions
    log_line: Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """How a folder of files is made, by training or by taking note of one that the recipe names.

    Attributes:
        output: what it makes.
        description: what it is, as Dagster shows it.
        code_version: code version of the asset.
        train: function that fills the folder; it returns what it cost, its seconds excepted, and figures to show.
        upstream: assets that it reads.
        kinds: Dagster's, shown as icons.
    """

    output: TrainedOutput
    description: str
    code_version: str
    train: Callable[[TrainingContext], tuple[Cost, Mapping[str, object]]]
    upstream: tuple[str, ...] = (POOL_OUTPUT.key,)
    kinds: frozenset[str] = frozenset({"pytorch", "huggingface"})


def _trainings(recipe: Recipe) -> Sequence[Training]:
    named = autoencoder.is_named(recipe)
    return (
        Training(
            less_checkpoints.CHECKPOINTS,
            "The warm-up of LESS: a LoRA adapter trained on a share of the pool, and Adam's state "
            "after each epoch.\n\nA folder of files, one folder an epoch.",
            f"{less_checkpoints.ALGORITHM}:{fingerprint(less_checkpoints.settings(recipe))}",
            _warm_up,
        ),
        Training(
            outputs.PRE_EXPERIENCED_MODEL,
            "The model after a brief training on a few varied candidates, used to score the others.\n\n"
            "A folder of files: weights and tokenizer.",
            f"{pre_experience.ALGORITHM}:{fingerprint(pre_experience.settings(recipe))}",
            _gain_experience,
        ),
        Training(
            autoencoder.AUTOENCODER,
            "The sparse autoencoder: trained on the pool, or given by the recipe.\n\nA folder of "
            "files: weights and figures; of one that the recipe names, its place and version. One that was trained is "
            "frozen: a pool that changes keeps it.",
            f"{autoencoder.VERSION}:{fingerprint(autoencoder.settings(recipe))}",
            _note_autoencoder if named else _train_autoencoder,
            () if named else (POOL_OUTPUT.key,),
            frozenset({"pytorch", "huggingface"} if named else {"pytorch"}),
        ),
    )


def _trained_asset(training: Training, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    output = training.output

    @dg.asset(
        **asset_arguments(output, partitions),
        description=training.description,
        deps=[asset_key(key) for key in training.upstream],
        kinds=set(training.kinds),
        code_version=training.code_version,
        pool="language_model",
    )
    def trained(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        started, say = time.monotonic(), context.log.info
        made_from = _training_context(training, recipe, warehouse, language_model, config.options(), say)
        cost, shown = training.train(made_from)
        record = lineage.record_of(context, folder_version(made_from.folder), made_from.inputs)
        cost = replace(cost, seconds=time.monotonic() - started)
        with warehouse.tables.transaction() as transaction:
            transaction.put_record(record)
            total = add_cost(transaction, record.asset, "", cost)
        return lineage.result(record, {"dagster/uri": str(made_from.folder), **shown, **_costs(cost, total)})

    return trained


def _training_context(
    training: Training,
    recipe: Recipe,
    warehouse: Warehouse,
    model: LanguageModel,
    options: RunOptions,
    log_line: Callable[[str], None],
) -> TrainingContext:
    folder, pool, before = training.output.folder(warehouse), None, None
    inputs = training.output.external_versions(recipe, warehouse, model, "")
    if training.upstream:
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL)
            before = snapshot.records().get(training.output.key)
        inputs = {**inputs, **snapshot.inputs}
    return TrainingContext(recipe, model, pool, folder, inputs, before, options, log_line)


def _warm_up(context: TrainingContext) -> tuple[Cost, Mapping[str, object]]:
    assert context.pool is not None
    found = less_checkpoints.warm_up(
        context.pool, context.recipe, context.model, context.folder, context.before, context.log_line
    )
    return found.cost, {
        "n_samples": found.n_samples,
        "n_refused": len(found.refused),
        "n_epochs_resumed": found.n_resumed,
        "loss": [round(checkpoint.state["loss"], 4) for checkpoint in found.checkpoints],
        "learning_rate": [checkpoint.state["learning_rate"] for checkpoint in found.checkpoints],
    }


def _gain_experience(context: TrainingContext) -> tuple[Cost, Mapping[str, object]]:
    assert context.pool is not None
    found = pre_experience.gain_experience(
        context.pool,
        context.model,
        context.recipe.extraction,
        pre_experience.PreExperiencedModelOptions.of(context.recipe),
        context.options,
        context.folder,
        context.log_line,
        context.before,
    )
    if found.kept:
        return found.cost, {"kept": True}
    return found.cost, {
        "n_samples": len(found.sample_ids),
        "n_clusters": found.n_clusters,
        "n_refused": found.n_refused,
        "loss": [round(loss, 4) for loss in found.losses],
    }


def _note_autoencoder(context: TrainingContext) -> tuple[Cost, Mapping[str, object]]:
    made = autoencoder.note(context.recipe, context.model, context.folder)
    return made.cost, {"kept": made.kept, **made.shown}


def _train_autoencoder(context: TrainingContext) -> tuple[Cost, Mapping[str, object]]:
    assert context.pool is not None
    made = autoencoder.make(
        context.recipe,
        context.model,
        context.pool,
        context.folder,
        context.before,
        context.options,
        context.log_line,
    )
    return made.cost, {"kept": made.kept, **made.shown, **(_training(made.trained) if made.trained else {})}


def _training(trained: Trained) -> dict[str, object]:
    curve = pl.DataFrame(trained.curve, ["step", "variance_unexplained"], orient="row")
    figures = {name: value for name, value in vars(trained).items() if name not in ("identity", "curve", "sample_ids")}
    return {**figures, "loss_curve": plots.line(curve, "step", "variance_unexplained")}


def measurement_assets(measurement: Measurement, recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of a measurement: of the candidates, and of the in-domain examples of each capability."""
    candidates, examples = outputs_of(measurement)
    made = [_measurement_asset(candidates, POOL_OUTPUT.key, "Of the candidates.", recipe, partitions)]
    if recipe.capabilities_with_examples:
        said = "Of the in-domain examples."
        made.append(_measurement_asset(examples, EXAMPLES_OUTPUT.key, said, recipe, partitions))
    return made


def _measurement_asset(
    output: MeasurementOutput, corpus: str, of_whom: str, recipe: Recipe, partitions: Partitions
) -> dg.AssetsDefinition:
    measurement = output.measurement

    @dg.asset(
        **asset_arguments(output, partitions),
        description=f"{measurement.description} {of_whom}",
        deps=[asset_key(key) for key in (corpus, *measurement.upstream)],
        kinds=set(measurement.kinds),
        code_version=measurement.code_version(recipe),
        pool=measurement.pool,
    )
    def measured(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        corpus = lineage.partition_name(context) or POOL
        _, corpus_inputs = corpus_of(warehouse, corpus)
        inputs = {**upstream_versions(warehouse, measurement), **measurement.external_versions(recipe, language_model)}
        may_use = MeasurementContext(recipe, warehouse, language_model, config.options(), corpus, context.log.info)

        def record_of(version: str) -> Record:
            return lineage.record_of(context, version, {**corpus_inputs, **inputs})

        update = bring_up_to_date(measurement, may_use, inputs, record_of)
        record = record_of(update.data_version)
        with warehouse.tables.transaction() as transaction:
            total = add_cost(transaction, record.asset, record.partition, update.cost)
        return lineage.result(record, {**_measurement_metadata(update), **_costs(update.cost, total)})

    return measured


def _costs(cost: Cost, total: Cost) -> dict[str, object]:
    """What an output took this time, and over all times."""
    so_far = {name: round(value, 2) for name, value in vars(total).items()}
    now = {name: round(value, 2) for name, value in vars(cost).items()}
    return {**now, "cost_so_far": dg.MetadataValue.json(so_far)}


def _measurement_metadata(update: Update) -> dict[str, object]:
    reasons = kinds_of_reasons(Counter(reason for _, reason in update.rejected))
    columns = update.rows.columns
    cut = {"n_truncated": int(update.rows["truncated"].sum())} if "truncated" in columns else {}
    cut |= cuts.counts_of_rows(update.rows) if "cut" in columns else {}
    return {
        "dagster/row_count": len(update.rows),
        **cut,
        "dagster/column_schema": lineage.column_schema(update.rows),
        "n_read": update.n_read,
        "n_removed": update.n_removed,
        "n_rejected": len(update.rejected),
        "rejected": dg.MetadataValue.md(as_list(reasons)),
    }
