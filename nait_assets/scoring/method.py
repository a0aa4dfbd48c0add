"""What a method is, and how its scores become ranks."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl

from nait_assets.extraction.statistics import NeuronStatistics
from nait_assets.recipe import Section
from nait_assets.resources.row_blocks import RowBlock
from nait_assets.scoring.by_example import ByExample
from nait_assets.scoring.rows import CandidateRows, blocks_of, frame_of, rows_of

Value = TypeVar("Value")
Block = tuple[int, np.ndarray, np.ndarray]
"""Layer, indices of samples `(n,)`, their activations `(n, width)`."""


@runtime_checkable
class PartlyRead(Protocol):
    """Blocks of which those of some candidates can be read alone."""

    def of(self, sample_ids: Sequence[str]) -> Iterable[Block]: ...  # noqa: D102


@dataclass(frozen=True)
class ExampleActivations:
    """Activations of a capability's in-domain examples.

    Attributes:
        sample_ids: The examples.
        by_layer: By layer `(n_examples, width)`, float32, in their order.
    """

    sample_ids: list[str]
    by_layer: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class ScoringInputs:
    """What a method may read: the outputs that it declares under `reads`, in any combination.

    Attributes:
        sample_ids: Candidates that every one of these outputs has, in ascending order.
        targets: Capabilities that each target combines: one, or for `all` every one.
        frames: Rows about candidates, by output key: one for each of `sample_ids`, in their order; or, of an output
            with other rows (a published list), as it is. They are read by `of` and `rows`.
        by_capability: Rows about capabilities, by output key and capability: a feature with one row a layer, or a
            measurement with one row an in-domain example. It holds every capability of `targets`.
        blocks: Activations of the candidates, indices counted along `sample_ids`; each iteration streams the table
            anew. Empty for a method that does not read them.
        statistics: Statistics of the neurons by layer, over the pool; empty for a method that does not read them.
        seed: The recipe's `seed`.
        options: The method's section of the recipe, if it has one.
        fitted: What the method's `fit` made of these inputs, if it has one.
        examples: For explanations alone: by capability of the target, activations of its in-domain examples, of a
            method that reads activations; a capability that comes from a feature file has none.
        scratch: Folder for what does not fit the memory; the system's for temporary files by default.
    """

    sample_ids: list[str]
    targets: Mapping[str, Sequence[str]]
    frames: Mapping[str, CandidateRows] = field(default_factory=dict)
    by_capability: Mapping[str, Mapping[str, pl.DataFrame]] = field(default_factory=dict)
    blocks: Iterable[Block] = ()
    statistics: Mapping[int, NeuronStatistics] = field(default_factory=dict)
    seed: int = 0
    options: Any = None
    fitted: Any = None
    examples: Mapping[str, ExampleActivations] = field(default_factory=dict)
    scratch: Path | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, what: Hashable, make: Callable[[], Value]) -> Value:
        """What an explanation needs whatever the candidate, made for the first one; `replace` begins anew.

        Args:
            what: Name of it, distinct within the method.
            make: Function that makes it of these inputs alone.
        """
        if what not in self._made:
            self._made[what] = make()
        found: Value = self._made[what]
        return found

    def of(self, key: str, *columns: str) -> pl.DataFrame:
        """Rows of an output about candidates, in memory: of a large pool, name columns of single numbers.

        Args:
            key: Key of the output.
            *columns: Columns that are wanted, all by default.

        Raises:
            KeyError: The method does not declare it; the message lists what it may read.
        """
        rows = _declared(self.frames, key)
        return self.once(("rows", key, columns), lambda: frame_of(rows, *columns))

    def rows(self, key: str, *columns: str) -> Iterator[RowBlock]:
        """As `of`, some rows after the other: their indices along `sample_ids`, and they; for vectors and texts."""
        return blocks_of(_declared(self.frames, key), *columns)

    def of_capabilities(self, key: str) -> Mapping[str, pl.DataFrame]:
        """Rows of an output about capabilities, by capability.

        Raises:
            KeyError: The method does not declare it; the message lists what it may read.
        """
        return _declared(self.by_capability, key)

    def same_for_all_targets(self, values: np.ndarray) -> np.ndarray:
        """`(n_candidates, n_targets)` of `(n_candidates,)`: scores of a method that does not look at the target."""
        return np.repeat(np.asarray(values, dtype=np.float64)[:, None], len(self.targets), axis=1)

    def for_each_target(self, of_capability: Mapping[str, Any]) -> dict[str, list[Any]]:
        """By target, what belongs to its capabilities."""
        return {target: [of_capability[name] for name in names] for target, names in self.targets.items()}

    def only(self, sample_id: str) -> "ScoringInputs":
        """The same of one candidate, without activations."""
        frames = {key: rows_of(rows, [sample_id]) for key, rows in self.frames.items()}
        return replace(self, sample_ids=[sample_id], frames=frames, blocks=())

    def blocks_of(self, sample_ids: Sequence[str]) -> Iterable[Block]:
        """Activations of some candidates, and perhaps of others, from no more of the table than has to be read."""
        return self.blocks.of(sample_ids) if isinstance(self.blocks, PartlyRead) else self.blocks

    def activations_of(self, sample_id: str) -> dict[int, np.ndarray]:
        """One candidate's activations by layer, each `(width,)`; it reads all blocks."""
        index = self.sample_ids.index(sample_id)
        return {
            layer: activations[indices == index][0]
            for layer, indices, activations in self.blocks
            if (indices == index).any()
        }


