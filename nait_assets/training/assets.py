"""Assets of the training: models of subsets, of references and of probes, and which rows the probes are."""

import dagster as dg
import polars as pl

from nait_assets import lineage, plots
from nait_assets.corpora.catalogue import POOL_OUTPUT
from nait_assets.corpora.eligibility import read_for_eligibility
from nait_assets.lineage import asset_key
from nait_assets.models.cost import Cost
from nait_assets.partitions import Partitions
from nait_assets.recipe import Recipe, fingerprint
from nait_assets.resources import LanguageModel, Warehouse
from nait_assets.rooms import asset_arguments, write_table
from nait_assets.selection.catalogue import subset_output
from nait_assets.shown import as_code, as_list
from nait_assets.training.catalogue import PROBE_SUBSETS_OUTPUT, ModelsOutput, outputs, version_of
from nait_assets.training.config import TrainingConfig
from nait_assets.training.making import Made, make
from nait_assets.training.planned import plan_runs, pool_to_train_on
from nait_assets.training.probes import probe_subsets
from nait_assets.training.runs import ALGORITHM, probe_settings_of, settings_of, training_of
from nait_assets.training.storing import model_rows, store
from nait_assets.training.tables import TRAINED_MODELS

MOST_SHOWN = 50  # models in the table of a materialization
DESCRIPTIONS = {
    "subset": "The base model tuned on the subsets of `{method}`.",
    "matched": "The base model tuned on random rows with the number of answer tokens of the subsets of `{method}`.",
    "full": "The base model tuned on the whole pool.",
    "random": "The base model tuned on random rows, as many as a subset has.",
    "probes": "The base model tuned briefly on each probe: small subsets that no method chose.",
}


def build_assets(recipe: Recipe, partitions: Partitions) -> list[dg.AssetsDefinition]:
    """What the section `training` of a recipe asks for; nothing without it."""
    made = outputs(recipe)
    models = [_models_asset(one, recipe, partitions) for one in made if isinstance(one, ModelsOutput)]
    return [*models, *([_probe_subsets(recipe, partitions)] if PROBE_SUBSETS_OUTPUT in made else [])]


def _models_asset(output: ModelsOutput, recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(output, partitions),
        description=f"{DESCRIPTIONS[output.rows].format(method=output.method)} One row is one model, in a folder.",
        deps=_deps(output, recipe, partitions),
        code_version=_code_version(output, recipe),
        kinds={"pytorch", "huggingface"},
        pool="language_model",
    )
    def models(
        context: dg.AssetExecutionContext, config: TrainingConfig, warehouse: Warehouse, language_model: LanguageModel
    ) -> dg.MaterializeResult:
        partition, say = lineage.partition_name(context), context.log.info
        planned = plan_runs(output, recipe, warehouse, language_model, partition)
        made = make(planned.runs, recipe, planned.base, warehouse.folder, config.options(), say)
        rows = model_rows(made)
        record = lineage.record_of(context, version_of(rows), planned.inputs)
        dropped, cost = store(warehouse, output, record, rows, made)
        return lineage.result(record, _metadata(rows, made, cost, dropped))

    return models


def _deps(output: ModelsOutput, recipe: Recipe, partitions: Partitions) -> list[dg.AssetDep]:
    pool = _pool(recipe)
    read = {
        "subset": [],
        "matched": pool,
        "full": pool,
        "random": pool,
        "probes": [PROBE_SUBSETS_OUTPUT.key, POOL_OUTPUT.key],
    }[output.rows]
    key = asset_key(subset_output(output.method).key)
    subset = [dg.AssetDep(key, partition_mapping=partitions.subsets_to_models())] if output.method else []
    return [*subset, *(dg.AssetDep(asset_key(name)) for name in read)]


def _pool(recipe: Recipe) -> list[str]:
    """What the candidates that may be trained on are taken from."""
    return [POOL_OUTPUT.key, *read_for_eligibility(recipe)]


def _code_version(output: ModelsOutput, recipe: Recipe) -> str:
    training = training_of(recipe)
    settings = probe_settings_of(recipe) if output.rows == "probes" else settings_of(recipe)
    draws = {"matched": training.reference.random_matched, "random": training.reference.random}.get(output.rows, 0)
    return f"{ALGORITHM}:{fingerprint(settings, training.seeds, draws)}"


def _metadata(rows: pl.DataFrame, made: list[Made], cost: Cost, dropped: list[str]) -> dict[str, object]:
    curves = pl.concat(one.curve.select("step", "loss", number=pl.lit(one.run.number)) for one in made)
    notes = [f"{one.run.label}: {note}" for one in made for note in one.notes]
    folders = dict.fromkeys(as_code(one.model.folder) for one in made)
    return {
        "dagster/table_name": TRAINED_MODELS.name,
        "dagster/row_count": len(rows),
        "dagster/column_schema": lineage.column_schema(rows),
        "n_trained": sum(one.trained for one in made),
        "n_shared": sum(not one.trained for one in made),
        "folders": dg.MetadataValue.md("\n".join(f"- {folder}" for folder in folders)),
        "n_tokens": int(rows["n_tokens"].sum()),
        "seconds": round(float(rows["seconds"].sum()), 2),
        "peak_bytes": int(rows["peak_bytes"].max() or 0),  # type: ignore[arg-type]
        "models": lineage.table_metadata(rows.head(MOST_SHOWN).drop("key", "shared_with")),
        "loss_curve": plots.lines(curves, "step", "loss", "number"),
        "cost_so_far": dg.MetadataValue.json({name: round(value, 2) for name, value in vars(cost).items()}),
        "notes": dg.MetadataValue.md(as_list(notes)),
        **({"removed": dropped} if dropped else {}),
    }


def _probe_subsets(recipe: Recipe, partitions: Partitions) -> dg.AssetsDefinition:
    probes = training_of(recipe).probes
    assert probes is not None
    own = {name: getattr(probes, name) for name in ("number", "rows", "uniform", "seed")}

    @dg.asset(
        **asset_arguments(PROBE_SUBSETS_OUTPUT, partitions),
        deps=[asset_key(name) for name in _pool(recipe)],
        code_version=f"{ALGORITHM}:{fingerprint(own)}",
        kinds={"scikitlearn", "duckdb"},
    )
    def subsets(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        """Small subsets of the pool that no method chose. One row is one row of a probe."""
        with warehouse.tables.snapshot() as tables:
            pool, versions = pool_to_train_on(recipe, tables), tables.inputs
        frame = probe_subsets(pool, probes)
        counts = {"n_probes": probes.number, "n_distinct_rows": frame["sample_id"].n_unique()}
        return write_table(context, warehouse, PROBE_SUBSETS_OUTPUT, frame, versions, counts)

    return subsets
