"""What every section of a recipe is."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section: frozen, without unknown fields, and with numbers that are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def require_fit(self, recipe: Any) -> None:
        """Whether the section fits the rest of its recipe; by default it does.

        Raises:
            ValueError: It contradicts another section.
        """
