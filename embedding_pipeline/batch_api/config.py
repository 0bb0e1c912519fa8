"""Settings of the Batch API.

Belongs here: what a user may set, with its bounds. Does not belong here: acting on it.
"""

from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["off", "on", "auto"]
MODES: Final = get_args(Mode)


class BatchApiConfig(BaseModel):
    """When work goes through the Batch API. A bare word is the mode."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "off"
    """``on`` sends all bulk work, ``auto`` what is worth it."""

    deadline_hours: float = Field(36, gt=0)
    """What is not back by then goes one request at a time. A batch may take 24 hours."""

    min_tokens: int = Field(1_000_000, ge=0)
    """``auto`` sends no less than this: below, the money saved is not worth the wait."""

    enqueued_tokens: int = Field(3_000_000, ge=1)
    """The account's limit of tokens in unfinished batches of a model ("batch queue limit")."""

    delete_files: bool = True
    """Delete uploaded and result files once collected: they hold the texts and vectors."""

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        """YAML reads a bare ``on`` and ``off`` as true and false."""
        tree = {"mode": value} if isinstance(value, bool | str) else value
        if isinstance(tree, dict) and isinstance(tree.get("mode"), bool):
            return {**tree, "mode": "on" if tree["mode"] else "off"}
        return tree
