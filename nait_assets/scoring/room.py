"""The room of the scoring."""

from nait_assets.rooms import Room
from nait_assets.scoring.assets import build_assets
from nait_assets.scoring.catalogue import outputs
from nait_assets.scoring.checks import build_checks

ROOM = Room(outputs, build_assets, build_checks)
