"""The room of the scoring."""

from nait_assets.rooms import Room
from nait_assets.scoring.assets import build_assets
from nait_assets.scoring.catalogue import output_named, outputs
from nait_assets.scoring.checks import build_checks
from nait_assets.scoring.view import create_view, view_is_current

ROOM = Room(
    outputs,
    build_assets,
    build_checks,
    output_named=output_named,
    refresh_views=create_view,
    views_are_current=view_is_current,
)
