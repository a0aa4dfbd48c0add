"""The forward pass: activations reduced inside the hooks, so that [tokens, neurons] of all layers is never kept.

The samples of a batch lie one after the other without padding (`attention`). A model whose tokens see each other in
another way than by that attention is read one sample at a time, through its own.
"""

import abc
import collections
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_assets.models import attention
from nait_assets.models.encoding import EncodedSample
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

Batch = Sequence[EncodedSample]
log = logging.getLogger(__name__)
LOOK_AHEAD = 2
"""Batches that a GPU works on while earlier ones are stored."""
PROBE_LENGTHS = (11, 7, 9)


@dataclass(frozen=True)
class PooledActivations:
    """Activations of a batch.

    Attributes:
        columns: By column of the activation table, float32 unless said otherwise. `activation`, the mean over all
            tokens but the first, `(n_samples, n_rows, width)`, where a row is a layer, or with a projection all of them
            at once. On request `first_token_activation` and `last_token_activation`, same shape; with a projection
            `strongest_layer` (int16), `strongest_neuron` (int32) and `strongest_value`, `(n_samples, 1, n)`.
    """

    columns: dict[str, np.ndarray]

    @classmethod
    def joined(cls, parts: "Sequence[PooledActivations]") -> "PooledActivations":
        """Several batches as one."""
        return cls({name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns})


@dataclass(frozen=True)
class BatchResult:
    """The result of reading one batch.

    Attributes:
        samples: Samples that could be read.
        pooled: Their activations, in their order; None if there are none.
        rejected: Pairs of `sample_id` and reason for those that fail even when they are read alone.
    """

    samples: tuple[EncodedSample, ...]
    pooled: PooledActivations | None
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Started:
    """A batch on its way: tensors in the host's memory that are whole once `done` is."""

    finite: "torch.Tensor"
    columns: "dict[str, torch.Tensor]"
    done: "torch.cuda.Event | None"


