"""Why readings of NAIT's rule do what they do: what the activations look like that `nait_variants.py` scores by."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from nait_passes import Pass
from nait_readings import Rows, direction_of, quantities_of
from scipy.stats import spearmanr

CHANGE = ("last - first", "BOS")
"""The change of the paper's eq. 2, with the sample's first token, for which directions are looked at."""


def causes(read: Pass, site: str) -> dict[str, Any]:
    """Figures of a pass and site, of which each explains something.

    Args:
        read: Its samples and arrays.
        site: Which arrays are read.
    """
    rows, layers = Rows.of(read.samples), range(read.arrays[site].shape[2])
    by_layer = [_of_layer(read, site, layer, rows) for layer in layers]
    spread = np.asarray([one["along"].std(axis=1) ** 2 for one in by_layer])  # (n_layers, n_capabilities)
    total = sum(one["along"] for one in by_layer)
    lengths = rows.n_tokens[rows.candidates]
    marks = sorted({0, len(layers) // 4, len(layers) // 2, 3 * len(layers) // 4, len(layers) - 1})
    shown = ("first token", "last token", "mean of the others")
    norms = {name: " / ".join(f"{by_layer[layer]['norms'][name]:.3g}" for layer in marks) for name in shown}
    share = spread / spread.sum(axis=0)
    agree = np.asarray([one["agrees"] for one in by_layer])
    return {
        "model": read.model,
        "template": read.template,
        "site": site,
        "layers shown": " / ".join(map(str, marks)),
        **{f"norm, {name}": value for name, value in norms.items()},
        "largest entry's share of the first token, most over layers": max(one["largest"] for one in by_layer),
        "variance of the changes along the component": _mean(by_layer, "explained"),
        "cosine of two capabilities' components": _mean(by_layer, "alike"),
        "cosine of two capabilities' standardised centroids": _mean(by_layer, "centroids_alike"),
        "share of the score's variance in its three strongest layers": float(
            np.sort(share, axis=0)[-3:].sum(axis=0).mean()
        ),
        "their layers": " ".join(map(str, np.argsort(-share.mean(axis=1))[:3].tolist())),
        "sign by change is the sign by pool": float(agree.mean()),
        "the same, weighted by the score's variance": float((agree * share).sum(axis=0).mean()),
        "correlation of the score with length": float(np.mean([spearmanr(one, lengths).statistic for one in total])),
        "correlation of two capabilities' scores": _alike_scores(total),
    }


def _of_layer(read: Pass, site: str, layer: int, rows: Rows) -> dict[str, Any]:
    kept = read.arrays[site][:, :, layer][:, rows.order]
    begin = read.begins[site][layer]
    quantities = quantities_of(kept, begin, "all but the first", rows.n_tokens)
    pool, mean = rows.candidates, quantities["mean", ""]
    components, agrees, explained = [], [], []
    for chosen in rows.whole.values():
        change = quantities[CHANGE][chosen]
        component, of_change = direction_of(change)
        sign = np.sign(component @ of_change) or 1.0
        components.append(sign * component)
        agrees.append(bool(sign * component @ (mean[chosen].mean(axis=0) - mean[pool].mean(axis=0)) > 0))
        centred = change - change.mean(axis=0)
        explained.append(float(((centred @ component) ** 2).sum() / max((centred**2).sum(), 1e-12)))
    spread = mean[pool].std(axis=0)
    shift = np.stack([mean[chosen].mean(axis=0) for chosen in rows.examples.values()]) - mean[pool].mean(axis=0)
    centroids = np.divide(shift, spread, out=np.zeros_like(shift), where=spread > 0)
    norms = {
        "first token": float(np.linalg.norm(begin)),
        "last token": float(np.linalg.norm(kept[1], axis=1).mean()),
        "mean of the others": float(np.linalg.norm(mean, axis=1).mean()),
    }
    return {
        "norms": norms,
        "largest": float(np.abs(begin).max() ** 2 / max((begin**2).sum(), 1e-12)),
        "along": np.stack(components) @ mean[pool].T,
        "agrees": agrees,
        "explained": float(np.mean(explained)),
        "alike": _alike(np.stack(components)),
        "centroids_alike": _alike(centroids),
    }


def _alike(vectors: np.ndarray) -> float:
    """Mean cosine over pairs."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return float(np.mean([unit[one] @ unit[other] for one, other in combinations(range(len(unit)), 2)]))


def _alike_scores(scores: np.ndarray) -> float:
    pairs = combinations(range(len(scores)), 2)
    return float(np.mean([spearmanr(scores[one], scores[other]).statistic for one, other in pairs]))


def _mean(by_layer: list[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([one[name] for one in by_layer]))
