"""One forward pass over a batch, of which several parts are read at once.

Belongs here: what a part says it needs, and the pass that ends once every part has it. Does not belong here: what is
read, which is beside its table (`extraction.neurons`, `measurements.outputs`).
"""

import abc
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from nait_assets.errors import NumericalError
from nait_assets.models import attention
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.batches import Batch, BatchReader, PooledActivations, can_be_packed, require_known_tokens
from nait_assets.models.sites import Site
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

LOGITS, SOFTMAX, TIMES_ON_GPU = 2**23, 2**20, 64
"""Logits that a product makes at once, those of them that a softmax takes at once, and how many times as many on a GPU.

A product wants many rows. Their softmax in float32 wants to stay in the cache: taken of all of them, in memory that the
system gives anew each time, it takes most of the product's time again (`benchmarks/one_pass.py`).
"""
Listener = Callable[[int, "torch.Tensor"], None]
"""Given a layer and its `(1, n_tokens, width)` activations."""


class _Enough(Exception):
    """Raised by a hook: nothing behind it is needed."""


@dataclass(frozen=True)
class End:
    """Where a pass ends.

    Attributes:
        token_ids: `(n_tokens,)`.
        hidden: `(n_tokens, width)`, the last hidden state.
        logits_of: Function from indices to the logits of these tokens, in the dtype of the forward pass.
        vocabulary: Logits of a token.
    """

    token_ids: "torch.Tensor"
    hidden: "torch.Tensor"
    logits_of: "Callable[[torch.Tensor], torch.Tensor]"
    vocabulary: int

    def losses(self, targets: np.ndarray) -> "torch.Tensor":
        """`(n_tokens,)` float32: the cross-entropy of each target given the tokens before it, in nats; 0 elsewhere.

        Args:
            targets: `(n_tokens,)` bool, without the first token of any sample.
        """
        import torch

        device = self.token_ids.device
        losses = torch.zeros(len(self.token_ids), device=device)
        at_once, of_softmax = (
            max(1, number * (TIMES_ON_GPU if device.type == "cuda" else 1) // self.vocabulary)
            for number in (LOGITS, SOFTMAX)
        )
        for block in to_device(np.flatnonzero(targets), device).split(at_once):
            logits = self.logits_of(block - 1)
            for few, of_few in zip(block.split(of_softmax), logits.split(of_softmax), strict=True):
                losses[few] = torch.nn.functional.cross_entropy(of_few.float(), self.token_ids[few], reduction="none")
        return losses


class Reading(abc.ABC):
    """What a part takes from the pass of one batch."""

    def add(self, layer: int, activations: "torch.Tensor") -> None:
        """Take a layer of the part's site, `(n_tokens, width)`; for parts that have one."""
        raise NotImplementedError

    def finish(self, end: End) -> None:
        """Take the end of the pass; for parts that read it."""
        raise NotImplementedError

    @abc.abstractmethod
    def columns(self) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """Which rows and samples are finite `(n_rows, n_samples)`, and the columns, all on the device."""


class Part(abc.ABC):
    """What is read of a forward pass for one table. It keeps nothing of a batch, so batches may overlap.

    Attributes:
        site: Modules that it listens to; None for none.
        reads_end: Whether it reads the last hidden state, for which the pass runs to its end.
        reads_logits: Whether it asks for logits, for which the model needs its head.
    """

    site: Site | None = None
    reads_end: bool = False
    reads_logits: bool = False

    @abc.abstractmethod
    def start(self, batch: Batch, packing: Packing, dtype: "torch.dtype") -> Reading:
        """Begin a batch.

        Args:
            batch: Samples, in the order in which they are packed.
            packing: Where each lies.
            dtype: dtype of the forward pass.
        """

    @abc.abstractmethod
    def trial(self) -> "tuple[Part, Sequence[str]]":
        """What is read of samples side by side and alone to find out whether the two agree, and columns to compare."""

    @property
    def n_rows(self) -> int:
        """Rows of what says what is finite: the site's layers, or one."""
        return len(self.site.layers) if self.site is not None else 1

    @abc.abstractmethod
    def what(self, row: int) -> str:
        """What is not finite in a row, for an error."""


class PassReader(BatchReader):
    """A model in memory of which several parts are read in one pass; each gets what it gets in a pass of its own.

    Args:
        model: Model in memory; with its language-model head where a part reads logits.
        parts: By what stands in front of the names of its columns, such as `outputs/`; before those of a single part
            nothing need.
        packs: Whether samples are read side by side; found out by a trial of each part by default.
    """

    def __init__(self, model: LoadedModel, parts: Mapping[str, Part], packs: bool | None = None):
        self.parts = dict(parts)
        if packs is None:
            trials = [part.trial() for part in self.parts.values()]
            packs = all(
                can_be_packed(model, lambda packs, one=part: PassReader(model, {"": one}, packs), column)  # type: ignore[misc]
                for part, columns in trials
                for column in columns
            )
        super().__init__(model, packs)

    def columns_of(self, part: str, pooled: PooledActivations) -> dict[str, np.ndarray]:
        """The columns of one part, by its own names for them, of what was read."""
        return {name.removeprefix(part): one for name, one in pooled.columns.items() if name.startswith(part)}

    def _forward(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        import torch

        packing = Packing(tuple(len(sample.token_ids) for sample in batch), self.model.device)
        readings = [(part, part.start(batch, packing, self.model.dtype)) for part in self.parts.values()]
        listeners = [
            (part.site, lambda layer, activations, one=reading: one.add(layer, activations[0]))
            for part, reading in readings
            if part.site is not None
        ]
        ending = [reading for part, reading in readings if part.reads_end]
        end = self._pass(batch, packing, listeners, bool(ending))
        for reading in ending:
            assert end is not None
            reading.finish(end)
        finite: list[torch.Tensor] = []
        columns: dict[str, torch.Tensor] = {}
        for name, (_, reading) in zip(self.parts, readings, strict=True):
            are_finite, of_part = reading.columns()
            finite.append(are_finite)
            columns |= {f"{name}{column}": values for column, values in of_part.items()}
        return torch.cat(finite), columns

    def _tried(self, batch: Batch) -> "dict[str, torch.Tensor]":
        parts = {name: part.trial()[0] for name, part in self.parts.items()}
        return PassReader(self.model, parts, self.packs)._forward(batch)[1]

    def _pass(
        self, batch: Batch, packing: Packing, listeners: "Sequence[tuple[Site, Listener]]", to_the_end: bool
    ) -> End | None:
        """One pass, in which listeners hear their sites' layers; its end, or None where nobody needs it."""
        numbers = np.concatenate([sample.token_ids for sample in batch]).astype(np.int64)
        require_known_tokens(numbers, self.model.network)
        token_ids = to_device(numbers, packing.device)
        with _hooks(listeners, to_the_end):
            try:
                return self._packed(token_ids, packing) if self.packs else self._alone(token_ids)
            except _Enough:
                return None

    def _packed(self, token_ids: "torch.Tensor", packing: Packing) -> End:
        positions = np.concatenate([np.arange(length) for length in packing.lengths])
        config = self.model.base.config
        own = config._attn_implementation
        try:
            config._attn_implementation = attention.NAME
            hidden = self.model.base(
                input_ids=token_ids[None],
                position_ids=to_device(positions[None], self.model.device),
                packing=packing,
                use_cache=False,
            )[0][0]
        finally:
            config._attn_implementation = own
        return self._end(token_ids, hidden, lambda indices: self._logits(hidden[indices]))

    def _alone(self, token_ids: "torch.Tensor") -> End:
        """The pass of one sample by the model's own attention, and its head as it is."""
        if not any(part.reads_logits for part in self.parts.values()):
            hidden = self.model.base(input_ids=token_ids[None], use_cache=False)[0][0]
            return self._end(token_ids, hidden, _no_logits)
        caught: list[torch.Tensor] = []
        handle = self.model.base.register_forward_hook(lambda _module, _inputs, output: caught.append(output[0]))
        try:
            logits = self.model.network(input_ids=token_ids[None], use_cache=False).logits[0]
        finally:
            handle.remove()
        return self._end(token_ids, caught[0][0], lambda indices: logits[indices])

    def _end(
        self, token_ids: "torch.Tensor", hidden: "torch.Tensor", logits_of: "Callable[[torch.Tensor], torch.Tensor]"
    ) -> End:
        return End(token_ids, hidden, logits_of, self.model.network.config.vocab_size)

    def _logits(self, hidden: "torch.Tensor") -> "torch.Tensor":
        import torch

        logits = self.model.network.get_output_embeddings()(hidden)
        softcap = getattr(self.model.network.config, "final_logit_softcapping", None)  # Gemma 2
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def _name_the_broken(self, batch: Batch) -> NoReturn:
        """Fail, and name the samples at fault: in a packed batch NaN reaches the means of its neighbours."""
        import torch

        broken: list[str] = []
        rows: list[int] = []
        for sample in batch:
            with torch.inference_mode():
                finite = self._forward([sample])[0].cpu()
            if not finite.all():
                broken.append(sample.sample_id)
                rows.append(int((~finite[:, 0]).nonzero()[0]))
        broken = broken or [sample.sample_id for sample in batch]  # they overflow only side by side
        raise NumericalError(
            f"NaN or infinite {self._what(min(rows, default=0))} for {len(broken)} of {len(batch)} samples of a "
            f"batch: {', '.join(broken[:10])}. Nothing was stored of them. Try `model.dtype: float32`, or look at the "
            "weights."
        )

    def _what(self, row: int) -> str:
        for part in self.parts.values():
            if row < part.n_rows:
                return part.what(row)
            row -= part.n_rows
        raise AssertionError(row)


def finite_samples(columns: "Iterable[torch.Tensor]") -> "torch.Tensor":
    """`(1, n_samples)`: of which samples all columns, `(n_samples, ...)` each, are finite."""
    import torch

    each = [torch.isfinite(column).reshape(len(column), -1).all(dim=1) for column in columns]
    return torch.stack(each).all(dim=0, keepdim=True)


def _no_logits(_indices: "torch.Tensor") -> "torch.Tensor":
    raise AssertionError("no part reads logits")


@contextlib.contextmanager
def _hooks(listeners: "Sequence[tuple[Site, Listener]]", to_the_end: bool) -> Iterator[None]:
    """A hook on every module that is listened to; the last one that is awaited ends the pass, unless its end is."""
    awaited = {(number, layer) for number, (site, _) in enumerate(listeners) for layer in site.layers}

    def hook(number: int, layer: int) -> Callable[..., None]:
        site, listener = listeners[number]

        def read(_module: Any, inputs: tuple[Any, ...], output: Any = None) -> None:
            value = inputs[0] if site.kind == "mlp" else output
            listener(layer, value[0] if isinstance(value, tuple) else value)
            awaited.discard((number, layer))
            if not awaited and not to_the_end:
                raise _Enough

        return read

    handles = []
    for number, (site, _) in enumerate(listeners):
        register = "register_forward_pre_hook" if site.kind == "mlp" else "register_forward_hook"
        handles += [getattr(module, register)(hook(number, layer)) for layer, module in site.modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
