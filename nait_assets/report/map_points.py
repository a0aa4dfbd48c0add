"""The points of the map: candidates, in-domain examples and the capabilities' means in the same space."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from nait_assets.report import activation_map
from nait_assets.report.overlap import best_targets
from nait_assets.report.page_data import PageData
from nait_assets.report.rows import excerpts

LENGTH = 90


def map_points(page_data: PageData) -> pl.DataFrame:
    """Columns `x`, `y`, `kind`, `target` and `text`, as `charts.candidate_map` draws them."""
    candidates, examples = page_data.candidates, page_data.examples
    assert candidates is not None
    indices = candidates.indices(page_data.on_map)
    means = _mean_activations(page_data)
    layers = (
        np.concatenate(
            [
                candidates.values[indices, number],
                *(gathered.values[:, number] for gathered in examples.values() if gathered.sample_ids),
                *(by_layer[layer][None] for by_layer in means.values()),
            ]
        )
        for number, layer in enumerate(candidates.layers)
    )
    xy = activation_map.coordinates(layers, n_candidates=len(indices))
    best = best_targets(
        {
            name: page_data.subsets[page_data.recommended, name, page_data.recipe.ratios[-1]]
            for name in page_data.recipe.capability_names
        }
    )
    shown = page_data.shown.filter(pl.col("sample_id").is_in(list(page_data.on_map)))
    texts = {row["sample_id"]: excerpts(row["messages"], LENGTH)[0] for row in shown.iter_rows(named=True)}
    rows = [("candidate", best.get(name), texts.get(name, "")) for name in page_data.on_map]
    rows += [("example", name, "") for name, gathered in examples.items() for _ in gathered.sample_ids]
    rows += [("centroid", name, "") for name in means]
    frame = pl.DataFrame(rows, schema={"kind": pl.String, "target": pl.String, "text": pl.String}, orient="row")
    return frame.with_columns(x=pl.Series(xy[:, 0]), y=pl.Series(xy[:, 1]))


def _mean_activations(page_data: PageData) -> dict[str, Mapping[int, np.ndarray]]:
    """By capability and layer, `(width,)`: what its feature says, else the mean of the examples on the map."""
    means: dict[str, Mapping[int, np.ndarray]] = {}
    for name in page_data.recipe.capability_names:
        if name in page_data.centroids:
            vectors = page_data.centroids[name].select("layer", "mean_activation").iter_rows()
            means[name] = {layer: np.asarray(vector, np.float32) for layer, vector in vectors}
        elif name in page_data.examples and page_data.examples[name].sample_ids:
            gathered = page_data.examples[name]
            means[name] = dict(zip(gathered.layers, gathered.values.mean(axis=0), strict=True))
    return means
