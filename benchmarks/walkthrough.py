"""One row of the demo followed through the pipeline, with the numbers of every step (`docs/walkthrough.md`).

Every step is computed here with the project's functions, or with numpy, and set beside what the home holds:

    make demo
    python benchmarks/walkthrough.py --sample-id 1c0c7583   # the best candidate for `math` by default
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nait_assets.conversation import sample_id
from nait_assets.extraction import activation_table
from nait_assets.extraction.neurons import Reader
from nait_assets.extraction.statistics import by_layer
from nait_assets.models.encoding import encode
from nait_assets.models.rendering import Renderer
from nait_assets.models.sites import resolve_site
from nait_assets.recipe import Recipe, load_recipe, rounded_up
from nait_assets.resources import LanguageModel, Warehouse, home_of
from nait_assets.scoring.explanation import find_candidate
from nait_assets.tables import CANDIDATE_POOL, NEURON_STATISTICS, STANDARDIZED_CENTROIDS, scores_table

Vectors = dict[int, np.ndarray]


def main() -> None:
    """Print the walk of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--target", default="math", help="a capability")
    parser.add_argument("--sample-id", help="a candidate, or the beginning of its id; the best one by default")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    home = arguments.home or home_of(recipe)
    warehouse = Warehouse(home=str(home))
    with warehouse.tables.snapshot() as tables:
        ranking = tables.read(scores_table("nait_standardized"), target=arguments.target).sort("rank")
        row = find_candidate(tables, arguments.sample_id or ranking["sample_id"][0])
        statistics = by_layer(tables.read(NEURON_STATISTICS))
        feature = tables.read(STANDARDIZED_CENTROIDS, capability=arguments.target)
        n_pool = len(tables.read(CANDIDATE_POOL))
    centroid = {layer: np.asarray(vector) for layer, vector in feature.select("layer", "centroid").iter_rows()}

    print(f"1. the row: row {row['source_row']} of {row['source']}, topic {row['topic']} (which no score reads)")
    for message in row["messages"]:
        print(f"   [{message['role']}] {message['content']}")
    print(f"2. sample_id: {sample_id(row['messages'])}; stored: {row['sample_id']}")
    activations = read(recipe, home, row)
    with activation_table.activations_of(warehouse, "candidates").snapshot() as snapshot:
        stored = activation_table.of_sample(snapshot, row["sample_id"])
    error = max(np.abs(vector - stored[layer]).max() for layer, vector in activations.items())
    print(f"   largest difference from the stored table {error:.1e}")

    z = {layer: statistics[layer].standardize(vector) for layer, vector in activations.items()}
    layer, width = sorted(z)[0], len(z[sorted(z)[0]])
    neuron = int(np.argmax(z[layer] * centroid[layer]))
    mean, deviation = statistics[layer].mean[neuron], statistics[layer].standard_deviation[neuron]
    print(f"5. standardised against the {n_pool} rows of the pool; neuron {neuron} of the {width} of layer {layer}:")
    print(f"   ({activations[layer][neuron]:+.4f} - {mean:+.4f}) / {deviation:.4f} = {z[layer][neuron]:+.2f}")
    n_examples = feature["n_samples"][0]
    print(f"6. centroid of {n_examples} examples of {arguments.target}: {centroid[layer][neuron]:+.2f} there")
    score(z, centroid, ranking, row["sample_id"])
    for ratio in recipe.ratios:
        size = rounded_up(ratio, len(ranking))
        chosen = "chosen" if row["sample_id"] in ranking["sample_id"][:size] else "not chosen"
        print(f"9. {arguments.target}|{ratio}: the {size} best, down to {ranking['score'][size - 1]:.4f}: {chosen}")


def read(recipe: Recipe, home: Path, row: dict[str, Any]) -> Vectors:
    """Tokenise the row and run the model over it: mean activations by layer, `(width,)`."""
    model, settings = LanguageModel.of(recipe, home), recipe.extraction
    tokenizer = model.tokenizer()
    conversation = row["sample_id"], row["messages"]
    ((sample,), _) = encode([conversation], tokenizer, settings)
    text = Renderer.of(tokenizer, settings).text(row["messages"])
    first = " ".join(tokenizer.convert_ids_to_tokens(sample.token_ids[:12]))
    print(f"3. tokens: {len(sample.token_ids)} of {len(text)} characters: {first} ...")
    loaded = model.load()
    reader = Reader(
        loaded, resolve_site(loaded.network, settings.site, settings.layers), keep_first_and_last=True, packs=False
    )
    (batch,) = reader.read([[sample]])
    assert batch.pooled is not None
    columns, layers = batch.pooled.columns, sorted(reader.site.layers)
    print(f"4. the model reads them in {str(loaded.dtype).removeprefix('torch.')}; mean over all tokens but the first")
    print(f"   norms by layer: first token, left out  {norms(layers, columns['first_token_activation'][0])}")
    print(f"                   mean of the others     {norms(layers, columns['activation'][0])}")
    return dict(zip(layers, columns["activation"][0], strict=True))


def norms(layers: list[int], vectors: np.ndarray) -> str:
    """Euclidean norms of vectors, one for each layer."""
    pairs = zip(layers, np.linalg.norm(vectors, axis=1), strict=True)
    return "  ".join(f"{layer}: {norm:.2f}" for layer, norm in pairs)


def score(z: Vectors, centroid: Vectors, ranking: pl.DataFrame, name: str) -> None:
    """Print the cosine over all layers and neurons, and the rank."""
    products = {layer: float(z[layer] @ centroid[layer]) for layer in sorted(z)}
    lengths = [np.sqrt(sum(float(v[layer] @ v[layer]) for layer in z)) for v in (z, centroid)]
    parts = " + ".join(f"{value:.1f}" for value in products.values())
    cosine = sum(products.values()) / (lengths[0] * lengths[1])
    print(f"7. cosine: ({parts}) / ({lengths[0]:.2f} x {lengths[1]:.2f}) = {cosine:.6f}")
    rank, stored = ranking.filter(sample_id=name).select("rank", "score").row(0)
    print(f"8. stored score {stored:.6f}, rank {rank} of {len(ranking)}")


if __name__ == "__main__":
    main()
