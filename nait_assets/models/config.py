"""How Dagster's launchpad sets the options of a run."""

import os
from typing import Literal

import dagster as dg
from pydantic import Field

from nait_assets.models.running import RunOptions

RAY_ADDRESS = "RAY_ADDRESS"
"""The variable that Ray's own programs read: address of a running cluster; without it Ray starts on this machine."""


class ExtractionConfig(dg.Config):
    """How the model is run; none of it changes what is computed, save for rounding."""

    batch_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens in a batch; by default what suits the device."
    )
    shard_tokens: int = Field(
        default=32768, ge=1, description="Tokens after which batches are stored: what a killed run loses at most."
    )
    engine: Literal["local", "ray"] = Field(default="local", description="This process, or a pool of Ray actors.")
    ray_workers: int = Field(default=2, ge=1, description="Actors; each loads the model once.")
    ray_cpus: float = Field(default=1.0, gt=0, description="CPUs of each actor.")
    ray_gpus: float = Field(default=0.0, ge=0, description="GPUs of each actor.")

    def options(self) -> RunOptions:
        """The same without Dagster, and the Ray cluster that the process' environment names.

        The cluster is no field: what Ray unpickles it runs, so whoever may start a run must not choose its address.
        """
        return RunOptions(**self.model_dump(), ray_address=os.environ.get(RAY_ADDRESS) or None)
