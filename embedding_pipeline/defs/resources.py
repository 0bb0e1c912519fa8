"""What the assets work with, as replaceable resources: shells around plain objects.

Belongs here: the shells, and the parameter types the assets are written with. Does not
belong here: how a thing is put together (``assembly``).

Each can be replaced by a plain object: in ``build_defs(overrides)``, or in
``dg.materialize(resources=…)``.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

if TYPE_CHECKING:
    from embedding_pipeline.assembly.service import EmbeddingService
    from embedding_pipeline.service.work import Progress
    from embedding_pipeline.settings.tree import Settings
    from embedding_pipeline.sources.base import ChunkSource
    from embedding_pipeline.spaces.records import Target
    from embedding_pipeline.vectors.datasets import Datasets

    ConfigParam: TypeAlias = dg.ResourceParam[Settings]
    SourceParam: TypeAlias = dg.ResourceParam[ChunkSource]
    StoreParam: TypeAlias = dg.ResourceParam[Datasets]
else:  # Dagster reads annotations when it loads the definitions: keep Arrow out of that
    ConfigParam = SourceParam = StoreParam = dg.ResourceParam[object]


class EmbedderResource:
    """The embedding service, to be opened in the event loop that uses it.

    Write ``async with openai.open(context.run.run_id) as service`` in an asset, and then
    ``await service.generate_embedding(text, project=…)``. The limiter, the cache and the
    ledger are inside and shared with every other run.

    Attributes:
        settings: what the service is built from.
        on_progress: told how far a run is, besides the run's log.
    """

    def __init__(
        self, settings: "Settings", on_progress: "Callable[[Progress], None] | None" = None
    ) -> None:
        self.settings = settings
        self.on_progress = on_progress

    def open(
        self, run_id: str = "", target: "Target | None" = None
    ) -> "AbstractAsyncContextManager[EmbeddingService]":
        """A service that lives as long as the ``async with`` block.

        Args:
            run_id: recorded with every ledger entry.
            target: another space than the settings', or another length.
        """
        from embedding_pipeline.assembly.service import open_service
        from embedding_pipeline.assembly.spaces import settings_for

        chosen = self.settings if target is None else settings_for(self.settings, target)
        return open_service(chosen, run_id=run_id)


EmbedderParam: TypeAlias = dg.ResourceParam[EmbedderResource]


def build_resources(
    settings: "Settings", overrides: Mapping[str, object]
) -> dict[str, dg.ResourceDefinition]:
    """Every resource by its key, ``overrides`` in place of the built-in ones."""
    built = {
        "settings": _shell("The settings of this deployment.", lambda: settings),
        "openai": _shell(
            "The embedder: requests, limiter, cache and ledger behind one interface.",
            lambda: EmbedderResource(settings),
        ),
        "chunk_source": _shell("Where chunks come from.", lambda: _source(settings)),
        "vector_store": _shell("The Parquet datasets.", lambda: _datasets(settings)),
    }
    replaced = {key: dg.ResourceDefinition.hardcoded_resource(it) for key, it in overrides.items()}
    return {**built, **replaced}


def _shell(description: str, make: Callable[[], object]) -> dg.ResourceDefinition:
    def resource(_context: dg.InitResourceContext) -> object:
        return make()

    return dg.ResourceDefinition(resource, description=description)


def _source(settings: "Settings") -> object:
    from embedding_pipeline.assembly.parts import build_source

    return build_source(settings)


def _datasets(settings: "Settings") -> object:
    from embedding_pipeline.assembly.parts import build_datasets

    return build_datasets(settings)
