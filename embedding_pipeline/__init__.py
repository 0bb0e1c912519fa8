"""Text to vectors: batched, cached, priced and accounted for.

What users import is here, loaded on use, so that importing the package is cheap.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from embedding_pipeline.assembly.reading import read_vectors as read_vectors
    from embedding_pipeline.assembly.service import EmbeddingService as EmbeddingService
    from embedding_pipeline.errors import EmbeddingPipelineError as EmbeddingPipelineError
    from embedding_pipeline.settings.loading import load_settings as load_settings
    from embedding_pipeline.settings.tree import Settings as Settings

_HOMES: Final = {
    "EmbeddingPipelineError": "errors",
    "EmbeddingService": "assembly.service",
    "Settings": "settings.tree",
    "load_settings": "settings.loading",
    "read_vectors": "assembly.reading",
}

__all__ = [
    "EmbeddingPipelineError",
    "EmbeddingService",
    "Settings",
    "load_settings",
    "read_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
