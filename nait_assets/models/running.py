"""How a model is run: the options of a run, what fits its context, the versions of what was run, what failed before."""

from dataclasses import dataclass
from typing import Any, Literal

from nait_assets.errors import RecipeError
from nait_assets.models.libraries import library_versions
from nait_assets.resources.language_model import LanguageModel
from nait_assets.resources.warehouse import Store
from nait_assets.tables import REJECTED_SAMPLES

BATCH_TOKENS = {"cuda": 16384}
"""Tokens of a batch by kind of device: a GPU wants large ones; a CPU wants its tensors in the cache."""
BATCH_TOKENS_ELSEWHERE = 1024


@dataclass(frozen=True)
class RunOptions:
    """How the model is run: none of it changes a result, save for rounding.

    Attributes:
        batch_tokens: Most tokens of a batch; None for what suits the device.
        shard_tokens: Tokens after which finished batches are stored.
        engine: `local`, this process; `ray`, a pool of workers.
        ray_address: Address of a running Ray cluster; None to start one on this machine.
        ray_workers: Number of workers in the pool.
        ray_cpus: CPUs of each worker.
        ray_gpus: GPUs of each worker.
    """

    batch_tokens: int | None = None
    shard_tokens: int = 32768
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_workers: int = 2
    ray_cpus: float = 1.0
    ray_gpus: float = 0.0

    def batch_tokens_on(self, device: str) -> int:
        """Most tokens of a batch on a kind of device, such as `cuda`."""
        return self.batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS_ELSEWHERE)


def model_inputs(model: LanguageModel, source: str) -> dict[str, str]:
    """The versions of what an extraction depends on beside the corpus: model, dtype on this machine, and libraries.

    Args:
        model: The recipe's model.
        source: Its name in the recipe.

    Raises:
        ModelError: The model cannot be found.
    """
    return {f"model:{source}": model.identity(), "dtype": model.dtype_name(), **library_versions()}


def require_context(config: Any, max_tokens: int) -> None:
    """Whether a model's context holds a sample.

    Raises:
        RecipeError: It does not.
    """
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and max_tokens > context:
        raise RecipeError(
            f"extraction.max_tokens: {max_tokens} is more than the model's context of {context} tokens; "
            f"use {context} or less."
        )


def rejected_before(store: Store, corpus: str) -> frozenset[str]:
    """Sample ids that the run which wrote a corpus' table could not read; none where there is no table yet.

    They are read by themselves now, as a batch of which every sample fails ends a run.
    """
    if not store.path.exists():
        return frozenset()
    with store.snapshot() as snapshot:
        if not snapshot.has_table(REJECTED_SAMPLES.name):
            return frozenset()
        return frozenset(snapshot.rows(REJECTED_SAMPLES, corpus=corpus)["sample_id"].to_list())
