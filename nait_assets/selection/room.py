"""The room of the selection."""

from nait_assets.rooms import Room
from nait_assets.selection.assets import build_assets
from nait_assets.selection.catalogue import output_named, outputs, stored_folders
from nait_assets.selection.checks import build_checks

ROOM = Room(outputs, build_assets, build_checks, output_named=output_named, stored_files=stored_folders)
