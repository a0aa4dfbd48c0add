"""The recipe's error; to be imported from `nait_assets.errors`."""

from nait_assets.errors import RecipeError

__all__ = ["RecipeError"]
