"""The room of the measurements."""

from nait_assets.measurements.assets import build_assets
from nait_assets.measurements.catalogue import OUTPUTS, outputs
from nait_assets.measurements.checks import build_checks
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, output_named=OUTPUTS.get)
