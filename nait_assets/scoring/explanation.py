"""Why candidates score as they do: the reasons that a method gives, from what the warehouse holds.

Belongs here: reading what explanations need. Does not belong here: the reasons (`methods`, `reasons`), whether a
candidate is chosen (`selection.placing`), and what `nait explain` makes of both (`audit.why`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from nait_assets.errors import NotFoundError, WarehouseError
from nait_assets.extraction import activation_table
from nait_assets.extraction.activation_table import IN_DOMAIN_ACTIVATIONS
from nait_assets.extraction.projection import NETWORK
from nait_assets.recipe import ACTIVATIONS, POOL, Pooling, Recipe, pooled
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Snapshot
from nait_assets.scoring.inputs import gathered
from nait_assets.scoring.method import ExampleActivations, Explanation, Method, Parts, Reason
from nait_assets.scoring.methods import method_of
from nait_assets.scoring.reasons import explained
from nait_assets.tables import CALIBRATION_STATISTICS, CANDIDATE_POOL


@dataclass(frozen=True)
class Explained:
    """Explanations of some candidates.

    Attributes:
        explanations: By target and `sample_id`, of those candidates that every output of the method has.
        versions: Versions of what was read for them.
    """

    explanations: Mapping[tuple[str, str], Explanation]
    versions: Mapping[str, str]


def explanations(
    recipe: Recipe, warehouse: Warehouse, method: str, wanted: Mapping[str, Sequence[str]], n: int
) -> Explained:
    """Why candidates score as they do by a method.

    Of a projection, whose numbers mean nothing by themselves, the strongest neurons that were kept beside it are named.
    What a method makes of the whole pool (`Method.fit`) is made once. In memory are the candidates' activations, and of
    one target at a time those of its in-domain examples, with all neurons, and once more as they are compared.

    Args:
        recipe: The recipe.
        warehouse: Where its outputs are.
        method: The method's name.
        wanted: By target, a capability or `all`, the `sample_id` of candidates.
        n: Most reasons, and most nearest examples, for each.

    Raises:
        WarehouseError: Something has not been made, or with a projection where the recipe has none, or the reverse.
    """
    declared = method_of(recipe, method)
    projected = ACTIVATIONS in declared.reads and recipe.extraction.projection is not None
    if ACTIVATIONS in declared.reads:
        with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
            _require(snapshot, projected)
    fitted = None
    if declared.fit is not None and wanted:
        with gathered(recipe, warehouse, method, next(iter(wanted))) as found:
            fitted = declared.fit(found.inputs)
    explanations_: dict[tuple[str, str], Explanation] = {}
    versions: dict[str, str] = {}
    for target, sample_ids in wanted.items():
        examples: dict[str, ExampleActivations] = {}
        if _reads_examples(recipe, declared):
            examples, read = _examples(recipe, warehouse, recipe.pooling_of(method), target)
            versions |= read
        with gathered(recipe, warehouse, method, target, stream_only=sample_ids) as found:
            inputs = replace(found.inputs, blocks=list(found.inputs.blocks), fitted=fitted, examples=examples)
        versions |= found.versions
        known = set(inputs.sample_ids)
        explanations_ |= {
            (target, name): explained(declared, inputs, name, target, n) for name in sample_ids if name in known
        }
    if projected:
        explanations_, read = _by_component(recipe, warehouse, recipe.pooling_of(method), explanations_, n)
        versions |= read
    return Explained(explanations_, versions)


def explained_by(recipe: Recipe, method: Method) -> list[str]:
    """Keys of what `explanations` reads; empty for a method that only says which numbers were read, or draws."""
    if not method.explain or method.seeded:
        return []
    beside = [IN_DOMAIN_ACTIVATIONS] if _reads_examples(recipe, method) else []
    if ACTIVATIONS in method.reads and recipe.extraction.projection:
        beside.append(CALIBRATION_STATISTICS.of_pooling(recipe.pooling_of(method.name)).asset)
    return list(dict.fromkeys([*recipe.reads_of(method.name), *beside]))


def _reads_examples(recipe: Recipe, method: Method) -> bool:
    """Whether the explanations of a method look at the activations of in-domain examples."""
    return method.by_target and ACTIVATIONS in method.reads and recipe.reads_activations_of_examples


def _examples(
    recipe: Recipe, warehouse: Warehouse, pooling: Pooling, target: str
) -> tuple[dict[str, ExampleActivations], dict[str, str]]:
    """The examples of a target by capability, and the versions of what was read; a feature file has no examples."""
    examples: dict[str, ExampleActivations] = {}
    versions: dict[str, str] = {}
    for capability in recipe.capabilities_of(target):
        if not recipe.capability_named(capability).examples:
            continue
        with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
            snapshot.note(IN_DOMAIN_ACTIVATIONS, capability)
            versions |= snapshot.inputs
            sample_ids = activation_table.samples(snapshot)["sample_id"].to_list()
            rows: dict[int, np.ndarray] = {}
            for layer, places, vectors in activation_table.scan(
                snapshot, pooled("activation", pooling), sample_ids=sample_ids
            ):
                of_layer = rows.setdefault(layer, np.zeros((len(sample_ids), vectors.shape[1]), np.float32))
                of_layer[places] = vectors
        examples[capability] = ExampleActivations(sample_ids, rows)
    return examples, versions


def find_candidate(snapshot: Snapshot, sample_id: str) -> dict[str, Any]:
    """A candidate by a unique beginning of its id, columns of `tables.EXAMPLE`.

    Raises:
        NotFoundError: No candidate has it, or several begin so.
        WarehouseError: The pool has not been materialized.
    """
    snapshot.note(CANDIDATE_POOL.asset)
    query = f"SELECT sample_id FROM {CANDIDATE_POOL.name} WHERE starts_with(sample_id, ?)"
    names = [name for (name,) in snapshot.connection.execute(query, [sample_id]).fetchall()]
    pool = snapshot.rows_of(CANDIDATE_POOL, names[:2])
    if len(names) != 1:
        found = f"{len(names)} samples begin so" if names else "no candidate has it"
        raise NotFoundError(
            f"sample id {sample_id!r}: {found} in {snapshot.path}. "
            "Ids are in scoring.scores and in every subset's train.jsonl."
        )
    return pool.row(0, named=True)


def _require(snapshot: Snapshot, projected: bool) -> None:
    if (activation_table.layers_of(snapshot) == [NETWORK]) != projected:
        raise WarehouseError(
            f"{snapshot.path} holds {'neurons' if projected else 'projections'}, and the recipe's "
            f"`extraction.projection` asks for {'projections' if projected else 'neurons'}. `nait run` makes them."
        )


def shared_strength(sample: pl.DataFrame, examples: pl.DataFrame, n: int) -> pl.DataFrame:
    """A sample's strongest neurons, those first that are strong in the target's examples in the same direction.

    Args:
        sample: Columns `layer`, `neuron`, `value`.
        examples: The strongest neurons of the target's in-domain examples, with `sample_id`.
        n: How many neurons.

    Returns:
        Columns `layer`, `neuron`, `value`, `n_examples` that have it among their strongest, `mean_value` there (0
        where it is not), ordered by the product of `value` and the sum over examples.
    """
    among = examples.group_by("layer", "neuron").agg(
        n_examples=pl.col("sample_id").n_unique(), mean_value=pl.col("value").mean(), total=pl.col("value").sum()
    )
    joined = sample.join(among, on=["layer", "neuron"], how="left").with_columns(
        pl.col("n_examples", "mean_value", "total").fill_null(0)
    )
    ordered = joined.sort(
        [pl.col("value") * pl.col("total"), pl.col("value").abs(), "layer", "neuron"],
        descending=[True, True, False, False],
    )
    return ordered.select("layer", "neuron", "value", "n_examples", "mean_value").head(n)


def _by_component(
    recipe: Recipe,
    warehouse: Warehouse,
    pooling: Pooling,
    explanations_: Mapping[tuple[str, str], Explanation],
    n: int,
) -> tuple[dict[tuple[str, str], Explanation], dict[str, str]]:
    """Explanations of a projection in words of the network: by component, and with the strongest neurons.

    Returns:
        The explanations, and the versions of what was read.
    """
    table = CALIBRATION_STATISTICS.of_pooling(pooling)
    with warehouse.tables.snapshot() as tables:
        calibration = tables.read(table.only("layer", "mean", "components")).head(1)
        versions = dict(tables.inputs)
    n_components = calibration["components"].list.len()[0] // calibration["mean"].list.len()[0]
    examples: dict[str, pl.DataFrame] = {}
    for target in dict.fromkeys(target for target, _ in explanations_):
        parts: list[pl.DataFrame] = []
        for capability in recipe.capabilities_of(target):
            if recipe.capability_named(capability).examples:  # a feature file has no examples
                with activation_table.activations_of(warehouse, capability).snapshot() as snapshot:
                    parts.append(activation_table.strongest_neurons(snapshot, pooling=pooling))
        if parts:
            examples[target] = pl.concat(parts)
    found: dict[tuple[str, str], Explanation] = {}
    with activation_table.activations_of(warehouse, POOL).snapshot() as snapshot:
        for (target, name), explanation in explanations_.items():
            sample = activation_table.strongest_neurons(snapshot, name, pooling)
            reasons = _strongest_reasons(sample, examples.get(target, sample.clear()), n)
            parts_ = [_components(one, n_components) for one in explanation.parts]
            heading = "its strongest neurons (layer:neuron, against the calibration sample)"
            found[target, name] = replace(explanation, heading=heading, reasons=reasons, parts=parts_)
    return found, versions


def _components(parts: Parts, n_components: int) -> Parts:
    """Parts by dimension of a projection: its components, and together the dimensions outside of them."""
    if parts.by != "dimension":
        return parts
    shares = list(parts.values.values())
    named = {f"component {number}": share for number, share in enumerate(shares[:n_components], 1)}
    return replace(parts, by="component", values={**named, "all else": sum(shares[n_components:])})


def _strongest_reasons(sample: pl.DataFrame, examples: pl.DataFrame, n: int) -> list[Reason]:
    n_examples = examples["sample_id"].n_unique()
    among = f"{n_examples} examples" if n_examples else "no examples: the target comes from a feature file"
    return [
        Reason(
            f"{row['layer']}:{row['neuron']}",
            f"{row['value']:+.2f} sd here, among the strongest of {row['n_examples']} of {among}"
            + (f", {row['mean_value']:+.2f} sd there" if row["n_examples"] else ""),
            neuron=(row["layer"], row["neuron"]),
            inverted=row["value"] < 0,
        )
        for row in shared_strength(sample, examples, n).iter_rows(named=True)
    ]
