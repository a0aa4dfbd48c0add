"""The toy room."""

from nait_assets.rooms import Room
from nait_assets_tests.toy_room.assets import build_assets
from nait_assets_tests.toy_room.catalogue import outputs
from nait_assets_tests.toy_room.checks import build_checks

ROOM = Room(outputs, build_assets, build_checks)
