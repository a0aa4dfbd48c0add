"""The room of the extraction."""

from nait_assets.extraction.assets import build_assets
from nait_assets.extraction.catalogue import output_named, outputs
from nait_assets.extraction.checks import build_checks
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named)
