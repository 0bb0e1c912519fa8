"""Vectors for readers: which space is meant, and its days as one table.

Belongs here: from settings and a space's name to the reader's call. Does not belong here:
reading files (``vectors``).
"""

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, overload

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.spaces import model_of, served_target, shortest, wanted
from embedding_pipeline.assembly.stand_ins import stand_in_space
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


class WithStandIns(NamedTuple):
    """Vectors of one space, and apart from them those of another that stand in.

    Attributes:
        vectors: the real ones.
        stand_ins: one for each chunk whose real vector an outage has delayed, in the space
            ``space``. Never compare them with those of ``vectors``.
        space: the stand-ins' space.
    """

    vectors: "pa.Table"
    stand_ins: "pa.Table"
    space: Space


@overload
def read_vectors(
    start: str,
    end: str,
    *,
    space: str = ...,
    fan_out: bool = ...,
    with_text: bool = ...,
    stand_ins: Literal[False] = ...,
    settings: Settings | None = ...,
) -> "pa.Table": ...


@overload
def read_vectors(
    start: str,
    end: str,
    *,
    space: str = ...,
    fan_out: bool = ...,
    with_text: bool = ...,
    stand_ins: Literal[True],
    settings: Settings | None = ...,
) -> WithStandIns: ...


def read_vectors(
    start: str,
    end: str,
    *,
    space: str = ACTIVE,
    fan_out: bool = True,
    with_text: bool = False,
    stand_ins: bool = False,
    settings: Settings | None = None,
) -> "pa.Table | WithStandIns":
    """The vectors of the days ``start`` to ``end``, both included, as one Arrow table.

    Args:
        start: first day, ``YYYY-MM-DD``.
        end: last day.
        space: ``active`` (one space that is complete, whatever is being built), or the
            name of a space.
        fan_out: every raw chunk has a row, duplicates with their representative's vector.
        with_text: add the column ``text``.
        stand_ins: also give what stands in for vectors that an outage has delayed
            (``on_outage: degrade``), apart, as ``WithStandIns``.
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
    datasets = build_datasets(chosen)
    instead = stand_in_space(chosen)
    waiting = (
        reader.read_stand_ins(datasets, instead, start, end, fan_out=fan_out, with_text=with_text)
        if stand_ins
        else None
    )
    vectors = reader.read_vectors(
        datasets,
        target.space,
        start,
        end,
        dimensions=target.dimensions,
        fan_out=fan_out,
        with_text=with_text,
    )
    return vectors if waiting is None else _apart(vectors, waiting, instead)


def _apart(vectors: "pa.Table", waiting: "pa.Table", space: Space) -> WithStandIns:
    """Without the stand-ins whose real vector is there by now."""
    import pyarrow.compute as pc

    arrived = pc.is_in(waiting["chunk_id"], value_set=vectors["chunk_id"].combine_chunks())
    return WithStandIns(vectors, waiting.filter(pc.invert(arrived)), space)
