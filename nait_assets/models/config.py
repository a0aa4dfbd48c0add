"""How Dagster's launchpad sets the options of a run."""

from typing import Literal

import dagster as dg
from pydantic import Field

from nait_assets.models.running import RunOptions


class ExtractionConfig(dg.Config):
    """How the model is run; none of it changes what is computed, save for rounding."""

    batch_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens in a batch; by default what suits the device."
    )
    shard_tokens: int = Field(
        default=32768, ge=1, description="Tokens after which batches are stored: what a killed run loses at most."
    )
    engine: Literal["local", "ray"] = Field(default="local", description="This process, or a pool of Ray actors.")
    ray_address: str | None = Field(
        default=None, description="Address of a running Ray cluster; by default Ray is started on this machine."
    )
    ray_workers: int = Field(default=2, ge=1, description="Actors; each loads the model once.")
    ray_cpus: float = Field(default=1.0, gt=0, description="CPUs of each actor.")
    ray_gpus: float = Field(default=0.0, ge=0, description="GPUs of each actor.")

    def options(self) -> RunOptions:
        """The same without Dagster."""
        return RunOptions(**self.model_dump())
