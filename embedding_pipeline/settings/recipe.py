"""What in the settings shapes vectors, in words and as a fingerprint.

Belongs here: naming what, given the same source, makes other vectors. Does not belong
here: comparing it with what is there (``spaces``).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from embedding_pipeline.vectors.provenance import Recipe

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

VECTORS_VERSION: Final = 1
"""Raised when this code would make other vectors, or other chunks, from the same input."""


def fingerprint(settings: "Settings") -> str:
    """16 hex characters that change when the same source would give other vectors."""
    shaping = {
        "version": VECTORS_VERSION,
        "space": str(settings.model_spec.space),
        "dimensions": settings.dimensions,
        "chunking": settings.chunking.model_dump(mode="json"),
        "dedup": settings.dedup.model_dump(mode="json"),
        "oversize": settings.requests.oversize,
    }
    text = json.dumps(shaping, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe(settings: "Settings") -> Recipe:
    """What ``fingerprint`` is made of besides the space, in words."""
    return Recipe(
        chunker=_words(settings.chunking.model_dump(mode="json")),
        dedup=_words(settings.dedup.model_dump(mode="json")),
        oversize=settings.requests.oversize,
        code_version=str(VECTORS_VERSION),
    )


def _words(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(config.items()))
