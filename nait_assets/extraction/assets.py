"""Assets of the extraction."""

from typing import Any

import dagster as dg
from pydantic import Field

from nait_assets import lineage
from nait_assets.automation import when_inputs_change
from nait_assets.extraction.extractor import ALGORITHM, Budget, Outcome, extract, model_inputs
from nait_assets.partitions import Partitions
from nait_assets.recipe import POOL, Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.tables import CANDIDATE_POOL, IN_DOMAIN_SET, Table

ROOM = "extraction"


class ExtractionConfig(dg.Config):
    """How the model is run; none of it changes what is computed, save for rounding."""

    batch_tokens: int = Field(default=2048, description="Most tokens of a batch, padding included.")
    shard_tokens: int = Field(
        default=32768, description="Tokens after which finished batches are stored: what a killed run loses at most."
    )


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

    @dg.asset(deps=[dg.AssetKey(["corpora", "candidate_pool"])], **common)
    def candidate_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each candidate activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, the first token left out.
        """
        return _write(context, config, warehouse, language_model, recipe, POOL, CANDIDATE_POOL, ends=False)

    @dg.asset(deps=[dg.AssetKey(["corpora", "in_domain_set"])], partitions_def=partitions.with_examples, **common)
    def in_domain_activations(
        context: dg.AssetExecutionContext, config: ExtractionConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        """How each in-domain example activates the model's neurons.

        One row is one sample and layer: the mean activation over its tokens, and those of its first and last token,
        whose difference is the activation change of NAIT's eq. 2.
        """
        capability = context.partition_key
        return _write(
            context,
            config,
            warehouse,
            language_model,
            recipe,
            capability,
            IN_DOMAIN_SET,
            ends=True,
            capability=capability,
        )

    return (
        [candidate_activations, in_domain_activations] if recipe.capabilities_with_examples else [candidate_activations]
    )


def _write(
    context: dg.AssetExecutionContext,
    config: ExtractionConfig,
    warehouse: Warehouse,
    model: LanguageModel,
    recipe: Recipe,
    name: str,
    table: Table,
    ends: bool,
    **where: str,
) -> dg.MaterializeResult:
    with warehouse.tables.reading() as snapshot:
        corpus = snapshot.read(table, **where)
    inputs = {**snapshot.inputs, **model_inputs(model, recipe.model.source)}
    budget = Budget(config.batch_tokens, config.shard_tokens)
    store = warehouse.activations(name)
    outcome = extract(
        corpus,
        name,
        model,
        recipe.extraction,
        store,
        ends,
        budget,
        lambda version: lineage.record_of(context, version, inputs),
        context.log.info,
    )
    metadata = {"dagster/uri": str(store.path), "dagster/table_name": "extraction.activation", **_metadata(outcome)}
    return lineage.result(lineage.record_of(context, outcome.data_version, inputs), metadata)


def _metadata(outcome: Outcome) -> dict[str, object]:
    read = outcome.n_tokens + outcome.n_padding
    return {
        "dagster/row_count": len(outcome.sample_ids) * len(outcome.layers),
        "n_samples": len(outcome.sample_ids),
        "n_extracted": outcome.n_extracted,
        "n_removed": outcome.n_removed,
        "n_rejected": outcome.n_rejected,
        "n_truncated": outcome.n_truncated,
        "n_tokens": outcome.n_tokens,
        "seconds": round(outcome.seconds, 2),
        "tokens_per_second": round(outcome.n_tokens / outcome.seconds, 1) if outcome.seconds else 0.0,
        "padding_share": round(outcome.n_padding / read, 4) if read else 0.0,
        "device": outcome.device,
        "dtype": outcome.dtype,
        "layers": f"{outcome.layers[0]} to {outcome.layers[-1]} ({len(outcome.layers)})",
        "width": outcome.width,
        "extraction_id": outcome.extraction_id,
    }
