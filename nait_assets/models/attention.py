"""Attention over a packed batch: samples lie one after the other, without padding, and none sees its neighbours.

The model hands its queries, keys and values to `packed_attention` through transformers' attention interface. On a GPU
torch's variable-length FlashAttention reads all samples in one kernel; elsewhere each sample is attended to by itself.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

NAME = "nait_packed"


@dataclass(frozen=True)
class Packing:
    """Where each sample of a packed batch lies.

    Attributes:
        lengths: Tokens of each sample.
        device: Device of the batch.
    """

    lengths: tuple[int, ...]
    device: "torch.device"

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First token of each sample, and the one after its last."""
        ends = itertools.accumulate(self.lengths)
        return [(end - length, end) for end, length in zip(ends, self.lengths, strict=True)]

    @property
    def behind_first(self) -> np.ndarray:
        """`(n_tokens,)` bool: tokens that are not the first of their sample."""
        found = np.ones(sum(self.lengths), bool)
        found[[begin for begin, _ in self.bounds]] = False
        return found

    @cached_property
    def offsets(self) -> "torch.Tensor":
        """`(n_samples + 1,)` int32 on the device: where each sample begins, and where the last ends."""
        return to_device(np.asarray([0, *(end for _, end in self.bounds)], np.int32), self.device)


def to_device(array: np.ndarray, device: "torch.device") -> "torch.Tensor":
    """An array on the device, without waiting for it: from other than pinned memory a GPU is waited for first."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def register() -> None:
    """Make `packed_attention` known to transformers under `NAME`."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)


def packed_attention(
    _module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    _attention_mask: "torch.Tensor | None",
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_settings: Any,
) -> "tuple[torch.Tensor, None]":
    """Causal attention within each sample.

    Args:
        query: `(1, n_heads, n_tokens, head_size)`.
        key: `(1, n_key_heads, n_tokens, head_size)`; `n_key_heads` divides `n_heads`.
        value: As `key`.
        packing: Packing of the batch; the model passes it on.
        scaling: Scaling of the scores; the inverse square root of the head size by default.
        sliding_window: Most tokens that a token sees, itself included.
        softcap: Scores are squashed to this by tanh (Gemma 2).

    Returns:
        `(1, n_tokens, n_heads, head_size)`, and no attention weights.
    """
    window = sliding_window if sliding_window is not None and sliding_window < max(packing.lengths) else None
    if query.is_cuda and softcap is None and query.dtype.itemsize == 2 and query.shape[-1] <= 256:
        return _on_gpu(query, key, value, packing, scaling, window), None
    output = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for begin, end in packing.bounds:
        one = query[:, :, begin:end], key[:, :, begin:end], value[:, :, begin:end]
        output[:, begin:end] = _one_sample(one, scaling, window, softcap).transpose(1, 2)
    return output, None


def _on_gpu(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    packing: Packing,
    scaling: float | None,
    window: int | None,
) -> "torch.Tensor":
    import torch
    from torch.nn.attention.varlen import varlen_attn

    longest = max(packing.lengths)
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packing.offsets,
        packing.offsets,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output[None]


def _one_sample(
    tensors: "tuple[torch.Tensor, torch.Tensor, torch.Tensor]",
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> "torch.Tensor":
    """`(1, n_heads, n_tokens, head_size)` causal attention of one sample."""
    import torch
    from torch.nn import functional

    query, key, value = tensors
    grouped = query.shape[1] != key.shape[1]
    if softcap is None and window is None:
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
        )
    n_tokens = query.shape[2]
    positions = torch.arange(n_tokens, device=query.device)
    distance = positions[:, None] - positions[None]
    seen = (distance >= 0) & (distance < (window or n_tokens))
    if softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scaling, enable_gqa=grouped
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    capped = (softcap * torch.tanh(scores.float() / softcap)).masked_fill(~seen, -torch.inf)
    return capped.softmax(dim=-1).to(value.dtype) @ value
