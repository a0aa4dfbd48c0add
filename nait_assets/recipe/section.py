"""What every section of a recipe is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
