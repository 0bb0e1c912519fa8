"""Vectors for readers: which space is meant, and its days as one table.

Belongs here: from settings and a space's name to the reader's call. Does not belong here:
reading files (``vectors``).
"""

from typing import TYPE_CHECKING, Final

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings

if TYPE_CHECKING:
    import pyarrow as pa

ACTIVE: Final = "active"


def resolve_space(settings: Settings, space: str) -> Space:
    """The space a reader means: ``active`` (the settings' model) or a space by name.

    Raises:
        ConfigurationError: it is neither.
    """
    if space == ACTIVE:
        return settings.model_spec.space
    try:
        return Space.parse(space)
    except ValueError as exc:
        raise ConfigurationError(f"{exc}; write it like {settings.model_spec.space}") from exc


def read_vectors(
    start: str,
    end: str,
    *,
    space: str = ACTIVE,
    fan_out: bool = True,
    with_text: bool = False,
    settings: Settings | None = None,
) -> "pa.Table":
    """The vectors of the days ``start`` to ``end``, both included, as one Arrow table.

    Args:
        start: first day, ``YYYY-MM-DD``.
        end: last day.
        space: ``active``, or the name of a space.
        fan_out: every raw chunk has a row, duplicates with their representative's vector.
        with_text: add the column ``text``.
        settings: None reads file and environment.

    Returns:
        Columns ``chunk_id``, ``document_id``, ``project``, ``content_hash``, ``vector``
        (fixed-size list of float32) and, if asked for, ``text``.

    Raises:
        DataError: a day is missing, damaged, or of another space.
    """
    from embedding_pipeline.vectors import reader

    chosen = settings or load_settings()
    return reader.read_vectors(
        build_datasets(chosen),
        resolve_space(chosen, space),
        start,
        end,
        dimensions=chosen.dimensions,
        fan_out=fan_out,
        with_text=with_text,
    )
