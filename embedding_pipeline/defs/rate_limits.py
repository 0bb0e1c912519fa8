"""What a run says of the rate limit its requests shared with all others.

Belongs here: reading it before and after, and putting it into metadata. Does not belong here:
the limit itself (``limits``).
"""

import logging
from collections.abc import AsyncIterator, Mapping
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
        if after:
            recorder.also(told(before, after))


async def _now(settings: "Settings") -> "dict[str, Snapshot]":
    """The limits of all providers of the model, by their names, the one asked first first."""
    from embedding_pipeline.assembly.embedder import in_order, limit_key
    from embedding_pipeline.assembly.planning import limits_now
    from embedding_pipeline.clock import SystemClock

    if settings.model_spec.is_local:
        return {}
    try:
        found = await limits_now(settings, SystemClock())
    except EmbeddingPipelineError as error:
        log.warning("the rate limits are not in the metadata: %s", error)
        return {}
    by_key = {one.key: one for one in found}
    keys = [limit_key(settings, provider) for provider in in_order(settings)]
    return {key: by_key[key] for key in keys if key in by_key}


def told(before: "Mapping[str, Snapshot]", after: "Mapping[str, Snapshot]") -> Metadata:
    """Rates of the provider asked first, 429s of all, and who got how much in between."""
    from embedding_pipeline.limits.snapshot import between

    seen = [between(before.get(key), now) for key, now in after.items()]
    metadata: dict[str, dg.MetadataValue] = {
        "rate_limit_429s": dg.MetadataValue.int(sum(one.refused + one.ramp for one in seen)),
        "rate_limits": dg.MetadataValue.md("\n\n".join(map(_table, seen))),
    }
    for resource in seen[0].resources:
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
