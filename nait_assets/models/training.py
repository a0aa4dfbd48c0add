"""Training an adapter on responses: one pass over samples, one learning-rate schedule, for whatever is trained here.

One sequence at a time is read, and the mean over a batch of their losses is stepped on, as LESS's published code does:
without padding, so that memory is that of the longest sample. Tuning on a chosen subset is the room `training`'s, whose
step is the mean over all answer tokens of its rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_assets.errors import NumericalError
from nait_assets.models.adapter import Adapter
from nait_assets.models.answers import AnsweredSample

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EpochResult:
    """What one pass over the samples did.

    Attributes:
        learning_rates: Learning rate of each step.
        losses: Loss of each sample in the order in which they were read, as it was just before it was trained on.
    """

    learning_rates: list[float]
    losses: list[float]


def scheduled(step: int, n_steps: int, peak: float, n_rising: int = 0, cooldown_ratio: float = 1.0) -> float:
    """The learning rate of a step, counted from 0: a straight rise to the peak, and a straight fall to zero.

    Args:
        step: Less than `n_steps`.
        n_steps: Steps of the whole training.
        peak: Highest learning rate.
        n_rising: Steps in which it rises; the first of them has 0, as transformers' linear schedule has it.
        cooldown_ratio: Share of the steps in which it falls, at most those that the rise leaves; it would reach zero
            after the last.
    """
    if step < n_rising:
        return peak * step / n_rising
    n_falling = min(cooldown_ratio * n_steps, n_steps - n_rising)
    return peak * min(1.0, (n_steps - step) / n_falling) if n_falling else peak


def train_epoch(
    adapter: Adapter,
    optimizer: "torch.optim.Optimizer",
    samples: Sequence[AnsweredSample],
    batch_size: int,
    learning_rate: Callable[[int], float],
    largest_norm: float = math.inf,
) -> EpochResult:
    """One pass over samples: a step on the mean loss of every `batch_size` of them.

    Args:
        adapter: Its weights are trained; it is in evaluation mode again afterwards.
        optimizer: Optimizer of the adapter's weights.
        samples: Samples in the order in which they are read.
        batch_size: Samples of a step; the last step may have fewer.
        learning_rate: Learning rate of a step of this pass, counted from 0.
        largest_norm: Norm to which longer gradients are clipped.

    Raises:
        NumericalError: A loss is NaN or infinite.
    """
    import torch

    result = EpochResult([], [])
    adapter.network.train()
    for step, begin in enumerate(range(0, len(samples), batch_size)):
        batch = samples[begin : begin + batch_size]
        result.learning_rates.append(learning_rate(step))
        for group in optimizer.param_groups:
            group["lr"] = result.learning_rates[-1]
        for sample in batch:
            loss = adapter.loss(sample)
            result.losses.append(loss.item())
            if not math.isfinite(result.losses[-1]):
                raise NumericalError(f"the loss of sample {sample.sample_id} is {result.losses[-1]}")
            (loss / len(batch)).backward()
        if largest_norm < math.inf:
            torch.nn.utils.clip_grad_norm_(adapter.weights.values(), largest_norm)
        optimizer.step()
        optimizer.zero_grad()
    adapter.network.eval()
    return result
