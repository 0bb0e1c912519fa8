"""What a run says of the rate limit its requests shared with all others.

Belongs here: reading it before and after, and putting it into metadata. Does not belong here:
the limit itself (``limits``).
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs.recording import Metadata, Recorder
from embedding_pipeline.defs.resources import EmbedderResource
from embedding_pipeline.errors import EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.limits.snapshot import Resource, Snapshot
    from embedding_pipeline.settings.tree import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def rate_limits_told(recorder: Recorder, openai: EmbedderResource) -> AsyncIterator[None]:
    """Around the requests of a run: every partition's metadata says what the limit did.

    Counts are those of all processes while the run lasted. A model without a limit has none,
    and a state that cannot be read is no reason to fail.
    """
    before = await _now(openai.settings)
    try:
        yield
    finally:
        after = await _now(openai.settings)
        if after is not None:
            recorder.also(told(before, after))


async def _now(settings: "Settings") -> "Snapshot | None":
    from embedding_pipeline.assembly.embedder import limit_key
    from embedding_pipeline.assembly.planning import limits_now
    from embedding_pipeline.clock import SystemClock

    if settings.model_spec.is_local:
        return None
    try:
        found = await limits_now(settings, SystemClock())
    except EmbeddingPipelineError as error:
        log.warning("the rate limits are not in the metadata: %s", error)
        return None
    return next((one for one in found if one.key == limit_key(settings)), None)


def told(before: "Snapshot | None", after: "Snapshot") -> Metadata:
    """Rates, 429s, and who got how much between the two."""
    from embedding_pipeline.limits.snapshot import between

    seen = between(before, after)
    metadata: dict[str, dg.MetadataValue] = {
        "rate_limit_429s": dg.MetadataValue.int(seen.refused + seen.ramp),
        "rate_limits": dg.MetadataValue.md(_table(seen)),
    }
    for resource in seen.resources:
        if resource.ceiling is not None:
            key = f"rate_limit_{resource.name}_per_minute"
            metadata[key] = dg.MetadataValue.int(resource.per_minute)
    return metadata


def _table(seen: "Snapshot") -> str:
    lines = [
        f"`{seen.key}`: " + "; ".join(_rate(resource) for resource in seen.resources) + ".",
        "",
        "| project | priority | permits | tokens | waited, s | 429s | waiting |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {use.project} | {use.priority} | {use.permits:,} | {use.tokens:,} "
        f"| {use.waited_seconds:,.1f} | {use.refused:,} | {use.waiting:,} |"
        for use in seen.uses
    ]
    return "\n".join(lines)


def _rate(resource: "Resource") -> str:
    if resource.ceiling is None:
        return f"no limit of {resource.name} known"
    return (
        f"{resource.per_minute:,} of {resource.ceiling:,} {resource.name} a minute, "
        f"{resource.available:,.0f} available"
    )
