"""From settings to a source.

Belongs here: which class serves which kind. Does not belong here: any of the classes.
"""

from datetime import date

from embedding_pipeline.errors import NotAvailableYet
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.demo import DemoSource
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline.sources.unique import UniqueIds


def open_source(config: SourceConfig, first_day: date) -> ChunkSource:
    """The source that the settings ask for, ids unique within each day.

    Args:
        config: the settings of the source.
        first_day: the first daily partition.

    Raises:
        NotAvailableYet: the kind is not part of this version.
        SourceError: the path's protocol is unknown or its package is missing.
    """
    match config.kind:
        case "demo":
            return UniqueIds(DemoSource(first_day))
        case "files":
            return UniqueIds(FilesSource(config, first_day))
        case "sql":
            raise NotAvailableYet("source.kind 'sql' is not part of this version; use kind files")
