"""Assets of the extraction."""

from typing import Any

import dagster as dg

from nait_assets import lineage, plots
from nait_assets.corpora.catalogue import EXAMPLES_OUTPUT as IN_DOMAIN_SET_OUTPUT
from nait_assets.corpora.catalogue import POOL_OUTPUT, CorpusOutput
from nait_assets.extraction import activation_table
from nait_assets.extraction.calibration import calibrate, projectors_of
from nait_assets.extraction.catalogue import CANDIDATES_OUTPUT, EXAMPLES_OUTPUT, calibration_output
from nait_assets.extraction.extractor import ALGORITHM, Outcome, extract
from nait_assets.losses import as_list, kinds_of_reasons
from nait_assets.models import cuts
from nait_assets.models.config import ExtractionConfig
from nait_assets.models.cost import Cost, add_cost
from nait_assets.models.running import model_inputs
from nait_assets.partitions import Partitions
from nait_assets.recipe import Pooling, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.resources.warehouse import Store
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.tables import CANDIDATE_POOL, REJECTED_SAMPLES


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """The activations of the candidates and of the in-domain sets."""
    common: dict[str, Any] = {
        "kinds": {"pytorch", "duckdb"},
        "code_version": f"{ALGORITHM}:{fingerprint(recipe.model, recipe.extraction)}",
        "pool": "language_model",
    }

    pool = lineage.asset_key(POOL_OUTPUT.key)
    poolings = recipe.extraction.pool if recipe.extraction.projection else ()
    calibrations = [_calibration_asset(recipe, partitions, pooling, common) for pooling in poolings]
    calibration = [asset.key for asset in calibrations]

    @dg.asset(**asset_arguments(CANDIDATES_OUTPUT, partitions), deps=[pool, *calibration], **common)
    def candidate_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each candidate activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, the first token left out, and over those
        of each other pooling of the recipe. With a projection, one row is one sample: its projection, and its
        strongest neurons.
        """
        return _write(context, config, warehouse, language_model, recipe, POOL_OUTPUT)

    @dg.asset(
        **asset_arguments(EXAMPLES_OUTPUT, partitions),
        deps=[lineage.asset_key(IN_DOMAIN_SET_OUTPUT.key), *calibration],
        **common,
    )
    def in_domain_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each in-domain example activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, and those of its first and last token,
        whose difference is the activation change of NAIT's eq. 2. With a projection as for the candidates.
        """
        return _write(context, config, warehouse, language_model, recipe, IN_DOMAIN_SET_OUTPUT)

    return [
        *calibrations,
        candidate_activations,
        *([in_domain_activations] if recipe.capabilities_with_examples else []),
    ]


def _calibration_asset(
    recipe: Recipe, partitions: Partitions, pooling: Pooling, common: dict[str, Any]
) -> dg.AssetsDefinition:
    output = calibration_output(pooling)

    @dg.asset(**asset_arguments(output, partitions), deps=[lineage.asset_key(POOL_OUTPUT.key)], **common)
    def calibration_statistics(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """What a projection standardises with: every neuron's mean and spread over a sample of the pool.

        One row is one layer. It is frozen: a pool that changes keeps it.
        """
        with warehouse.tables.snapshot() as snapshot:
            candidates = snapshot.read(CANDIDATE_POOL)
        inputs = {**snapshot.inputs, **model_inputs(language_model, recipe.model.source)}
        frame, outcome = calibrate(
            candidates, language_model, recipe.extraction, warehouse, config.options(), context.log.info, pooling
        )
        shown = {"n_samples": int(frame["n_samples"][0]), "kept": outcome is None}
        metadata = {**shown, **(_metadata(outcome) if outcome else {})}
        return write_table(context, warehouse, output, frame, inputs, metadata)

    return calibration_statistics


def _write(
    context: dg.AssetExecutionContext,
    config: ExtractionConfig,
    warehouse: Warehouse,
    model: LanguageModel,
    recipe: Recipe,
    source: CorpusOutput,
) -> dg.MaterializeResult:
    partition = lineage.partition_name(context)
    name = source.corpus(partition)
    with warehouse.tables.snapshot() as snapshot:
        corpus, _ = source.read(warehouse, snapshot, partition)
    projectors, calibration, calibration_inputs = projectors_of(warehouse, recipe.extraction)
    inputs = {**snapshot.inputs, **calibration_inputs, **model_inputs(model, recipe.model.source)}
    store = activation_table.activations_of(warehouse, name)
    outcome = extract(
        corpus,
        name,
        model,
        recipe.extraction,
        store,
        bool(partition) and not projectors,
        config.options(),
        lambda version: lineage.record_of(context, version, inputs),
        context.log.info,
        projectors,
        calibration,
        activation_table.activations_of(warehouse, recipe.smaller_sets[name][0])
        if name in recipe.smaller_sets
        else None,
    )
    cost = Cost(outcome.n_extracted, n_tokens=outcome.n_tokens, seconds=outcome.seconds)
    with warehouse.tables.transaction() as transaction:
        add_cost(transaction, lineage.asset_name(context), partition, cost)
    n_rows = len(outcome.sample_ids) * (1 if projectors else len(outcome.layers))
    where_it_lies = {"dagster/uri": str(store.path), "dagster/table_name": "extraction.activation"}
    metadata = {**where_it_lies, "dagster/row_count": n_rows, **_metadata(outcome)}
    metadata |= {**_lengths(store, recipe.extraction.max_tokens), **_lost(store, name)}
    return lineage.result(lineage.record_of(context, outcome.data_version, inputs), metadata)


def _lengths(store: Store, max_tokens: int) -> dict[str, object]:
    """How long the samples of a table are, and how many of them were cut."""
    with store.snapshot() as snapshot:
        samples = activation_table.samples(snapshot)
    counts = cuts.counts(samples)
    limit = {"max_tokens": float(max_tokens)} if counts["n_cut"] else None
    return {
        **counts,
        "share_cut": counts["n_cut"] / max(1, len(samples)),
        "median_tokens": float(samples["n_tokens"].median() or 0),  # type: ignore[arg-type]
        "length_distribution": plots.histogram(samples, "n_tokens", limit, legend_title="limit"),
    }


def _lost(store: Store, corpus: str) -> dict[str, object]:
    """Why samples were rejected, the commonest reasons first."""
    with store.snapshot() as snapshot:
        kinds = kinds_of_reasons(snapshot.counted(REJECTED_SAMPLES, "reason", corpus=corpus))
    return {"rejected": dg.MetadataValue.md(as_list(kinds))}


def _metadata(outcome: Outcome) -> dict[str, object]:
    return {
        "n_samples": len(outcome.sample_ids),
        "n_extracted": outcome.n_extracted,
        "n_removed": outcome.n_removed,
        "n_rejected": outcome.n_rejected,
        "n_extracted_cut": outcome.n_cut,
        "n_unshown": outcome.n_unshown,
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
