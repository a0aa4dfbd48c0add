"""The activations of a batch, reduced inside the hooks, so that [tokens, neurons] of all layers is never kept."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_assets.errors import NumericalError
from nait_assets.extraction.projection import Projector
from nait_assets.models import attention
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.batches import Batch, BatchReader, can_be_packed, require_known_tokens
from nait_assets.models.sites import Site
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch


class _Enough(Exception):
    """Raised by the last layer's hook: nothing after it is needed."""


class Reader(BatchReader):
    """A model in memory that turns batches into pooled activations.

    Args:
        model: Model in memory.
        site: Site to read.
        keep_first_and_last: Whether to keep the first and the last token's activations beside the mean.
        projector: Keeps a projection of all layers instead of their neurons.
        packs: Whether samples are read side by side; found out by a trial by default.
        pool: What takes the place of the mean over tokens, with a `mean` of the same shapes; not together
            with `keep_first_and_last`.
    """

    def __init__(
        self,
        model: LoadedModel,
        site: Site,
        keep_first_and_last: bool,
        projector: Projector | None = None,
        packs: bool | None = None,
        pool: "Callable[[Packing, torch.dtype], Any] | None" = None,
    ):
        assert not (keep_first_and_last and projector), "a projection keeps no ends of samples"
        self.site, self.keep_first_and_last, self._pool = site, keep_first_and_last, pool or _Pool
        self._projector = None if projector is None else projector.to(model.device)
        if packs is None:
            packs = can_be_packed(model, lambda packs: Reader(model, site, False, packs=packs), "activation")
        super().__init__(model, packs)

    def _forward(self, batch: Batch) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """Which layers and samples are finite `(n_layers, n_samples)`, and the columns, all on the device."""
        import torch

        device = self.model.device
        packing = Packing(tuple(len(sample.token_ids) for sample in batch), device)
        pool = self._pool(packing, self.model.dtype)
        means: list[torch.Tensor] = []
        first_and_last: list[list[torch.Tensor]] = [[], []]
        finite: list[torch.Tensor] = []
        projected = self._projector.start() if self._projector else None

        def reduce(layer: int, activations: torch.Tensor) -> None:
            mean = pool.mean(activations[0])
            finite.append(torch.isfinite(mean).all(dim=1))
            if projected is None:
                means.append(mean)
            else:
                projected.add(layer, mean)
            if self.keep_first_and_last:
                for kept, positions in zip(first_and_last, (pool.first, pool.last), strict=True):
                    kept.append(activations[0, positions].float())
                for kept in first_and_last:
                    finite[-1] &= torch.isfinite(kept[-1]).all(dim=1)

        self._pass(batch, packing, reduce)
        if projected is not None:
            columns = projected.columns()  # a neuron that hardly varied in the calibration can blow up here
            finite[-1] &= torch.isfinite(columns["activation"][:, 0]).all(dim=1)
            return torch.stack(finite), columns
        columns = {"activation": torch.stack(means, dim=1)}
        if self.keep_first_and_last:
            names = ("first_token_activation", "last_token_activation")
            columns |= {name: torch.stack(kept, dim=1) for name, kept in zip(names, first_and_last, strict=True)}
        return torch.stack(finite), columns

    def tokens(self, batch: Batch) -> np.ndarray:
        """`(n_tokens, width)` float32 of the site's only layer: all tokens but each sample's first, in order.

        Raises:
            NumericalError: One is NaN or infinite.
            RuntimeError: The batch does not fit in memory, or the model fails on it.
        """
        import torch

        (layer,) = self.site.layers
        packs = self._can_pack(batch)
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for part in [batch] if packs else [[sample] for sample in batch]:
                packing = Packing(tuple(len(sample.token_ids) for sample in part), self.model.device)
                self._pass(part, packing, lambda _, activations: found.append(activations[0].float().cpu()))
        kept = np.concatenate([np.arange(len(sample.token_ids)) > 0 for sample in batch])
        tokens = torch.cat(found).numpy()[kept]
        if not np.isfinite(tokens).all():
            names = ", ".join(sample.sample_id for sample in batch[:10])
            raise NumericalError(
                f"NaN or infinite activations at site {self.site.kind!r} of layer {layer}, in a batch of {names}. "
                "Try `model.dtype: float32`, or look at the weights."
            )
        return tokens

    def _pass(self, batch: Batch, packing: Packing, reduce: "Callable[[int, torch.Tensor], None]") -> None:
        """One pass through the network up to the site's last layer, each layer's activations handed to `reduce`."""
        numbers = np.concatenate([sample.token_ids for sample in batch])
        require_known_tokens(numbers, self.model.network)
        token_ids = to_device(numbers[None].astype(np.int64), packing.device)
        arguments: dict[str, Any] = {}
        if self.packs:
            positions = np.concatenate([np.arange(length) for length in packing.lengths])[None]
            arguments = {"position_ids": to_device(positions, packing.device), "packing": packing}
        _run(self.model.network, self.site, reduce, attention.NAME if self.packs else None, token_ids, arguments)

    def _name_the_broken(self, batch: Batch) -> None:
        """Fail, and name the samples at fault: in a packed batch NaN reaches the means of its neighbours."""
        import torch

        broken: list[str] = []
        layers: list[int] = []
        for sample in batch:
            with torch.inference_mode():
                finite = self._forward([sample])[0].cpu()
            if not finite.all():
                broken.append(sample.sample_id)
                layers.append(self.site.layers[int((~finite[:, 0]).nonzero()[0])])
        broken = broken or [sample.sample_id for sample in batch]  # they overflow only side by side
        first = min(layers, default=self.site.layers[0])
        raise NumericalError(
            f"NaN or infinite activations at site {self.site.kind!r}, first in layer {first}, "
            f"for {len(broken)} of {len(batch)} samples of a batch: {', '.join(broken[:10])}. Nothing was stored of "
            "them. Try `model.dtype: float32`, or look at the weights."
        )


