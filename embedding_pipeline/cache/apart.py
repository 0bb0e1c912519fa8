"""Vectors in files beside the store, each named by the row that refers to it.

Belongs here: which vectors lie in a file and which in the row, reading those in files, and
which files may go. Does not belong here: files themselves (``state.beside``), or rows.

A file holds what one ledger entry paid for, as a group of the cache does (``groups``): they
go together, so no file is ever rewritten. What is smaller stays in the row, as everything
does where there are no files (PostgreSQL).
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from embedding_pipeline.cache.codec import Located, Value, encode, locate, payload_of, refer
from embedding_pipeline.records import Digest, Space, Vectors
from embedding_pipeline.state.beside import Beside, beside
from embedding_pipeline.state.schema import cache_groups

LEAST_BYTES: Final = 64 << 10
"""A smaller group stays in its rows: a file would cost more than writing them twice."""

Entry: TypeAlias = tuple[Digest, Value, int]
"""A row: its key, its value, and the ledger entry that paid for it."""

_Positions: TypeAlias = npt.NDArray[np.intp]


def entries_for(
    connection: Connection,
    space: Space,
    digests: Sequence[Digest],
    rows: Vectors,
    entry_ids: Sequence[int],
    dtype: str,
) -> list[Value]:
    """What goes into each vector's row: the vector, or where it lies from now on.

    Needs the writing transaction; should it be taken back, some bytes lie there for nothing.

    Raises:
        StateError: the disk does not take them.
    """
    files = beside(connection)
    if files is None or rows.nbytes < LEAST_BYTES:
        return [*encode(space, digests, rows, dtype)]
    if len(set(entry_ids)) == 1:
        return _group(files, space, digests, rows, entry_ids[0], dtype)
    values: list[Value] = [b""] * len(digests)
    payers = np.asarray(entry_ids)
    for entry in np.unique(payers).tolist():
        mine = np.flatnonzero(payers == entry)
        keys = [digests[position] for position in mine.tolist()]
        made = _group(files, space, keys, rows[mine], entry, dtype)
        for position, value in zip(mine.tolist(), made, strict=True):
            values[position] = value
    return values


def _group(
    files: Beside, space: Space, digests: Sequence[Digest], rows: Vectors, entry: int, dtype: str
) -> list[Value]:
    if rows.nbytes < LEAST_BYTES:
        return [*encode(space, digests, rows, dtype)]
    stored = payload_of(rows, dtype)
    offset = files.append(entry, stored.data.cast("B"))
    return [*refer(space, digests, stored, offset)]


def read_into(
    out: Vectors,
    targets: _Positions,
    files: Beside,
    space: Space,
    entries: Sequence[Entry],
) -> list[int]:
    """``codec.decode_into`` for references: also damaged is what its file no longer has.

    Raises:
        StateError: a file is there and cannot be read.
    """
    good = np.zeros(len(entries), np.bool_)
    digests, values, paid = zip(*entries, strict=True)
    payers = np.array(paid, np.int64)
    for refs in locate(values, out.shape[1]):
        for some, rows in _read(files, refs, payers[refs.positions], out.shape[1]):
            positions = refs.positions[some]
            keys = [digests[position] for position in positions.tolist()]
            right = refs.right(some, rows, space, keys)
            out[targets[positions[right]]] = rows if right.all() else rows[right]
            good[positions[right]] = True
    return [int(position) for position in np.flatnonzero(~good)]


def _read(
    files: Beside, refs: Located, numbers: npt.NDArray[np.int64], width: int
) -> Iterator[tuple[_Positions, Vectors]]:
    """Stretches of rows that lie together, each read at once, with the references to them."""
    size = width * refs.dtype.itemsize
    order = np.lexsort((refs.offsets, numbers))
    for mine in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        runs = np.split(mine, np.flatnonzero(np.diff(refs.offsets[mine]) != size) + 1)
        spans = [(int(refs.offsets[run[0]]), len(run) * size) for run in runs]
        for run, raw in zip(runs, files.read(int(numbers[mine[0]]), spans), strict=True):
            if whole := len(raw) // size:  # fewer where the file was cut
                rows = np.frombuffer(raw, refs.dtype, whole * width).reshape(whole, width)
                yield run[:whole], rows


def unused(connection: Connection, shelf: range) -> list[int]:
    """Files of a shelf that no vector refers to: of what was evicted, or never committed."""
    files = beside(connection)
    found = files.numbers(shelf) if files is not None else []
    c = cache_groups.c
    held = connection.scalars(
        select(c.entry_id).where(c.entry_id >= shelf.start, c.entry_id < shelf.stop)
    )
    return sorted({*found} - {int(entry) for entry in held})


def remove_unused(connection: Connection, shelf: range) -> None:
    """Remove the files of a shelf that no vector refers to. Needs the writing transaction.

    Raises:
        StateError: they cannot be removed.
    """
    files = beside(connection)
    if files is not None:
        files.remove(unused(connection, shelf))
