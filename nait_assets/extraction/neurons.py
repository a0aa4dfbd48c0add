"""The activations of a batch, reduced inside the hooks, so that [tokens, neurons] of all layers is never kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_assets.errors import NumericalError
from nait_assets.extraction.projection import ProjectedBatch, Projector
from nait_assets.models.answers import AnsweredSample
from nait_assets.models.attention import Packing, to_device
from nait_assets.models.batches import Batch
from nait_assets.models.encoding import EncodedSample
from nait_assets.models.one_pass import Part, PassReader, Reading
from nait_assets.models.sites import Site
from nait_assets.recipe import ALL, Pooling, pooled
from nait_assets.resources.language_model import LoadedModel

if TYPE_CHECKING:
    import torch

Averaging = Callable[[Packing, "torch.dtype"], Any]
"""From a batch's packing and the dtype of its activations to what averages them, by a method `mean`."""


class Activations(Part):
    """The pooled activations of a site.

    Args:
        site: Site to read.
        keep_first_and_last: Whether to keep the first and the last token's activations beside the mean.
        projectors: By pooling, what keeps a projection of all layers instead of their neurons; of all poolings or none.
        device: Device of the model.
        poolings: Tokens that are averaged over, each in columns of its own; of other poolings than `all` the samples
            are an `AnsweredSample` each.
        pool: What takes the place of the mean over all tokens, with a `mean` of the same shapes; not together
            with `keep_first_and_last`.
    """

    def __init__(
        self,
        site: Site,
        keep_first_and_last: bool,
        projectors: Mapping[Pooling, Projector],
        device: "torch.device",
        poolings: Sequence[Pooling] = (ALL,),
        pool: "Averaging | None" = None,
    ):
        assert not (keep_first_and_last and projectors), "a projection keeps no ends of samples"
        self.site: Site = site
        self.keep_first_and_last, self.poolings, self._pool, self._device = keep_first_and_last, poolings, pool, device
        self._projectors = {name: one.to(device) for name, one in projectors.items()}

    def start(self, batch: Batch, packing: Packing, dtype: "torch.dtype") -> "_OfBatch":  # noqa: D102
        return _OfBatch([self._pooled(pooling, batch, packing, dtype) for pooling in self.poolings])

    def trial(self) -> tuple[Part, Sequence[str]]:
        """The plain means: what is made of them is the same either way."""
        return Activations(self.site, False, {}, self._device), ("activation",)

    def what(self, row: int) -> str:  # noqa: D102
        return f"activations at site {self.site.kind!r}, first in layer {self.site.layers[row]},"

    def _pooled(self, pooling: Pooling, batch: Batch, packing: Packing, dtype: "torch.dtype") -> "_Pooled":
        if self._pool is not None:
            means = self._pool(packing, dtype)
        else:
            tokens = None if pooling == ALL else [tokens_of(pooling, sample) for sample in batch]
            means = _Pool(packing, dtype, tokens)
        projector = self._projectors.get(pooling)
        return _Pooled(pooling, means, self.keep_first_and_last, projector.start() if projector else None)


class Reader(PassReader):
    """A model in memory that turns batches into pooled activations, and nothing else.

    Args:
        model: Model in memory.
        site: As of `Activations`, as the others are but `packs`.
        keep_first_and_last: Likewise.
        projectors: Likewise; none by default.
        packs: Whether samples are read side by side; found out by a trial by default.
        poolings: Likewise.
        pool: Likewise.
    """

    def __init__(
        self,
        model: LoadedModel,
        site: Site,
        keep_first_and_last: bool,
        projectors: Mapping[Pooling, Projector] | None = None,
        packs: bool | None = None,
        poolings: Sequence[Pooling] = (ALL,),
        pool: "Averaging | None" = None,
    ):
        self.site = site
        part = Activations(site, keep_first_and_last, projectors or {}, model.device, poolings, pool)
        super().__init__(model, {"": part}, packs)

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
        heard = [(self.site, lambda _, activations: found.append(activations[0].float().cpu()))]
        with torch.inference_mode():
            for part in [batch] if packs else [[sample] for sample in batch]:
                packing = Packing(tuple(len(sample.token_ids) for sample in part), self.model.device)
                self._pass(part, packing, heard, to_the_end=False)
        kept = np.concatenate([np.arange(len(sample.token_ids)) > 0 for sample in batch])
        tokens = torch.cat(found).numpy()[kept]
        if not np.isfinite(tokens).all():
            names = ", ".join(sample.sample_id for sample in batch[:10])
            raise NumericalError(
                f"NaN or infinite activations at site {self.site.kind!r} of layer {layer}, in a batch of {names}. "
                "Try `model.dtype: float32`, or look at the weights."
            )
        return tokens