class _Pool:
    """Means over the tokens of each sample of a packed batch, the first token left out; float32."""

    def __init__(self, packing: Packing, dtype: "torch.dtype"):
        import torch

        self.first = packing.offsets[:-1].long()
        self.last = packing.offsets[1:].long() - 1
        n_pooled = (self.last - self.first)[:, None]
        positions = torch.arange(sum(packing.lengths), device=packing.device)
        members = (positions > self.first[:, None]) & (positions <= self.last[:, None])
        # Ones are exact in every dtype, 1/n is not; a GPU adds them up in float32.
        self._on_gpu = packing.device.type == "cuda" and dtype != torch.float32
        self._weights = members.to(dtype) if self._on_gpu else members / n_pooled
        self._scale = 1 / n_pooled.float()

    def mean(self, activations: "torch.Tensor") -> "torch.Tensor":
        """`(n_samples, width)` means of `(n_tokens, width)` activations."""
        import torch

        if self._on_gpu:
            return torch.mm(self._weights, activations, out_dtype=torch.float32) * self._scale
        return self._weights @ activations.float()


def _run(
    network: Any,
    site: Site,
    reduce: "Callable[[int, torch.Tensor], None]",
    attention_name: str | None,
    token_ids: "torch.Tensor",
    arguments: dict[str, Any],
) -> None:
    """Call the network with a hook on every module of the site, and stop after the last."""
    last_layer = max(site.layers)

    def hook(layer: int) -> Callable[..., None]:
        def read(_module: Any, inputs: tuple[Any, ...], output: Any = None) -> None:
            value = inputs[0] if site.kind == "mlp" else output
            reduce(layer, value[0] if isinstance(value, tuple) else value)
            if layer == last_layer:
                raise _Enough

        return read

    register = "register_forward_pre_hook" if site.kind == "mlp" else "register_forward_hook"
    handles = [getattr(module, register)(hook(layer)) for layer, module in site.modules.items()]
    own = network.config._attn_implementation
    try:
        if attention_name is not None:
            network.config._attn_implementation = attention_name
        network(input_ids=token_ids, use_cache=False, **arguments)
    except _Enough:
        pass
    finally:
        network.config._attn_implementation = own
        for handle in handles:
            handle.remove()
