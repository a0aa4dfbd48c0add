"""The outside world: files and hubs that examples come from, the language model, and the warehouse on disk.

Belongs here: everything that reads or writes outside the process. Does not belong here: what the data means.
"""

from nait_assets.resources.home import home_of
from nait_assets.resources.language_model import LanguageModel
from nait_assets.resources.warehouse import Warehouse

__all__ = ["LanguageModel", "Warehouse", "home_of"]
