"""The room of the features."""

from nait_assets.features.assets import build_assets
from nait_assets.features.catalogue import output_named, outputs
from nait_assets.features.checks import build_checks
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named)
