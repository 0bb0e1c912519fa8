"""Vectors for readers: which space is meant, and its days as one table.

Belongs here: from settings and a space's name to the reader's call. Does not belong here:
reading files (``vectors``).
"""

from typing import TYPE_CHECKING, Final

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.spaces import model_of, served_target, shortest, wanted
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces.records import Target

if TYPE_CHECKING:
    import pyarrow as pa

ACTIVE: Final = "active"


def resolve_target(settings: Settings, space: str) -> Target:
    """The vectors a reader means: ``active``, or a space by name.

    ``active`` is what was promoted last; before that the settings' model. Another space
    than the settings' is read at the length its files have.

    Raises:
        ConfigurationError: it is neither.
        StateError: the record of the active space cannot be read.
    """
    if space == ACTIVE:
        return served_target(settings)
    try:
        named = Space.parse(space)
    except ValueError as exc:
        raise ConfigurationError(f"{exc}; write it like {settings.model_spec.space}") from exc
    asked = wanted(settings)
    if named == asked.space:
        return asked
    return Target(model_of(named), named, shortest(build_datasets(settings), named))


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
        space: ``active`` (one space that is complete, whatever is being built), or the
            name of a space.
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
    target = resolve_target(chosen, space)
    return reader.read_vectors(
        build_datasets(chosen),
        target.space,
        start,
        end,
        dimensions=target.dimensions,
        fan_out=fan_out,
        with_text=with_text,
    )
