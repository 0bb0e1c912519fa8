"""From settings to a source.

Belongs here: which class serves which kind. Does not belong here: any of the classes.
"""

from datetime import date

from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.demo import DemoSource
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline.sources.sql import SqlSource
from embedding_pipeline.sources.unique import UniqueIds


def open_source(
    config: SourceConfig, first_day: date, url: str = "", timezone: str = "UTC"
) -> ChunkSource:
    """The source that the settings ask for, ids unique within each day.

    Args:
        config: the settings of the source.
        first_day: the first daily partition.
        url: the database of kind ``sql``.
        timezone: whose midnight divides days, for kind ``sql``.

    Raises:
        ConfigurationError: the database's address is none, or its driver is missing.
        SourceError: the path's protocol is unknown or its package is missing.
    """
    match config.kind:
        case "demo":
            return UniqueIds(DemoSource(first_day))
        case "files":
            return UniqueIds(FilesSource(config, first_day))
        case "sql":
            return UniqueIds(SqlSource(config, url, timezone))
