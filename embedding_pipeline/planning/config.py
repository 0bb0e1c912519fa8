"""Settings of the planning room."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

API_MAX_INPUTS = 2048
"""Inputs in one request (OpenAI's specification of /v1/embeddings)."""

API_MAX_INPUT_TOKENS = 8192
"""Tokens in one input; the API's count is sometimes closer to UTF-8 bytes / 4."""

API_MAX_REQUEST_TOKENS = 300_000
"""Tokens in one request, counted by the API as UTF-8 bytes / 4."""


class RequestsConfig(BaseModel):
    """Size of one request, and what happens to text the API would refuse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_inputs: int = Field(API_MAX_INPUTS, ge=1, le=API_MAX_INPUTS)
    """Most texts in one request."""

    target_tokens: int = Field(50_000, ge=1, le=API_MAX_REQUEST_TOKENS)
    """Tokens a request aims at. Throughput is flat above ~128 texts; larger requests
    only raise what a failure costs and how much must be in the bucket at once."""

    max_wait_ms: int = Field(10, ge=0, le=10_000)
    """How long an online caller waits for company before its request goes."""

    oversize: Literal["reject", "truncate", "split_mean"] = "reject"
    """Text over the input cap: quarantined with its reason, cut at the cap, or
    embedded in parts whose token-weighted mean is its vector. The last two are
    listed in ``derived_chunks``. Blank text is always quarantined."""
