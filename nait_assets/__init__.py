"""Neuron-aware selection of instruction-tuning data (NAIT, arXiv 2603.13201) as Dagster assets.

`from nait_assets import Home` reads what the runs of a recipe have made.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nait_assets.home import Home

__version__ = "0.1.0"
__all__ = ["Home"]


def __getattr__(name: str) -> Any:
    """`Home`, imported when it is asked for: a command that only prints its help waits for nothing."""
    if name == "Home":
        from nait_assets.home import Home

        return Home
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