def tokens_of(pooling: Pooling, sample: EncodedSample) -> np.ndarray:
    """`(n_tokens,)` bool: the tokens of a sample that a pooling averages over.

    Of `answer` those that hold a character of a response, of all responses together; of `prompt` those that stand
    before the last response and belong to none, what the template adds included. The first token of a sample, an
    attention sink, is never among them.
    """
    places = np.arange(len(sample.token_ids))
    if pooling == ALL:
        return places > 0
    # of a trial nobody answers: its second half stands for an answer
    answers = sample.answers if isinstance(sample, AnsweredSample) else places > len(places) // 2
    if pooling == "answer" or not answers.any():
        return answers
    return (places > 0) & ~answers & (places < np.flatnonzero(answers)[-1])


def why_not_pooled(sample: AnsweredSample, poolings: Sequence[Pooling]) -> str:
    """Why a sample cannot be read by these poolings, one of which has no token in it; "" if it can."""
    needy = [pooling for pooling in poolings if pooling != ALL]
    if needy and sample.unanswered:
        return f"{sample.unanswered}; `extraction.pool` has {' and '.join(needy)}"
    if any(not tokens_of(pooling, sample).any() for pooling in needy):
        return "nothing stands before its response; `extraction.pool` has prompt"
    return ""


class _Pool:
    """Means over some tokens of each sample of a packed batch; float32.

    Args:
        packing: Packing of the batch.
        dtype: dtype of the forward pass.
        tokens: Tokens of each sample, `(n_tokens,)` bool, at least one; by default all but the first, and then `first`
            is that one, which is left out of the mean.
    """

    def __init__(self, packing: Packing, dtype: "torch.dtype", tokens: Sequence[np.ndarray] | None = None):
        import torch

        begin, end = packing.offsets[:-1].long(), packing.offsets[1:].long() - 1
        positions = torch.arange(sum(packing.lengths), device=packing.device)
        members = (positions > begin[:, None]) & (positions <= end[:, None])
        self.first, self.last, n_pooled = begin, end, (end - begin)[:, None]
        if tokens is not None:
            members &= to_device(np.concatenate(tokens), packing.device)
            ends = [np.flatnonzero(of_sample)[[0, -1]] for of_sample in tokens]
            self.first, self.last = begin + to_device(np.stack(ends, axis=1).astype(np.int64), packing.device)
            n_pooled = members.sum(dim=1, keepdim=True)
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


class _OfBatch(Reading):
    """The poolings of a batch while its layers come in."""

    def __init__(self, poolings: "Sequence[_Pooled]"):
        self._poolings = poolings
        self._finite: list[torch.Tensor] = []

    def add(self, layer: int, activations: "torch.Tensor") -> None:
        import torch

        self._finite.append(torch.stack([one.add(layer, activations) for one in self._poolings]).all(dim=0))

    def columns(self) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        import torch

        columns: dict[str, torch.Tensor] = {}
        for one in self._poolings:
            of_pooling, are_finite = one.columns()
            self._finite[-1] &= are_finite
            columns |= {pooled(name, one.pooling): column for name, column in of_pooling.items()}
        return torch.stack(self._finite), columns


class _Pooled:
    """What is kept of one pooling of a batch while its layers come in."""

    def __init__(self, pooling: Pooling, means: Any, keep_first_and_last: bool, projected: "ProjectedBatch | None"):
        self.pooling, self._means, self._projected = pooling, means, projected
        self._kept: dict[str, list[torch.Tensor]] = {"activation": []}
        if keep_first_and_last:
            self._kept |= {"first_token_activation": [], "last_token_activation": []}

    def add(self, layer: int, activations: "torch.Tensor") -> "torch.Tensor":
        """Add a layer's `(n_tokens, width)` activations, and say of which samples they are finite, `(n_samples,)`."""
        import torch

        mean = self._means.mean(activations)
        finite = torch.isfinite(mean).all(dim=1)
        if self._projected is not None:
            self._projected.add(layer, mean)
            return finite
        self._kept["activation"].append(mean)
        if len(self._kept) > 1:
            for name, positions in (("first", self._means.first), ("last", self._means.last)):
                found = activations[positions].float()
                self._kept[f"{name}_token_activation"].append(found)
                finite &= torch.isfinite(found).all(dim=1)
        return finite

    def columns(self) -> "tuple[dict[str, torch.Tensor], torch.Tensor]":
        """The columns, by their names in `all`, and of which samples they are finite."""
        import torch

        if self._projected is not None:
            columns = self._projected.columns()  # a neuron that hardly varied in the calibration can blow up here
        else:
            columns = {name: torch.stack(kept, dim=1) for name, kept in self._kept.items()}
        return columns, torch.isfinite(columns["activation"][:, -1]).all(dim=1)
