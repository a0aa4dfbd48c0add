"""The room of the corpora."""

from nait_assets.corpora.assets import build_assets
from nait_assets.corpora.catalogue import output_named, outputs
from nait_assets.corpora.checks import build_checks
from nait_assets.corpora.sensors import build_sensors
from nait_assets.rooms import Room

ROOM = Room(outputs, build_assets, build_checks, build_sensors, output_named)
