"""The forward pass: activations reduced inside the hooks, so that [batch, tokens, neurons] is never kept.

Batches are padded on the right and carry no attention mask: in a causal model no token sees the padding behind it,
and the padding is left out of every mean.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_assets.extraction.encoding import EncodedSample
from nait_assets.extraction.sites import Site
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch


log = logging.getLogger(__name__)


class NonFiniteActivations(RuntimeError):
    """The model computed NaN or infinity; the message names layers and samples."""


@dataclass(frozen=True)
class PooledActivations:
    """Activations of a batch, float32.

    Attributes:
        mean: Over all tokens but the first, `(n_samples, n_layers, width)`.
        first: Of the first token, same shape, or None where it was not asked for.
        last: Of the last token, same shape, or None.
    """

    mean: np.ndarray
    first: np.ndarray | None
    last: np.ndarray | None


class _Enough(Exception):
    """Raised by the last layer's hook: nothing behind it is needed."""


def read_batch(model: LoadedModel, site: Site, batch: Sequence[EncodedSample], ends: bool) -> PooledActivations:
    """Run the model over a batch; one that does not fit in memory is halved until it does.

    Args:
        model: In memory.
        site: Where to read.
        batch: Samples of at least two tokens.
        ends: Whether to keep the first and the last token's activations beside the mean.

    Returns:
        Activations of the samples in their order.

    Raises:
        NonFiniteActivations: A mean is NaN or infinite.
        MemoryError: A sample does not fit in memory by itself.
    """
    try:
        return _read(model, site, batch, ends)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            (sample,) = batch
            raise MemoryError(
                f"sample {sample.sample_id} of {len(sample.token_ids)} tokens does not fit in the memory of "
                f"{model.device} by itself. Use a smaller `extraction.max_tokens`, or a machine with more memory."
            ) from error
    half = len(batch) // 2  # outside of the handler: the error's frames hold the tensors that did not fit
    log.warning("a batch of %d samples does not fit in memory: reading it in two halves", len(batch))
    return _joined([read_batch(model, site, part, ends) for part in (batch[:half], batch[half:])])


def _joined(parts: Sequence[PooledActivations]) -> PooledActivations:
    def join(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    mean = np.concatenate([part.mean for part in parts])
    return PooledActivations(mean, join([part.first for part in parts]), join([part.last for part in parts]))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch has a class of its own for a GPU, and a plain RuntimeError for the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _read(model: LoadedModel, site: Site, batch: Sequence[EncodedSample], ends: bool) -> PooledActivations:
    import torch

    lengths = torch.tensor([len(sample.token_ids) for sample in batch])
    token_ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
    for row, sample in enumerate(batch):
        token_ids[row, : len(sample.token_ids)] = torch.tensor(sample.token_ids)
    positions = torch.arange(token_ids.shape[1])
    pooled = (positions >= 1) & (positions < lengths[:, None])
    weights = (pooled / (lengths[:, None] - 1)).to(model.device, torch.float32)
    last = (lengths - 1).to(model.device)
    kept: list[list[torch.Tensor]] = [[], [], []]

    def reduce(activations: "torch.Tensor") -> None:
        kept[0].append(torch.bmm(weights[:, None], activations.float())[:, 0].cpu())
        if ends:
            kept[1].append(activations[:, 0].float().cpu())
            kept[2].append(activations[torch.arange(len(batch), device=model.device), last].float().cpu())

    with torch.inference_mode():
        _run(model.network, site, token_ids.to(model.device), reduce)
    mean, first, final = (torch.stack(layers, dim=1).numpy() if layers else None for layers in kept)
    assert mean is not None
    _require_finite([kind for kind in (mean, first, final) if kind is not None], site, batch)
    return PooledActivations(mean, first, final)


def _run(network: Any, site: Site, token_ids: "torch.Tensor", reduce: "Callable[[torch.Tensor], None]") -> None:
    """Call the network with a hook on every module of the site, and stop after the last."""
    last_layer = max(site.layers)

    def before(layer: int) -> Callable[..., None]:
        def hook(_module: Any, arguments: tuple[Any, ...]) -> None:
            reduce(arguments[0])
            if layer == last_layer:
                raise _Enough

        return hook

    def after(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _arguments: tuple[Any, ...], output: Any) -> None:
            reduce(output[0] if isinstance(output, tuple) else output)
            if layer == last_layer:
                raise _Enough

        return hook

    handles = []
    try:
        for layer, module in site.modules.items():
            handles.append(
                module.register_forward_pre_hook(before(layer))
                if site.kind == "mlp"
                else module.register_forward_hook(after(layer))
            )
        network(input_ids=token_ids, use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _require_finite(kinds: Sequence[np.ndarray], site: Site, batch: Sequence[EncodedSample]) -> None:
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=2) for values in kinds])
    if finite.all():
        return
    rows, columns = np.nonzero(~finite)
    samples = ", ".join(batch[row].sample_id for row in sorted(set(rows.tolist()))[:10])
    raise NonFiniteActivations(
        f"NaN or infinite activations at site {site.kind!r}, first in layer {site.layers[min(columns.tolist())]}, "
        f"for sample(s) {samples}. Nothing was stored of them. Try `model.dtype: float32`, or look at the weights."
    )
