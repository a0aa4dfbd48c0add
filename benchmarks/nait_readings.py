"""The readings of NAIT's rule that `nait_variants.py` compares, and the scores that candidates get by each.

One reading is one way to make a direction out of a capability's examples, and to score candidates along it. All are
made from the vectors of a `nait_passes.Pass`, layer by layer; no model runs here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from nait_passes import KINDS, Pass

from nait_assets.recipe import POOL

POOLINGS = ("every token", "all but the first", "answer")
CHANGES = (
    ("last - first", "BOS"),
    ("last - first", "word"),
    ("mean - first", "BOS"),
    ("mean - first", "word"),
    ("mean", ""),
)
NORMS, CENTRINGS = ("none", "unit", "standardised"), ("none", "pool")
EXAMPLES = ("all", "whole")
DIRECTIONS = (
    "component, sign by change",
    "component, sign as computed",
    "component, sign by pool",
    "mean",
    "mean, own lengths",
)
AGGREGATIONS = ("sum", "cosines", "cosine")
"""Over layers: the sum of dot products (their mean gives the same order), of cosines, or one cosine of all together."""
AXES = (
    "template",
    "site",
    "pooling",
    "change",
    "first",
    "candidate",
    "normalisation",
    "centring",
    "examples",
    "direction",
    "aggregation",
)
NAIT = {
    "template": "chat",
    "site": "mlp",
    "pooling": "all but the first",
    "change": "last - first",
    "first": "BOS",
    "candidate": "mean",
    "normalisation": "none",
    "centring": "none",
    "examples": "whole",
    "direction": "component, sign by change",
    "aggregation": "sum",
}
"""The method `nait`; for a model without a chat template, under plain headings."""
STANDARDIZED = NAIT | {
    "change": "mean",
    "first": "",
    "normalisation": "standardised",
    "centring": "pool",
    "examples": "all",
    "direction": "mean, own lengths",
    "aggregation": "cosine",
}
"""The method `nait_standardized`."""
LEAST_VARIANCE = 1e-9
"""Of the changes' squared length: what varies less is rounding, as of answers of one token, which change nothing."""
FEWEST_WHOLE = 4
"""Whole examples of a capability below which all are taken."""


@dataclass(frozen=True)
class Rows:
    """Which rows of a pass's arrays are what, once they are taken in `order`: the candidates, then the examples.

    Attributes:
        order: Rows of the arrays; candidates by their ids.
        candidates: Of the pool.
        examples: By capability, its examples.
        whole: By capability, those that are read whole; all where these are too few.
        n_tokens: Tokens of each.
    """

    order: np.ndarray
    candidates: slice
    examples: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]
    n_tokens: np.ndarray

    @classmethod
    def of(cls, samples: pl.DataFrame) -> "Rows":
        """Of the samples of a pass."""
        is_candidate = pl.col("corpus") == POOL
        pool = samples.filter(is_candidate).sort("sample_id")
        ordered = pl.concat([pool, samples.filter(~is_candidate)]).with_row_index("place")
        examples, whole = {}, {}
        for (name,), frame in ordered.filter(~is_candidate).group_by("corpus", maintain_order=True):
            uncut = frame.filter(~pl.col("is_cut"))
            examples[str(name)] = frame["place"].to_numpy()
            whole[str(name)] = (uncut if len(uncut) >= FEWEST_WHOLE else frame)["place"].to_numpy()
        order, n_tokens = ordered["row"].to_numpy(), ordered["n_tokens"].to_numpy()
        return cls(order, slice(0, len(pool)), examples, whole, n_tokens)


def scored(read: Pass, site: str) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """Each reading at a site of a pass, and its scores `(n_capabilities, n_candidates)`.

    Args:
        read: Its samples and arrays.
        site: Which arrays are read.
    """
    rows = Rows.of(read.samples)
    sums: dict[tuple[str, ...], _Sums] = {}
    arrays = np.array(read.arrays[site])  # in memory: a layer's rows lie apart in the file
    for layer in range(arrays.shape[2]):
        kept = arrays[:, :, layer][:, rows.order]
        for pooling in POOLINGS:
            quantities = quantities_of(kept, read.begins[site][layer], pooling, rows.n_tokens)
            spread = quantities["mean", ""][rows.candidates].std(axis=0)
            for norm, centring in product(NORMS, CENTRINGS):
                made = {key: _transformed(values, spread, rows, norm, centring) for key, values in quantities.items()}
                _add_layer(sums, (pooling, norm, centring), made, rows)
    for (pooling, norm, centring, candidate, change, first, examples), total in sums.items():
        for (aggregation, direction), scores in total.finished(norm == "unit"):
            values = read.template, site, pooling, change, first, candidate, norm, centring, examples, direction
            yield dict(zip(AXES, (*values, aggregation), strict=True)), scores


