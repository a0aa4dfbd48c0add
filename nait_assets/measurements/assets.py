"""Assets of the measurements: what is found out about each sample, and what is trained to find it out."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.measurements import (
    autoencoder,
    codes,
    embeddings,
    gates,
    gradients,
    judgements,
    less_checkpoints,
    outputs,
    pre_experience,
    ratings,
    rewards,
)
from nait_assets.measurements.autoencoder_training import Trained
from nait_assets.measurements.engine import (
    ROOM,
    Measurement,
    MeasurementContext,
    Update,
    bring_up_to_date,
    corpus_of,
    resting_inputs,
)
from nait_assets.models.config import ExtractionConfig
from nait_assets.models.cost import Cost, add_cost
from nait_assets.models.running import model_inputs
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.tables import CANDIDATE_POOL, IN_DOMAIN_SET

MEASUREMENTS: tuple[Measurement, ...] = (
    embeddings.MEASUREMENT,
    gates.MEASUREMENT,
    judgements.MEASUREMENT,
    gradients.MEASUREMENT,
    codes.MEASUREMENT,
    *outputs.MEASUREMENTS,
    ratings.MEASUREMENT,
    rewards.MEASUREMENT,
)
"""What is found out about samples beside their activations; an asset of one that no method reads is left out."""


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """Every measurement; `definitions` leaves out those that no method reads."""
    return [
        _less_checkpoints(recipe),
        _pre_experienced_model(recipe),
        _sparse_autoencoder(recipe),
        *(asset for measurement in MEASUREMENTS for asset in measurement_assets(measurement, recipe, partitions)),
    ]


def _less_checkpoints(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        name="less_checkpoints",
        deps=[dg.AssetKey(CANDIDATE_POOL.asset.split("/"))],
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"pytorch", "huggingface"},
        code_version=f"{less_checkpoints.ALGORITHM}:{fingerprint(less_checkpoints.settings(recipe))}",
        automation_condition=when_inputs_change(),
        pool="language_model",
    )
    def checkpoints(
        context: dg.AssetExecutionContext, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """The warm-up of LESS: a LoRA adapter trained on a share of the pool, and Adam's state after each epoch.

        A folder of files, one folder an epoch.
        """
        with warehouse.tables.snapshot() as snapshot:
            candidates = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        folder, started = warehouse.trained(less_checkpoints.ASSET), time.monotonic()
        outcome = less_checkpoints.warm_up(candidates, recipe, language_model, folder, inputs, context.log.info)
        record = lineage.record_of(context, folder_version(folder), inputs)
        with warehouse.tables.transaction() as transaction:
            transaction.put_record(record)
            add_cost(transaction, record.asset, "", replace(outcome.cost, seconds=time.monotonic() - started))
        metadata = {
            "dagster/uri": str(folder),
            "n_samples": outcome.n_samples,
            "n_refused": len(outcome.refused),
            "n_epochs_resumed": outcome.n_resumed,
            "loss": [round(checkpoint.state["loss"], 4) for checkpoint in outcome.checkpoints],
            "learning_rate": [checkpoint.state["learning_rate"] for checkpoint in outcome.checkpoints],
        }
        return lineage.result(record, metadata)

    return checkpoints


def _pre_experienced_model(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        name="pre_experienced_model",
        deps=[dg.AssetKey(CANDIDATE_POOL.asset.split("/"))],
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"pytorch", "huggingface"},
        code_version=f"{pre_experience.ALGORITHM}:{fingerprint(pre_experience.settings(recipe))}",
        automation_condition=when_inputs_change(),
        pool="language_model",
    )
    def pre_experienced_model(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """The model after a brief training on a few varied candidates, used to score the others.

        A folder of files: weights and tokenizer.
        """
        with warehouse.tables.snapshot() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        folder, started = warehouse.trained(outputs.PRE_EXPERIENCED_MODEL), time.monotonic()
        found = pre_experience.gain_experience(
            pool,
            language_model,
            recipe.extraction,
            recipe.options.ifd_pre_experienced,
            config.options(),
            folder,
            context.log.info,
        )
        record = lineage.record_of(context, folder_version(folder), inputs)
        with warehouse.tables.transaction() as transaction:
            transaction.put_record(record)
            add_cost(transaction, record.asset, "", replace(found.cost, seconds=time.monotonic() - started))
        metadata = {
            "dagster/uri": str(folder),
            "n_samples": len(found.sample_ids),
            "n_clusters": found.n_clusters,
            "n_refused": found.n_refused,
            "loss": [round(loss, 4) for loss in found.losses],
        }
        return lineage.result(record, metadata)

    return pre_experienced_model


def _sparse_autoencoder(recipe: Recipe) -> dg.AssetsDefinition:
    named = recipe.options.mona.sparse_autoencoder is not None

    @dg.asset(
        name="sparse_autoencoder",
        deps=[] if named else [dg.AssetKey(CANDIDATE_POOL.asset.split("/"))],
        key_prefix=ROOM,
        group_name=ROOM,
        kinds={"pytorch", "huggingface"} if named else {"pytorch"},
        code_version=f"{autoencoder.VERSION}:{fingerprint(autoencoder.settings(recipe))}",
        automation_condition=when_inputs_change(),
        pool="language_model",
    )
    def sparse_autoencoder(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """The sparse autoencoder: trained on the pool, or given by the recipe.

        A folder of files: weights and figures; of one that the recipe names, its place and version. One that was
        trained is frozen: a pool that changes keeps it.
        """
        folder, started = warehouse.trained(autoencoder.ASSET), time.monotonic()
        inputs = autoencoder.outside(recipe, language_model)
        if named:
            made = autoencoder.note(recipe, language_model, folder)
        else:
            with warehouse.tables.snapshot() as snapshot:
                pool = snapshot.read(CANDIDATE_POOL)
                before = snapshot.records().get(autoencoder.ASSET)
            inputs |= snapshot.inputs
            made = autoencoder.make(recipe, language_model, pool, folder, before, config.options(), context.log.info)
        record = lineage.record_of(context, folder_version(folder), inputs)
        cost = replace(made.cost, seconds=time.monotonic() - started)
        with warehouse.tables.transaction() as transaction:
            transaction.put_record(record)
            total = add_cost(transaction, record.asset, "", cost)
        shown = {
            "dagster/uri": str(folder),
            "kept": made.kept,
            **made.shown,
            **(_training(made.trained) if made.trained else {}),
            "seconds": round(cost.seconds, 2),
            "cost_so_far": dg.MetadataValue.json({name: round(value, 2) for name, value in vars(total).items()}),
        }
        return lineage.result(record, shown)

    return sparse_autoencoder


def _training(trained: Trained) -> dict[str, object]:
    curve = pl.DataFrame(trained.curve, ["step", "variance_unexplained"], orient="row")
    figures = {name: value for name, value in vars(trained).items() if name not in ("identity", "curve")}
    return {**figures, "loss_curve": plots.line(curve, "step", "variance_unexplained")}


def measurement_assets(measurement: Measurement, recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of a measurement: of the candidates, and of the in-domain examples of each capability."""
    common: dict[str, Any] = {
        "key_prefix": ROOM,
        "group_name": ROOM,
        "kinds": set(measurement.kinds),
        "code_version": measurement.code_version(recipe),
        "automation_condition": when_inputs_change(),
        "pool": measurement.pool,
    }
    rests_on = [dg.AssetKey(asset.split("/")) for asset in measurement.rests_on]

    @dg.asset(
        name=f"candidate_{measurement.name}",
        description=f"{measurement.description} Of the candidates.",
        deps=[dg.AssetKey(CANDIDATE_POOL.asset.split("/")), *rests_on],
        **common,
    )
    def of_candidates(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        return _write_measurement(context, config, warehouse, language_model, measurement, recipe, POOL)

    @dg.asset(
        name=f"in_domain_{measurement.name}",
        description=f"{measurement.description} Of the in-domain examples.",
        deps=[dg.AssetKey(IN_DOMAIN_SET.asset.split("/")), *rests_on],
        partitions_def=partitions.with_examples,
        **common,
    )
    def of_examples(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        return _write_measurement(
            context, config, warehouse, language_model, measurement, recipe, context.partition_key
        )

    return [of_candidates, *([of_examples] if recipe.capabilities_with_examples else [])]


def _write_measurement(
    context: dg.AssetExecutionContext,
    config: ExtractionConfig,
    warehouse: Warehouse,
    model: LanguageModel,
    measurement: Measurement,
    recipe: Recipe,
    corpus: str,
) -> dg.MaterializeResult:
    _, corpus_inputs = corpus_of(warehouse, corpus)
    inputs = {**resting_inputs(warehouse, measurement), **measurement.outside(recipe, model)}
    measurement_context = MeasurementContext(recipe, warehouse, model, config.options(), corpus, context.log.info)
    outcome = bring_up_to_date(
        measurement,
        measurement_context,
        inputs,
        lambda version: lineage.record_of(context, version, {**corpus_inputs, **inputs}),
    )
    record = warehouse.measurement(measurement.name, corpus).records()[
        lineage.reference(lineage.asset_name(context), lineage.partition_name(context))
    ]
    with warehouse.tables.transaction() as transaction:
        total = add_cost(transaction, record.asset, record.partition, outcome.cost)
    return lineage.result(record, _measurement_metadata(outcome, total))


def _measurement_metadata(outcome: Update, total: Cost) -> dict[str, object]:
    reasons = Counter(reason for _, reason in outcome.rejected).most_common(10)
    cut = {"n_truncated": int(outcome.rows["truncated"].sum())} if "truncated" in outcome.rows.columns else {}
    return {
        "dagster/row_count": len(outcome.rows),
        **cut,
        "dagster/column_schema": lineage.column_schema(outcome.rows),
        "n_read": outcome.n_read,
        "n_removed": outcome.n_removed,
        "n_rejected": len(outcome.rejected),
        "rejected": dg.MetadataValue.md("\n".join(f"- {count} × {reason}" for reason, count in reasons) or "none"),
        **{name: round(value, 2) for name, value in vars(outcome.cost).items()},
        "cost_so_far": dg.MetadataValue.json({name: round(value, 2) for name, value in vars(total).items()}),
    }
