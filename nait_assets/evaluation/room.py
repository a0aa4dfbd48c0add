"""The room of the evaluation."""

from nait_assets.evaluation.assets import build_assets
from nait_assets.evaluation.catalogue import output_named, outputs
from nait_assets.evaluation.checks import build_checks
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named)