def blocks_at(blocks: Iterable[Block], places: Sequence[int] | np.ndarray, n_samples: int) -> Iterator[Block]:
    """Of blocks, the activations of the candidates at some places, indices counted along these.

    Args:
        blocks: Activations of candidates.
        places: Indices of the candidates wanted.
        n_samples: Number of candidates along which the blocks' indices count.
    """
    row_of = np.full(n_samples, -1)
    row_of[places] = np.arange(len(places))
    for layer, indices, activations in blocks:
        wanted = row_of[indices] >= 0
        if wanted.any():
            yield layer, row_of[indices[wanted]], activations[wanted]


def _declared(outputs: Mapping[str, Any], key: str) -> Any:
    if key not in outputs:
        raise KeyError(f"{key!r} is not among what the method declares to read: {', '.join(outputs) or 'nothing'}")
    return outputs[key]


@dataclass(frozen=True)
class Rows:
    """What was read of some samples, be they candidates or examples.

    Attributes:
        sample_ids: Their ids.
        activations: By layer `(n_rows, width)`, float32, as the model has them; empty for a method that reads none.
        frames: By key of an output about candidates, a row for each of them, in their order.
    """

    sample_ids: Sequence[str]
    activations: Mapping[int, np.ndarray]
    frames: Mapping[str, pl.DataFrame]

    def take(self, places: Sequence[int]) -> "Rows":
        """Some of them, in the order of their places."""
        wanted = list(places)
        return Rows(
            [self.sample_ids[place] for place in wanted],
            {layer: matrix[wanted] for layer, matrix in self.activations.items()},
            {key: frame[wanted] for key, frame in self.frames.items()},
        )

    def as_candidates(self, inputs: ScoringInputs) -> ScoringInputs:
        """The inputs of a method with these rows as all its candidates."""
        blocks = [(layer, np.arange(len(matrix)), matrix) for layer, matrix in self.activations.items()]
        frames = {**inputs.frames, **self.frames}
        return replace(inputs, sample_ids=list(self.sample_ids), blocks=blocks, frames=frames)


@dataclass(frozen=True)
class StandIns:
    """How rows stand in for a capability's examples in a method, and examples for candidates.

    Attributes:
        key: Key of the output about capabilities that it is about.
        capability: Function from rows and the method's inputs to what that output would hold of a capability whose
            examples were these rows.
        examples: Function from the method's inputs and a capability to its examples, in ascending order of their ids;
            None where they were not read, as of a feature file.
        nearest: Whether a candidate is scored by the nearest examples alone. Rows are nearer to other rows of their own
            pool than to examples from elsewhere, so that such scores against random rows are no chance.
    """

    key: str
    capability: Callable[[Rows, ScoringInputs], pl.DataFrame]
    examples: Callable[[ScoringInputs, str], Rows | None]
    nearest: bool = False


@dataclass(frozen=True)
class Scores:
    """What a method says of the candidates.

    Attributes:
        values: `(n_candidates, n_targets)` float64, higher is better, targets in the order of the inputs' `targets`;
            NaN for a candidate without a score.
        reasons: Why a candidate has no score, by its `sample_id`; the same for all targets.
        by_example: By target, `(n_candidates, n_examples)` scores for each of the target's examples, of a method that
            has them, as `scored_by_example` makes them; from them comes the round robin over examples.
    """

    values: np.ndarray
    reasons: Mapping[str, str] = field(default_factory=dict)
    by_example: Mapping[str, np.ndarray | ByExample] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """One of the things that explain a candidate's score.

    Attributes:
        label: What it is, short enough for a table's cell: `12:345` for neuron 345 of layer 12.
        detail: Its numbers.
        share: What it adds to the score, where the score is a sum of such things; None elsewhere.
        neuron: Layer and index within it, of a neuron that adds the more to the score the more active it is; or, with
            `inverted`, the less.
        inverted: Whether the neuron speaks for the candidate by being less active than in the pool.
    """

    label: str
    detail: str
    share: float | None = None
    neuron: tuple[int, int] | None = None
    inverted: bool = False


CANCELS = 0.2
"""A sum smaller than this share of the sizes of its parts has no percentages."""


