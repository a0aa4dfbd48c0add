"""How Dagster's launchpad sets the options of a training; none of them changes its result, save for rounding."""

import dagster as dg
from pydantic import Field

from nait_assets.training.making import TrainingOptions


class TrainingConfig(dg.Config):
    """How a training is run."""

    batch_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that a device reads at once, about; by default what suits the device."
    )
    checkpoint_seconds: float = Field(
        default=300.0, ge=0, description="Seconds between checkpoints: what a killed training loses at most."
    )

    def options(self) -> TrainingOptions:
        """The same without Dagster."""
        return TrainingOptions(**self.model_dump())
