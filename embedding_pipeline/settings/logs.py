"""The settings of this program's own log lines.

Belongs here: what a user may set. Does not belong here: writing lines (``embedding_pipeline.logs``,
which every command loads, and so stays free of pydantic).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class LogsConfig(BaseModel):
    """How log lines look, and which are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "warning"