@dataclass(frozen=True)
class Parts:
    """A score taken apart: everything that was added up to it.

    Attributes:
        by: What a part is, in the singular: `layer`, `component`, `word`.
        values: What each part adds, by its name, in units of the score; they add up to it, but for rounding.
    """

    by: str
    values: Mapping[str, float]

    @property
    def total(self) -> float:
        """What they add up to."""
        return float(sum(self.values.values()))

    @property
    def size(self) -> float:
        """Sum of the sizes of the parts, whatever their signs."""
        return float(sum(map(abs, self.values.values())))

    def largest(self, n: int) -> list[tuple[str, float]]:
        """The parts of the largest sizes, the largest first, and at the end what all others add, if there are any."""
        order = sorted(self.values.items(), key=lambda item: -abs(item[1]))
        shown = order if len(order) <= n + 1 else order[:n]
        others = len(order) - len(shown)
        return [*shown, (f"{others:,} others", sum(value for _, value in order[n:]))] if others else shown

    def percent(self, value: float) -> str:
        """A share of the whole in per cent; "" where the parts so cancel each other out that it would be thousands."""
        return f"{value / self.total:.1%}" if abs(self.total) > CANCELS * self.size else ""


@dataclass(frozen=True)
class Face:
    """A row of the pool on which a neuron, or a component, is among its largest values, or among its smallest.

    Attributes:
        sample_id: The row.
        deviations: Its value less the pool's mean, in standard deviations of the pool.
    """

    sample_id: str
    deviations: float


@dataclass(frozen=True)
class Near:
    """How near a candidate is to an in-domain example.

    Attributes:
        sample_id: The example.
        capability: The capability that it is an example of.
        value: How near; the larger the nearer.
    """

    sample_id: str
    capability: str
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why a candidate scores as it does for a target.

    Attributes:
        heading: What the reasons are.
        reasons: The most important one first.
        parts: The score as a sum, in one way or in several: by layer, by component; none of a score that is no sum.
        faces: By name of a part that has no meaning by itself, such as a component, rows of the pool that have the most
            of it in the candidate's direction.
        spread: Over how many things the score is spread, in words.
        near: The nearest in-domain examples, the nearest first; none of a method that knows no examples.
        nearness: What `near` measures, in words.
        usual: For scale, how near is usual, in words.
    """

    heading: str
    reasons: Sequence[Reason]
    parts: Sequence[Parts] = ()
    faces: Mapping[str, Sequence[Face]] = field(default_factory=dict)
    spread: str = ""
    near: Sequence[Near] = ()
    nearness: str = ""
    usual: str = ""


@dataclass(frozen=True)
class Method:
    """A way to score candidates, and all that the rest of the project has to know of it.

    The docstring of the module that declares it has its formula, departures from its source, limits and cost, under
    these four headings.

    Attributes:
        name: Name in recipes, asset keys and tables; matches [a-z0-9_]+.
        description: What puts a candidate first, in a sentence; shown in Dagster.
        reads: Keys of the outputs that the scores rest on; what no method of a recipe reads is not made.
        score: Function from inputs to scores; an array stands for scores of every candidate. A target's scores do not
            depend on the other targets.
        options: Section of the recipe under `options.<name>`; one with a field that has no default must be given.
        by_target: Whether candidates are ordered in another way for each target.
        needs_neurons: Whether it cannot work on a projection.
        seeded: Whether it draws by the recipe's `seed`.
        recommended: Whether `nait summary` and the report show its rows rather than those of other methods.
        length_is_the_point: Whether nobody need be warned that its scores follow the length of a candidate.
        fit: What scores and explanations rest on that is made of the whole pool, such as its components; it stands in
            the inputs of both as `fitted`.
        reads_if_there: Keys of outputs about examples that it reads too where every capability has examples.
        stand_ins: How rows stand in for examples in it, for `chance`; None where that cannot be made of what is stored.
        version: Version of the algorithm; another one makes the scores stale.
        explain: Why a candidate scores as it does: from inputs that hold it, its `sample_id`, the target and the number
            of reasons wanted. By default the numbers that were read of it, and their percentiles in the pool.
    """

    name: str
    description: str
    reads: tuple[str, ...]
    score: Callable[[ScoringInputs], np.ndarray | Scores]
    options: type[Section] | None = None
    by_target: bool = False
    needs_neurons: bool = False
    seeded: bool = False
    recommended: bool = False
    length_is_the_point: bool = False
    fit: Callable[[ScoringInputs], Any] | None = None
    reads_if_there: tuple[str, ...] = ()
    stand_ins: StandIns | None = None
    version: str = "1"
    explain: Callable[[ScoringInputs, str, str, int], Explanation] | None = None

    def prepared(self, inputs: ScoringInputs) -> ScoringInputs:
        """The inputs with what `fit` makes of them, unless they have it."""
        return replace(inputs, fitted=self.fit(inputs)) if self.fit and inputs.fitted is None else inputs

    def scores(self, inputs: ScoringInputs) -> Scores:
        """The scores of the inputs' candidates for the inputs' targets."""
        found = self.score(self.prepared(inputs))
        return found if isinstance(found, Scores) else Scores(found)
