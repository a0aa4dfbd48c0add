"""What every section of a recipe is."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def require_fit(self, recipe: Any) -> None:
        """Whether the section fits the rest of its recipe; by default it does.

        Raises:
            ValueError: It contradicts another section.
        """