def quantities_of(
    kept: np.ndarray, begin: np.ndarray, pooling: str, n_tokens: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """By change and first token, `(n_samples, width)` of a layer; the change `mean` is the mean activation itself.

    Args:
        kept: `(n_kinds, n_samples, width)` of the layer.
        begin: `(width,)`: activations of the sample's first token.
        pooling: Tokens that are read.
        n_tokens: Tokens of each sample, the first included.
    """
    of_kind = dict(zip(KINDS, kept, strict=True))
    first, last, mean = (of_kind[f"answer_{end}" if pooling == "answer" else end] for end in ("first", "last", "mean"))
    if pooling == "every token":
        mean = mean + (begin - mean) / n_tokens[:, None].astype(np.float32)
    starts = {"BOS": begin, "word": first}
    ends = {"last - first": last, "mean - first": mean}
    return {(change, start): mean if change == "mean" else ends[change] - starts[start] for change, start in CHANGES}


def direction_of(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first principal component `(width,)` of changes `(n_examples, width)`, and their mean.

    The component is of length 1 and points where its largest entry is positive, as scikit-learn has it; both are zeros
    where nothing changes.
    """
    mean = change.mean(axis=0)
    centred = (change - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # as wide as there are examples, not neurons
    component = centred.T @ vectors[:, -1]
    length = np.linalg.norm(component)
    if values[-1] <= LEAST_VARIANCE * (change.astype(np.float64) ** 2).sum():
        return np.zeros_like(mean), mean
    component *= np.sign(component[np.abs(component).argmax()]) / length
    return component.astype(np.float32), mean


class _Sums:
    """Scores of readings while layers come in; the readings differ in the direction and in the aggregation."""

    def __init__(self) -> None:
        self._dots: np.ndarray | float = 0.0
        self._cosines: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, dots: np.ndarray, norms: np.ndarray) -> None:
        """A layer's dot products `(n_directions, n_capabilities, n_candidates)`, and the candidates' norms."""
        self._dots = self._dots + dots
        self._cosines = self._cosines + dots[:-1] / norms
        self._squares = self._squares + norms**2

    def finished(self, is_unit: bool) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
        """By aggregation and direction, the scores; of vectors of length 1 all aggregations are the sum."""
        parts = {"sum": self._dots, "cosines": self._cosines, "cosine": self._dots / np.sqrt(self._squares)}
        for aggregation in AGGREGATIONS[:1] if is_unit else AGGREGATIONS:
            for direction, scores in zip(DIRECTIONS, np.asarray(parts[aggregation]), strict=False):
                yield (aggregation, direction), scores


def _transformed(values: np.ndarray, spread: np.ndarray, rows: Rows, norm: str, centring: str) -> np.ndarray:
    """A quantity of all samples, centred by the pool's mean of it, and in standard deviations of the pool's means."""
    if centring == "pool":
        values = values - values[rows.candidates].mean(axis=0)
    if norm == "standardised":
        values = values * np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    if norm == "unit":
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values


def _add_layer(
    sums: dict[tuple[str, ...], _Sums],
    group: tuple[str, str, str],
    made: Mapping[tuple[str, str], np.ndarray],
    rows: Rows,
) -> None:
    """Add a layer to the sums of a pooling, normalisation and centring."""
    means = made["mean", ""]
    norms = np.maximum(np.linalg.norm(means[rows.candidates], axis=1), 1e-12)
    for key, values in made.items():
        for kind in EXAMPLES:
            of = rows.examples if kind == "all" else rows.whole
            found = [direction_of(values[chosen]) for chosen in of.values()]
            dots = _dots(means, found, of, rows.candidates)
            sums.setdefault((*group, "mean", *key, kind), _Sums()).add(dots, norms)
            if key[0] == "last - first" and group[0] != "every token":  # the ends are the same with the first token
                own = np.maximum(np.linalg.norm(values[rows.candidates], axis=1), 1e-12)
                sums.setdefault((*group, "change", *key, kind), _Sums()).add(
                    _dots(values, found, of, rows.candidates), own
                )


def _dots(
    values: np.ndarray,
    found: list[tuple[np.ndarray, np.ndarray]],
    examples: Mapping[str, np.ndarray],
    candidates: slice,
) -> np.ndarray:
    """`(n_directions, n_capabilities, n_candidates)` of what candidates are scored by, along each direction."""
    components, means = (np.stack(vectors) for vectors in zip(*found, strict=True))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    along_component = components @ values[candidates].T
    along_mean = (means / np.maximum(lengths, 1e-12)) @ values[candidates].T
    by_change = np.sign(np.einsum("cw,cw->c", components, means))
    of_examples = np.asarray([values[chosen].mean(axis=0) for chosen in examples.values()])
    by_pool = np.sign(np.einsum("cw,cw->c", components, of_examples - values[candidates].mean(axis=0)))
    by_change[by_change == 0], by_pool[by_pool == 0] = 1, 1
    return np.stack(
        [
            by_change[:, None] * along_component,
            along_component,
            by_pool[:, None] * along_component,
            along_mean,
            lengths * along_mean,
        ]
    )
