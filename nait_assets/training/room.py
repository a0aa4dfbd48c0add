"""The room of the training."""

from nait_assets.rooms import Room
from nait_assets.training.assets import build_assets
from nait_assets.training.catalogue import output_named, outputs
from nait_assets.training.checks import build_checks

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named)
