"""Assets of the extraction."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from nait_assets import lineage, plots
from nait_assets.automation import when_inputs_change
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import CALIBRATION
from nait_assets.extraction.calibration import calibrate, projector_of
from nait_assets.extraction.cost import Cost, add_cost
from nait_assets.extraction.extractor import ALGORITHM, Outcome, RunOptions, extract, model_inputs
from nait_assets.extraction.readings import (
    embeddings,
    experience,
    gates,
    gradients,
    judgements,
    less_checkpoints,
    outputs,
    ratings,
    rewards,
)
from nait_assets.extraction.readings.engine import (
    Read,
    Reading,
    ReadingContext,
    bring_up_to_date,
    corpus_of,
    resting_inputs,
)
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.files import folder_version
from nait_assets.resources.warehouse import Store
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL, IN_DOMAIN_SET, Table, content_version

ROOM = "extraction"
READINGS: tuple[Reading, ...] = (
    embeddings.READING,
    gates.READING,
    judgements.READING,
    gradients.READING,
    *outputs.READINGS,
    ratings.READING,
    rewards.READING,
)
"""What is found out about samples beside their activations; an asset of one that no method reads is left out."""


class ExtractionConfig(dg.Config):
    """How the model is run; none of it changes what is computed, save for rounding."""

    batch_tokens: int | None = Field(default=None, ge=1, description="Most tokens of a batch; what suits the device.")
    shard_tokens: int = Field(
        default=32768, ge=1, description="Tokens after which batches are stored: what a killed run loses at most."
    )
    engine: Literal["local", "ray"] = Field(default="local", description="This process, or a pool of Ray actors.")
    ray_address: str | None = Field(default=None, description="Of a running cluster; starts Ray here by default.")
    ray_workers: int = Field(default=2, ge=1, description="Actors; each loads the model once.")
    ray_cpus: float = Field(default=1.0, gt=0, description="CPUs of each actor.")
    ray_gpus: float = Field(default=0.0, ge=0, description="GPUs of each actor.")

    def options(self) -> RunOptions:
        """The same without Dagster."""
        return RunOptions(**self.model_dump())


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The activations of the candidates and of the in-domain sets."""
    common: dict[str, Any] = {
        "key_prefix": ROOM,
        "group_name": ROOM,
        "kinds": {"pytorch", "duckdb"},
        "code_version": f"{ALGORITHM}:{fingerprint(recipe.model, recipe.extraction)}",
        "automation_condition": when_inputs_change(),
        "pool": "language_model",
    }

    pool = dg.AssetDep(dg.AssetKey(["corpora", "candidate_pool"]))
    calibration = [dg.AssetDep(dg.AssetKey(CALIBRATION.split("/")))] if recipe.extraction.projection else []

    @dg.asset(deps=[pool], **common)
    def calibration_statistics(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """What a projection standardises with: every neuron's mean and spread over a sample of the pool.

        One row is one layer. It is frozen: a pool that changes keeps it.
        """
        with warehouse.tables.reading() as snapshot:
            candidates = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        frame, outcome = calibrate(
            candidates, language_model, recipe.extraction, warehouse, config.options(), context.log.info
        )
        record = lineage.record_of(context, content_version(frame, CALIBRATION_STATISTICS.key), inputs)
        with warehouse.tables.writing() as transaction:
            transaction.replace(CALIBRATION_STATISTICS, frame)
            transaction.put_record(record)
        shown = {"n_samples": int(frame["n_samples"][0]), "kept": outcome is None}
        return lineage.result(record, {**shown, **(_metadata(outcome) if outcome else {})})

    @dg.asset(deps=[pool, *calibration], **common)
    def candidate_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each candidate activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, the first token left out. With a
        projection, one row is one sample: its projection, and its strongest neurons.
        """
        return _write(context, config, warehouse, language_model, recipe, POOL, CANDIDATE_POOL)

    @dg.asset(
        deps=[dg.AssetKey(["corpora", "in_domain_set"]), *calibration],
        partitions_def=partitions.with_examples,
        **common,
    )
    def in_domain_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each in-domain example activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, and those of its first and last token,
        whose difference is the activation change of NAIT's eq. 2. With a projection as for the candidates.
        """
        capability = context.partition_key
        return _write(
            context, config, warehouse, language_model, recipe, capability, IN_DOMAIN_SET, capability=capability
        )

    return [
        *([calibration_statistics] if recipe.extraction.projection else []),
        candidate_activations,
        *([in_domain_activations] if recipe.capabilities_with_examples else []),
        _less_checkpoints(recipe),
        _pre_experienced_model(recipe),
        *(asset for reading in READINGS for asset in reading_assets(reading, recipe, partitions)),
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
        """The warm-up of LESS: a LoRA adapter trained on a share of the pool, and what Adam knew at each epoch's end.

        A folder of files, one folder an epoch.
        """
        with warehouse.tables.reading() as snapshot:
            candidates = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        folder, started = warehouse.trained(less_checkpoints.ASSET), time.monotonic()
        outcome = less_checkpoints.warm_up(candidates, recipe, language_model, folder, inputs, context.log.info)
        record = lineage.record_of(context, folder_version(folder), inputs)
        with warehouse.tables.writing() as transaction:
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
        code_version=f"{experience.ALGORITHM}:{fingerprint(experience.settings(recipe))}",
        automation_condition=when_inputs_change(),
        pool="language_model",
    )
    def pre_experienced_model(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """The model after a brief training on a few varied candidates, which is to judge the others.

        A folder of files: weights and tokenizer.
        """
        with warehouse.tables.reading() as snapshot:
            pool = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        folder, started = warehouse.trained(outputs.PRE_EXPERIENCED_MODEL), time.monotonic()
        found = experience.gain_experience(
            pool,
            language_model,
            recipe.extraction,
            recipe.options.ifd_pre_experienced,
            config.options(),
            folder,
            context.log.info,
        )
        record = lineage.record_of(context, folder_version(folder), inputs)
        with warehouse.tables.writing() as transaction:
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


def reading_assets(reading: Reading, recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The assets of a reading: of the candidates, and of the in-domain examples of each capability."""
    common: dict[str, Any] = {
        "key_prefix": reading.room,
        "group_name": reading.room,
        "kinds": set(reading.kinds),
        "code_version": reading.code_version(recipe),
        "automation_condition": when_inputs_change(),
        "pool": reading.pool,
    }
    rests_on = [dg.AssetKey(asset.split("/")) for asset in reading.rests_on]

    @dg.asset(
        name=f"candidate_{reading.name}",
        description=f"{reading.description} Of the candidates.",
        deps=[dg.AssetKey(CANDIDATE_POOL.asset.split("/")), *rests_on],
        **common,
    )
    def of_candidates(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        return _write_reading(context, config, warehouse, language_model, reading, recipe, POOL)

    @dg.asset(
        name=f"in_domain_{reading.name}",
        description=f"{reading.description} Of the in-domain examples.",
        deps=[dg.AssetKey(IN_DOMAIN_SET.asset.split("/")), *rests_on],
        partitions_def=partitions.with_examples,
        **common,
    )
    def of_examples(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        return _write_reading(context, config, warehouse, language_model, reading, recipe, context.partition_key)

    return [of_candidates, *([of_examples] if recipe.capabilities_with_examples else [])]


def _write_reading(
    context: dg.AssetExecutionContext,
    config: ExtractionConfig,
    warehouse: Warehouse,
    model: LanguageModel,
    reading: Reading,
    recipe: Recipe,
    corpus: str,
) -> dg.MaterializeResult:
    _, corpus_inputs = corpus_of(warehouse, corpus)
    inputs = {**resting_inputs(warehouse, reading), **reading.outside(recipe, model)}
    reading_context = ReadingContext(recipe, warehouse, model, config.options(), corpus, context.log.info)
    outcome = bring_up_to_date(
        reading,
        reading_context,
        inputs,
        lambda version: lineage.record_of(context, version, {**corpus_inputs, **inputs}),
    )
    record = warehouse.reading(reading.name, corpus).records()[
        lineage.reference(lineage.asset_name(context), lineage.partition_name(context))
    ]
    with warehouse.tables.writing() as transaction:
        total = add_cost(transaction, record.asset, record.partition, outcome.cost)
    return lineage.result(record, _reading_metadata(outcome, total))


def _reading_metadata(outcome: Read, total: Cost) -> dict[str, object]:
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


def _write(
    context: dg.AssetExecutionContext,
    config: ExtractionConfig,
    warehouse: Warehouse,
    model: LanguageModel,
    recipe: Recipe,
    name: str,
    table: Table,
    **where: str,
) -> dg.MaterializeResult:
    with warehouse.tables.reading() as snapshot:
        corpus = snapshot.read(table, **where)
    projector, calibration, calibration_inputs = projector_of(warehouse, recipe.extraction)
    inputs = {**snapshot.inputs, **calibration_inputs, **model_inputs(model, recipe.model.source)}
    store = warehouse.activations(name)
    outcome = extract(
        corpus,
        name,
        model,
        recipe.extraction,
        store,
        bool(where) and projector is None,
        config.options(),
        lambda version: lineage.record_of(context, version, inputs),
        context.log.info,
        projector,
        calibration,
    )
    cost = Cost(outcome.n_extracted, n_tokens=outcome.n_tokens, seconds=outcome.seconds)
    with warehouse.tables.writing() as transaction:
        add_cost(transaction, lineage.asset_name(context), lineage.partition_name(context), cost)
    n_rows = len(outcome.sample_ids) * (1 if projector else len(outcome.layers))
    where_it_lies = {"dagster/uri": str(store.path), "dagster/table_name": "extraction.activation"}
    metadata = {**where_it_lies, "dagster/row_count": n_rows, **_metadata(outcome)}
    metadata |= _lengths(store, recipe.extraction.max_tokens)
    return lineage.result(lineage.record_of(context, outcome.data_version, inputs), metadata)


def _lengths(store: Store, max_tokens: int) -> dict[str, object]:
    """How long the samples of a table are, and how many of them were cut."""
    with store.reading() as snapshot:
        samples = activation_table.samples(snapshot)
    share = samples["truncated"].sum() / max(1, len(samples))
    limit = {"max_tokens": float(max_tokens)} if share else None
    return {
        "share_truncated": float(share),
        "median_tokens": float(samples["n_tokens"].median() or 0),  # type: ignore[arg-type]
        "length_distribution": plots.histogram(samples, "n_tokens", limit, legend_title="limit"),
    }


def _metadata(outcome: Outcome) -> dict[str, object]:
    return {
        "n_samples": len(outcome.sample_ids),
        "n_extracted": outcome.n_extracted,
        "n_removed": outcome.n_removed,
        "n_rejected": outcome.n_rejected,
        "n_truncated": outcome.n_truncated,
        "n_tokens": outcome.n_tokens,
        "seconds": round(outcome.seconds, 2),
        "tokens_per_second": round(outcome.n_tokens / outcome.seconds, 1) if outcome.seconds else 0.0,
        "peak_memory_gb": round(outcome.peak_memory_bytes / 1e9, 3),
        "device": outcome.device,
        "dtype": outcome.dtype,
        "engine": outcome.engine,
        "layers": f"{outcome.layers[0]} to {outcome.layers[-1]} ({len(outcome.layers)})",
        "width": outcome.width,
        "extraction_id": outcome.extraction_id,
    }
