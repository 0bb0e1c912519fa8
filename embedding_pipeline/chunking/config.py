"""Settings of chunking: how long a chunk may be.

Belongs here: the frozen values. Does not belong here: splitting.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ChunkingConfig(BaseModel):
    """How documents are split. Rows that are already chunked are kept as they are.

    Attributes:
        max_tokens: the most tokens (cl100k_base) a chunk of a split document may have.
        overlap_tokens: the most tokens a chunk may repeat of the one before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: Annotated[int, Field(ge=16)] = 512
    overlap_tokens: Annotated[int, Field(ge=0)] = 64

    @model_validator(mode="after")
    def _overlap_below_max(self) -> Self:
        if self.overlap_tokens >= self.max_tokens:
            raise ValueError(
                f"overlap_tokens ({self.overlap_tokens}) must be smaller than "
                f"max_tokens ({self.max_tokens})"
            )
        return self
