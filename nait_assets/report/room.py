"""The room of the report."""

from nait_assets.report.assets import build_assets
from nait_assets.report.catalogue import output_named, outputs
from nait_assets.report.checks import build_checks
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named)
