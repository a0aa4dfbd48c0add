"""The recipe's sections: of the model, and of single methods.

Belongs here: what a user may set of one method, each section read by that method's outputs alone. Does not belong here:
what all methods share (`recipe`).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A section: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Part):
    """Which frozen language model is read."""

    source: str = Field(description="'package:<module>' with a GGUF file in it, 'hub:<org>/<name>', or a local folder.")
    revision: str | None = Field(None, description="Hub only, and required there: the commit to use.")
    gguf_file: str | None = Field(None, description="Name of the GGUF file, where the package or folder has several.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the forward pass; auto is bfloat16 where the hardware multiplies it, else float32."
    )

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "ModelSpec":
        if self.source.startswith("hub:") and not self.revision:
            raise ValueError(
                f"model {self.source!r} needs a `revision` (a commit of the repository), "
                "so that the result can be repeated"
            )
        return self


class MethodOptions(Part):
    """What can be set of single methods: one section each, under the method's name."""
