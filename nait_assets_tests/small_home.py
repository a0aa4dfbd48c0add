"""A home small enough to follow by hand: ten candidates, two layers of three neurons, written by the project's code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from nait_assets.extraction import activation_table
from nait_assets.extraction.statistics import by_layer, neuron_statistics
from nait_assets.features.centroids import standardized_centroid
from nait_assets.lineage import Record
from nait_assets.recipe import Recipe, load_recipe
from nait_assets.resources import Warehouse
from nait_assets.resources.warehouse import Store, Transaction
from nait_assets.scoring.methods import method_named
from nait_assets.scoring.ranking import ranked
from nait_assets.scoring.view import create_view
from nait_assets.tables import (
    CANDIDATE_POOL,
    IN_DOMAIN_SET,
    NEURON_STATISTICS,
    REJECTED_ROWS,
    REJECTED_SAMPLES,
    STANDARDIZED_CENTROIDS,
    Table,
    scores_table,
)
from nait_assets_tests.scoring.given import for_capabilities

LAYERS, WIDTH, N_TOKENS = (0, 5), 3, 10
WHOLE = {"cut": "", "n_answers": 1, "n_answers_whole": 1}
METHODS_SCORED = ("nait_standardized", "random")
UNREAD = "c9"
"""The candidate that the model could not read."""


def candidates() -> pl.DataFrame:
    """Candidates c0 to c9, half of them about code; c3 has no topic."""
    rows = [
        {
            "sample_id": f"c{number}",
            "messages": [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "answer"}],
            "source": "pool.jsonl",
            "source_row": number,
            "topic": None if number == 3 else ("code", "math")[number % 2],
        }
        for number in range(10)
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_POOL.columns)


def activations() -> dict[int, np.ndarray]:
    """By layer, of the nine candidates that were read, `(9, 3)`."""
    random = np.random.default_rng(0)
    return {layer: random.normal(layer, 1 + layer, (9, WIDTH)).astype(np.float32) for layer in LAYERS}


def small_recipe(folder: Path) -> Recipe:
    """A recipe of two capabilities, whose data and model are never read."""
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
        name: small
        model: {{source: a-model}}
        candidates: {{source: pool.jsonl}}
        capabilities: {{code: {{source: code.jsonl}}, math: {{source: math.jsonl}}}}
        methods: [{", ".join(METHODS_SCORED)}]
        ratios: [0.1, 0.3]
        """
    )
    return load_recipe(path)


def build_home(recipe: Recipe, folder: Path) -> Warehouse:
    """A warehouse with pool, activations, statistics, centroids and scores of every target of the recipe."""
    warehouse, pool, values = Warehouse(home=str(folder)), candidates(), activations()
    ids = [name for name in pool["sample_id"].to_list() if name != UNREAD]
    blocks = [(layer, np.arange(len(ids)), values[layer]) for layer in LAYERS]
    frame = neuron_statistics(blocks)
    statistics = by_layer(frame)
    rejected = {
        "corpus": "",
        "source": "",
        "source_row": None,
        "sample_id": UNREAD,
        "reason": "no token",
        "excerpt": "",
    }
    _write_activations(
        activation_table.activations_of(warehouse, "candidates"),
        "candidate_activations",
        "",
        dict(zip(ids, zip(*values.values(), strict=True), strict=True)),
        [rejected],
    )
    features = {}
    for place, capability in enumerate(recipe.capability_names):
        mean = {layer: np.roll([3.0, 0.0, 1.0], place) for layer in LAYERS}
        features[capability] = pl.DataFrame(
            {
                "layer": LAYERS,
                "centroid": [standardized_centroid(mean[layer], statistics[layer]).tolist() for layer in LAYERS],
                "mean_activation": [mean[layer].tolist() for layer in LAYERS],
                "n_samples": [4] * len(LAYERS),
            }
        )
        example = {f"{capability}-example": tuple(mean[layer].astype(np.float32) for layer in LAYERS)}
        _write_activations(
            activation_table.activations_of(warehouse, capability), "in_domain_activations", capability, example, []
        )
    with warehouse.tables.transaction() as tables:
        _put(tables, CANDIDATE_POOL, pool)
        bad = {**rejected, "source": "pool.jsonl", "source_row": 10, "sample_id": None}
        tables.replace(REJECTED_ROWS, pl.DataFrame([bad, bad], schema=REJECTED_ROWS.columns), corpus="candidates")
        _put(tables, NEURON_STATISTICS, frame)
        for capability, feature in features.items():
            said = [{"role": "user", "content": f"about {capability}"}, {"role": "assistant", "content": "an example"}]
            row = {"sample_id": f"{capability}-example", "messages": said}
            example = pl.DataFrame([row], IN_DOMAIN_SET.written_columns)
            _put(tables, IN_DOMAIN_SET, example, capability=capability)
            _put(tables, STANDARDIZED_CENTROIDS, feature, capability=capability)
        wanted = {
            target: {capability: features[capability] for capability in recipe.capabilities_of(target)}
            for target in recipe.targets
        }
        inputs = for_capabilities(
            ids, STANDARDIZED_CENTROIDS.asset, wanted, blocks=blocks, statistics=statistics, seed=recipe.seed
        )
        for method in METHODS_SCORED:
            for target, scores in zip(wanted, method_named(method).scores(inputs).values.T, strict=True):
                _put(tables, scores_table(method), ranked(ids, scores, {UNREAD: "no token"}), target=target)
        create_view(tables, recipe)
    return warehouse


def _put(tables: Transaction, table: Table, frame: pl.DataFrame, **where: str) -> None:
    tables.replace(table, frame, **where)
    tables.put_record(Record(table.name.replace(".", "/"), "|".join(where.values()), "1", "version"))


def _write_activations(
    store: Store,
    asset: str,
    partition: str,
    samples: Mapping[str, tuple[np.ndarray, ...]],
    rejected: list[dict[str, object]],
) -> None:
    rows = [
        {
            "sample_id": name,
            "layer": layer,
            "n_tokens": N_TOKENS,
            **WHOLE,
            "activation": vector.tolist(),
        }
        for name, vectors in samples.items()
        for layer, vector in zip(LAYERS, vectors, strict=True)
    ]
    schema = activation_table.shard_schema(WIDTH, keep_first_and_last=False)
    with store.transaction() as transaction:
        activation_table.fold(transaction, "extraction-1", list(samples), [pa.Table.from_pylist(rows, schema)], schema)
        transaction.replace(
            REJECTED_SAMPLES, pl.DataFrame(rejected, schema=REJECTED_SAMPLES.columns), corpus=partition or "candidates"
        )
        transaction.put_record(Record(f"extraction/{asset}", partition, "1", "version"))
