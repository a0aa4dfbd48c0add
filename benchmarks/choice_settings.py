"""Settings of the methods that read activations, and their scores from means that were read once.

Belongs here: what is tried, and how a pool is scored with it. Does not belong here: by what a setting is judged.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from nait_assets.extraction import activation_table
from nait_assets.extraction.projection import NETWORK
from nait_assets.extraction.statistics import NeuronStatistics, by_layer, neuron_statistics
from nait_assets.recipe import CANDIDATES, EXAMPLES, Pooling, pooled
from nait_assets.resources.warehouse import Store
from nait_assets.scoring.method import ScoringInputs
from nait_assets.scoring.methods import method_named, nait_neighbours, nait_standardized, nait_whitened
from nait_assets.tables import VECTOR

ALL_LAYERS = "all"
LAYERS = {ALL_LAYERS: (0.0, 1.0), "first half": (0.0, 0.5), "middle half": (0.25, 0.75), "second half": (0.5, 1.0)}
"""Shares of the depth from where to where layers are read."""
FACTORS: dict[str, dict[str, Sequence[Any]]] = {
    "nait_standardized": {"similarity": ("cosine", "dot")},
    "nait_whitened": {
        "similarity": ("cosine", "dot"),
        "components": (32, 64, 128, 256),
        "power": (0.0, 0.25, 0.5, 0.75, 1.0),
    },
    "nait_neighbours": {"best": (1, 2, 4, 8, 16), "hubness": (0.0, 0.25, 0.5, 1.0), "neighbours": (10, 50)},
}
"""What is tried of each method, in all combinations, beside pooling; layers at the other defaults alone."""
POOLINGS: tuple[Pooling, ...] = ("all", "answer")
TEXT_METHODS = ("bm25", "dsir", "length_short", "length_long")
SMALLEST_VARIANCE = 1e-9
"""Of the largest: what lies below is rounding."""


@dataclass(frozen=True)
class Setting:
    """A method with its options.

    Attributes:
        method: Name of the method.
        values: Values of its factors; of one that reads text its options, if any.
    """

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it stands in tables."""
        shown = self.values if self.reads_activations else {}
        return ", ".join([self.method, *(f"{factor} {value}" for factor, value in shown.items())])

    @property
    def reads_activations(self) -> bool:
        """Whether it has a pooling; the others read text."""
        return "pool" in self.values

    def options(self) -> Any:
        """Section of the recipe."""
        section = method_named(self.method).options
        given = {name: value for name, value in self.values.items() if name not in ("pool", "layers")}
        return section(**given) if section else None


def defaults(method: str) -> dict[str, Any]:
    """The values of a method's factors that it has where a recipe says nothing."""
    section = method_named(method).options
    assert section is not None
    return {
        "pool": "all",
        "layers": ALL_LAYERS,
        **{name: section.model_fields[name].default for name in FACTORS[method]},
    }


def settings_of(method: str, small: bool = False) -> Iterator[Setting]:
    """All that is tried of a method.

    Args:
        method: One of `FACTORS`.
        small: Whether two values of each factor will do.
    """
    usual, factors = defaults(method), FACTORS[method]
    if small:
        factors = {
            name: (usual[name], *[value for value in values if value != usual[name]][:1])
            for name, values in factors.items()
        }
    for pool in POOLINGS:
        for values in itertools.product(*factors.values()):
            yield Setting(method, {"pool": pool, "layers": ALL_LAYERS, **dict(zip(factors, values, strict=True))})
        for layers in LAYERS:
            if layers != ALL_LAYERS:
                yield Setting(method, {**usual, "pool": pool, "layers": layers})


@dataclass(frozen=True)
class Activations:
    """Mean activations of samples.

    Attributes:
        sample_ids: Ids of the samples.
        means: By pooling and layer, `(n_samples, width)`.
    """

    sample_ids: Sequence[str]
    means: Mapping[Pooling, Mapping[int, np.ndarray]]

    @classmethod
    def of(cls, stores: Sequence[Store]) -> "Activations":
        """Those of several files of one extraction; of a sample in two of them, those of the later one."""
        names: list[str] = []
        parts: dict[Pooling, dict[int, list[np.ndarray]]] = {pooling: {} for pooling in POOLINGS}
        for store in stores:
            with store.snapshot() as snapshot:
                names += activation_table.samples(snapshot)["sample_id"].to_list()
                for pooling, layer in itertools.product(POOLINGS, activation_table.layers_of(snapshot)):
                    found = activation_table.matrix(snapshot, layer, pooled("activation", pooling))
                    parts[pooling].setdefault(layer, []).append(found)
        means = {
            pooling: {layer: np.concatenate(found) for layer, found in of_layer.items()}
            for pooling, of_layer in parts.items()
        }
        return cls(names, means)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.sample_ids)}

    def places(self, sample_ids: Sequence[str]) -> np.ndarray:
        """`(n,)` rows of samples in the matrices."""
        return np.asarray([self._places[name] for name in sample_ids], dtype=np.int64)

    def layers(self, name: str) -> list[int]:
        """The layers that a name of `LAYERS` stands for."""
        every = sorted(next(iter(self.means.values())))
        begin, end = (round(share * len(every)) for share in LAYERS[name])
        return every[begin:end]


