"""Files beside a SQLite store, for bytes that would otherwise be written twice.

Belongs here: appending to them, reading, syncing and removing. Does not belong here: what
is in them, or when one may go (``cache``).

SQLite writes what it is given to its log and then to its file. What never changes goes into
a file here instead, once, before the row that says where: bytes without a row are harmless,
a row whose bytes are gone is found out by its checksum. Files are numbered, 1,000 share a
folder. Whoever appends or removes holds the store's one writing transaction, so no file is
written by two, or removed while it is written.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.errors import StateError

SYNC_BYTES: Final = 8 << 20
"""So much may be lost to a power cut, as of SQLite's own log (``store``)."""

_SHELF: Final = 1000
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHT: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_sync_data: Final = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class Beside:
    """The numbered files of one store. Appending is for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unsynced: set[int] = set()
        self._unsynced_bytes = 0

    def append(self, number: int, data: memoryview) -> int:
        """Add ``data`` to the end of a file, which is made where it is not there.

        Needs the writing transaction. Returns where it begins. Raises StateError.
        """
        path = self._path(number)
        with self._edge(path):
            descriptor = _open_to_append(path)
            try:
                start = os.fstat(descriptor).st_size
                _write(descriptor, data)
            finally:
                os.close(descriptor)
        self._unsynced.add(number)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES:
            self.sync()
        return start

    def read(self, number: int, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """The bytes at each ``(offset, size)``; fewer where the file ends, or is not there.

        Raises:
            StateError: the file is there and cannot be read.
        """
        path = self._path(number)
        with self._edge(path):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return [b"" for _ in spans]
            try:
                return [os.pread(descriptor, size, offset) for offset, size in spans]
            finally:
                os.close(descriptor)

    def sync(self) -> None:
        """Wait until the disk has what was appended here. Raises StateError."""
        paths = [self._path(number) for number in sorted(self._unsynced)]
        for path in (*paths, *{path.parent for path in paths}):
            with self._edge(path), suppress(FileNotFoundError):  # removed since
                _sync(path)
        self._unsynced, self._unsynced_bytes = set(), 0

    def shelves(self) -> list[range]:
        """The numbers that files may have, a folder's at a time. Raises StateError."""
        with self._edge(self.folder):
            found = sorted(int(name) for name in _names(self.folder) if name.isdecimal())
        return [range(shelf * _SHELF, (shelf + 1) * _SHELF) for shelf in found]

    def numbers(self, shelf: range) -> list[int]:
        """The files of a folder. Raises StateError."""
        folder = self._path(shelf.start).parent
        with self._edge(folder):
            return [int(name) for name in _names(folder) if name.isdecimal()]

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove files, and folders that are empty then. Needs the writing transaction.

        Whoever reads one at the time reads on. Raises StateError.
        """
        for number in numbers:
            path = self._path(number)
            with self._edge(path):
                path.unlink(missing_ok=True)
                with suppress(OSError):  # other files are in it
                    path.parent.rmdir()

    def total_bytes(self) -> int:
        """Bytes of all files. Raises StateError."""
        with self._edge(self.folder):
            return sum(_size(path) for shelf in self.shelves() for path in self._paths(shelf))

    def _paths(self, shelf: range) -> Iterator[Path]:
        return (self._path(number) for number in self.numbers(shelf))

    def _path(self, number: int) -> Path:
        return self.folder / str(number // _SHELF) / str(number)

    @contextmanager
    def _edge(self, path: Path) -> Iterator[None]:
        """Where errors of the file system become ours."""
        try:
            yield
        except OSError as exc:
            raise StateError(f"state store, {path}: {_reason(exc)}") from exc


def beside(connection: Connection) -> Beside | None:
    """The files beside the store of this transaction; None where it has none."""
    found = connection.get_execution_options().get("beside")
    assert found is None or isinstance(found, Beside)
    return found


def _open_to_append(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with suppress(FileNotFoundError):  # of 1,000 files the first finds no folder
        return os.open(path, flags, 0o666)
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, flags, 0o666)


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync_data(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found]
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # removed meanwhile
        return 0


def _reason(exc: OSError) -> str:
    if exc.errno in _NO_ROOM:
        return "the disk is full; free space and run again, nothing is damaged"
    if exc.errno in _NO_RIGHT:
        return "no permission; give this user the right to read and write it and its folder"
    return f"{exc.strerror or exc}"