class BatchReader(abc.ABC):
    """A model in memory that turns batches into columns, whatever is read from it; a subclass says what.

    Args:
        model: Model in memory.
        packs: Whether samples are read side by side.
    """

    def __init__(self, model: LoadedModel, packs: bool):
        self.model, self.packs = model, packs
        self._longest_packed = _longest_packed(model.network.config)
        self._window = _window(model.network.config)  # until a trial across it
        self._read_before: tuple[EncodedSample, ...] = ()  # the shortest sample that was read, once there is one
        attention.register()

    @abc.abstractmethod
    def _forward(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """Which rows and samples are finite `(n_rows, n_samples)`, and the columns, all on the device."""

    @abc.abstractmethod
    def _name_the_broken(self, batch: Batch) -> None:
        """Fail with NumericalError, and name the samples at fault."""

    def read(self, batches: Iterable[Batch]) -> Iterator[BatchResult]:
        """Run the model over batches; one that does not fit in memory is halved until it does.

        Args:
            batches: Batches of samples of at least two tokens. A GPU is given the next ones before the first is stored.

        Yields:
            The result of each batch, in order.

        Raises:
            NumericalError: A mean is NaN or infinite.
            MemoryError: No sample of a batch of several fits in memory, nor does one that was read before.
            RuntimeError: Or they all fail for another reason, and so does one that was read before.
        """
        ahead: collections.deque[tuple[Batch, _Started | Exception]] = collections.deque()
        for batch in batches:
            ahead.append((batch, self._attempt(batch)))
            if len(ahead) > (LOOK_AHEAD if self.model.device.type == "cuda" else 0):
                yield self._complete(*ahead.popleft())
        while ahead:
            yield self._complete(*ahead.popleft())

    def _attempt(self, batch: Batch) -> "_Started | Exception":
        try:
            return self._start(batch)
        except (RuntimeError, MemoryError, IndexError) as error:
            return error.with_traceback(None)  # its frames hold the tensors that did not fit

    def _complete(self, batch: Batch, started: "_Started | Exception") -> BatchResult:
        outcome = self._outcome(batch, started)
        result = self._result(batch, outcome)
        if result.samples:
            self._read_before = (min((*result.samples, *self._read_before), key=lambda one: len(one.token_ids)),)
        elif len(batch) > 1 and not self._still_reads():
            assert isinstance(outcome, Exception)
            raise self._hopeless(batch, outcome) from outcome
        return result

    def _still_reads(self) -> bool:
        """Whether a sample that was read before can be read again: then it is the samples that fail, not the model."""
        return bool(self._read_before) and not isinstance(self._attempt(self._read_before), Exception)

    def _outcome(self, batch: Batch, started: "_Started | Exception") -> "PooledActivations | Exception":
        if isinstance(started, Exception):
            return started
        try:
            return self._finish(batch, started)
        except RuntimeError as error:  # a GPU reports errors late
            return error.with_traceback(None)

    def _result(self, batch: Batch, outcome: "PooledActivations | Exception") -> BatchResult:
        """The result of a batch, or of its parts where it failed."""
        if not isinstance(outcome, Exception):
            return BatchResult(tuple(batch), outcome)
        if len(batch) == 1:
            return BatchResult((), None, ((batch[0].sample_id, self._reason(batch[0], outcome)),))
        parts = self._parts(batch, outcome)
        results = [self._result(part, self._outcome(part, self._attempt(part))) for part in parts]
        pooled = [result.pooled for result in results if result.pooled is not None]
        return BatchResult(
            tuple(sample for result in results for sample in result.samples),
            PooledActivations.joined(pooled) if pooled else None,
            tuple(pair for result in results for pair in result.rejected),
        )

    def _parts(self, batch: Batch, error: Exception) -> list[Batch]:
        """A batch in halves if it did not fit in memory, else sample by sample, to find the one at fault."""
        import torch

        if not _is_out_of_memory(error):
            log.warning("a batch of %d samples fails (%s): reading them one by one", len(batch), error)
            return [[sample] for sample in batch]
        log.warning("a batch of %d samples does not fit in memory: reading it in two halves", len(batch))
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return [batch[:half], batch[half:]]

    def _reason(self, sample: EncodedSample, error: Exception) -> str:
        if _is_out_of_memory(error):
            return f"its {len(sample.token_ids)} tokens do not fit in the memory of {self.model.device} by themselves"
        return f"the model fails on it: {type(error).__name__}: {error}"

    def _hopeless(self, batch: Batch, error: Exception) -> Exception:
        if _is_out_of_memory(error):
            return MemoryError(
                f"not one of {len(batch)} samples of at most {max(len(sample.token_ids) for sample in batch)} tokens "
                f"fits in the memory of {self.model.device}. Use a smaller `extraction.max_tokens`, or a machine with "
                "more memory."
            )
        return RuntimeError(f"the model fails on every one of {len(batch)} samples: {type(error).__name__}: {error}")

    def _start(self, batch: Batch) -> _Started:
        import torch

        with torch.inference_mode():
            if self._can_pack(batch) or len(batch) == 1:
                finite, columns = self._forward(batch)
            else:
                singles = [self._forward([sample]) for sample in batch]
                finite = torch.cat([finite for finite, _ in singles], dim=1)
                columns = {name: torch.cat([single[name] for _, single in singles]) for name in singles[0][1]}
            return _to_host(finite, columns)

    def _can_pack(self, batch: Batch) -> bool:
        """Whether these samples can be read side by side; the first that is longer than a window is tried before."""
        longest = max(len(sample.token_ids) for sample in batch)
        if self.packs and longest > self._window:
            self.packs, self._window = self._packs_across(int(self._window)), math.inf
            if not self.packs:
                log.info("%s masks a window by itself: reading one by one", type(self.model.network).__name__)
        return self.packs and longest <= self._longest_packed

    def _packs_across(self, window: int) -> bool:
        """Whether a sample of two windows, packed, comes out as it does alone by the model's own attention.

        Trap: some models (PhiMoE) mask the window in what they hand to their own attention, and tell ours nothing.
        """
        import torch

        config = self.model.network.config
        length = min(2 * window, getattr(config, "max_position_embeddings", None) or 2 * window)
        vocabulary = min(int(config.vocab_size), 1000)
        batch = [EncodedSample("trial", np.arange(121, 121 + length, dtype=np.int32) * 37 % vocabulary)]
        try:
            with torch.inference_mode():
                found = self._tried(batch)
                self.packs = False
                wanted = self._tried(batch)
        except (TypeError, RuntimeError, MemoryError) as error:
            log.info("packing across the window fails: %s", error)
            return False
        return all(
            _agree(column, wanted[name], self.model.dtype)
            for name, column in found.items()
            if column.is_floating_point()
        )

    def _tried(self, batch: Batch) -> "dict[str, torch.Tensor]":
        """Columns that a trial compares: of samples that nobody answers."""
        return self._forward(batch)[1]

    def _finish(self, batch: Batch, started: _Started) -> PooledActivations:
        if started.done is not None:
            started.done.synchronize()
        if not started.finite.all():
            self._name_the_broken(batch)
        return PooledActivations({name: tensor.numpy() for name, tensor in started.columns.items()})


def require_known_tokens(token_ids: np.ndarray, network: Any) -> None:
    """Whether a model's vocabulary has all tokens: on a GPU a failed look-up would end the process' use of it.

    Raises:
        IndexError: It lacks one, as where a tokenizer has tokens that the weights do not.
    """
    vocabulary = network.config.vocab_size
    if token_ids.max() >= vocabulary:
        raise IndexError(f"token {token_ids.max()} is not among the model's {vocabulary}")


def can_be_packed(model: LoadedModel, reader: Callable[[bool], BatchReader], column: str) -> bool:
    """Whether three short samples, packed, come out as they do one by one through the model's own attention.

    They do not where tokens see each other in another way, as in state-space layers, or with a rule that the packed
    attention does not know.

    Args:
        model: Model in memory.
        reader: Makes a reader of it that packs, or one that does not.
        column: What to compare; every number of it takes part in the norm.
    """
    packs = _packs(model, reader, column)
    if not packs:
        log.info("%s cannot be packed: reading one sample at a time", type(model.network).__name__)
    return packs


def _packs(model: LoadedModel, reader: Callable[[bool], BatchReader], column: str) -> bool:
    import torch

    if not getattr(model.network, "_supports_attention_backend", False):
        return False
    if getattr(model.network.config, "attention_chunk_size", None):  # a mask of longer samples than these
        return False
    vocabulary = min(int(model.network.config.vocab_size), 1000)
    batch, neighbour = (  # each of other tokens: what leaks from a neighbour that says the same is not seen
        [
            EncodedSample(str(length), np.arange(start, start + length, dtype=np.int32) * 37 % vocabulary)
            for start, length in zip(starts, PROBE_LENGTHS, strict=True)
        ]
        for starts in ((121, 49, 81), (7, 49, 81))
    )
    packed, single = reader(True), reader(False)
    try:
        with torch.inference_mode():
            found, beside_another = (packed._forward(samples)[1][column] for samples in (batch, neighbour))
            wanted = torch.cat([single._forward([sample])[1][column] for sample in batch])
    except (TypeError, RuntimeError) as error:  # its attention is not told how the batch is packed, or has no kernel
        log.info("packing fails: %s", error)
        return False
    leaks = (beside_another - found)[1:].norm() > 1e-3 * found[1:].norm()  # from the first sample into the others
    return not leaks and _agree(found, wanted, model.dtype)


def _agree(found: "torch.Tensor", wanted: "torch.Tensor", dtype: "torch.dtype") -> bool:
    """Whether two readings differ by no more than rounding in the dtype of the forward pass."""
    import torch

    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    return bool((found - wanted).norm() <= tolerance * wanted.norm())


def _window(config: Any) -> float:
    """Tokens that a model's token sees where it sees only the nearest; infinity where it sees all."""
    sizes = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_window")]
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=math.inf)


def _longest_packed(config: Any) -> float:
    """Tokens of a sample up to which a model's rotary frequencies are the same for all samples.

    Behind them `longrope` (Phi 3 and 4) and `dynamic` take other frequencies, for all that is read at once.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(nested for nested in parameters.values() if isinstance(nested, dict))]  # Gemma 3 has two
    limits = [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=math.inf)


def _to_host(finite: "torch.Tensor", columns: "dict[str, torch.Tensor]") -> _Started:
    """Tensors in the host's memory, on their way there from a GPU."""
    import torch

    if not finite.is_cuda:
        return _Started(finite.cpu(), {name: tensor.cpu() for name, tensor in columns.items()}, None)

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

    host = copied(finite), {name: copied(tensor) for name, tensor in columns.items()}
    done = torch.cuda.Event()
    done.record()
    return _Started(*host, done)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch has a class of its own for a GPU, and a plain RuntimeError for the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