@dataclass(frozen=True)
class World:
    """A pool, and targets with their examples.

    Attributes:
        candidates: Columns of `tables.EXAMPLE`.
        examples: By target, the same columns.
    """

    candidates: pl.DataFrame
    examples: Mapping[str, pl.DataFrame]


class Scorer:
    """Scores a world's candidates with any setting.

    A method runs as it is, on coordinates in place of neurons: those of all candidates and examples, standardised by
    the pool, in the space that they span. That is a rotation, so all products and distances are what they were, and
    one row takes as many numbers as there are rows, instead of one for each neuron.
    """

    def __init__(self, world: World, activations: Activations):
        self._world, self._activations = world, activations
        self._candidates = world.candidates.sort("sample_id")
        self._examples = {target: frame.sort("sample_id") for target, frame in world.examples.items()}
        self.sample_ids: list[str] = self._candidates["sample_id"].to_list()
        self._rotated: dict[tuple[str, str], ScoringInputs] = {}
        self._spread: dict[tuple[str, str], Any] = {}

    def scores(self, setting: Setting) -> np.ndarray:
        """`(n_candidates, n_targets)` scores, in the order of the world's targets; NaN without a score."""
        method = method_named(setting.method)
        inputs = replace(self._inputs(setting), options=setting.options())
        if setting.method != nait_whitened.METHOD.name:
            return method.scores(inputs).values
        key = setting.values["pool"], setting.values["layers"]
        if key not in self._spread:
            most = max(FACTORS[setting.method]["components"])
            self._spread[key] = nait_whitened.spread(inputs, most, len(self.sample_ids))
        fitted = nait_whitened.whitening(*self._spread[key], inputs.options)
        return nait_whitened.score(replace(inputs, fitted=fitted))

    def _inputs(self, setting: Setting) -> ScoringInputs:
        if not setting.reads_activations:
            return ScoringInputs(
                self.sample_ids,
                {target: [target] for target in self._examples},
                frames={CANDIDATES: self._candidates},
                by_capability={EXAMPLES: self._examples},
            )
        key = setting.values["pool"], setting.values["layers"]
        if key not in self._rotated:
            self._rotated |= {(key[0], name): found for name, found in self._rotations(key[0]).items()}
        return self._rotated[key]

    def _rotations(self, pooling: Pooling) -> dict[str, ScoringInputs]:
        """By name of layers, the inputs of all methods."""
        names = sorted({name for frame in self._examples.values() for name in frame["sample_id"].to_list()})
        candidates, others = self._activations.places(self.sample_ids), self._activations.places(names)
        rows, n = np.concatenate([candidates, others]), len(candidates)
        products = {name: np.zeros((len(rows), len(rows))) for name in LAYERS}
        for layer, means in self._activations.means[pooling].items():
            statistics = by_layer(neuron_statistics([(layer, np.arange(n), means[candidates])]))[layer]
            standardized = statistics.standardize(means[rows])
            found = standardized @ standardized.T
            for name in LAYERS:
                if layer in self._activations.layers(name):
                    products[name] += found
        return {name: self._rotated_inputs(coordinates_of(found), names) for name, found in products.items()}

    def _rotated_inputs(self, coordinates: np.ndarray, names: Sequence[str]) -> ScoringInputs:
        n, width = len(self.sample_ids), coordinates.shape[1]
        of_name = dict(zip(names, coordinates[n:], strict=True))
        identity = NeuronStatistics(np.zeros(width, np.float32), np.ones(width, np.float32))  # they are standardised
        vectors, centroids = {}, {}
        for target, frame in self._examples.items():
            own = np.stack([of_name[name] for name in frame["sample_id"].to_list()])
            vectors[target] = frame.select(
                "sample_id",
                layer=pl.lit(NETWORK),
                activation=pl.Series(own.tolist(), dtype=VECTOR),
            )
            mean = own.mean(axis=0, dtype=np.float64)
            centroids[target] = pl.DataFrame({"layer": [NETWORK], "centroid": pl.Series([mean.tolist()], dtype=VECTOR)})
        return ScoringInputs(
            self.sample_ids,
            {target: [target] for target in self._examples},
            by_capability={nait_neighbours.EXAMPLES: vectors, nait_standardized.CENTROIDS: centroids},
            blocks=[(NETWORK, np.arange(n), coordinates[:n])],
            statistics={NETWORK: identity},
        )


def coordinates_of(products: np.ndarray) -> np.ndarray:
    """`(n, rank)` float32 rows whose inner products are `(n, n)` `products`."""
    variances, vectors = np.linalg.eigh(products)
    kept = variances > SMALLEST_VARIANCE * variances.max()
    coordinates: np.ndarray = vectors[:, kept] * np.sqrt(variances[kept])
    return coordinates.astype(np.float32)
