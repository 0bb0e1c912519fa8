"""Where files are: the edge to fsspec and to compression.

Belongs here: finding the files of a day, reading one in blocks, and turning what
any file system raises into our errors. Does not belong here: what files hold.

Any file system that fsspec knows will do: a local path, ``s3://``, ``gs://``,
``https://``, ``memory://``. A name that ends in ``.gz`` is unpacked on the way.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import IO, Any, Final

from embedding_pipeline.errors import MissingExtra, SourceError
from embedding_pipeline.remote import StorageError, file_system
from embedding_pipeline.sources.lines import BadFile

DATE: Final = "{date}"
_MAGIC: Final = "*?["
_BLOCK_BYTES: Final = 2**18
_SIP_BYTES: Final = 4096
"""Packed bytes handed to gzip at once: what stood in the sip that turns out to be damaged
is lost, so it is small."""


UNPACKED_BYTES: Final = 2**30
UNPACKED_TIMES: Final = 200
"""A packed file may always become this large, and beyond that this many times itself: text
packs to a fifth or a twentieth, a bomb to a thousandth."""


class Handle:
    """An open file whose every failure is a ``SourceError``: never taken for damaged data."""

    def __init__(self, handle: IO[bytes], path: str) -> None:
        self._handle = handle
        self._path = path

    def read(self, size: int = -1, /) -> bytes:
        with _reaching(self._path):
            return self._handle.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with _reaching(self._path):
            return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def close(self) -> None:
        self._handle.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a day.

    Attributes:
        path: its full name within the file system.
        name: its name relative to the part of the path before any pattern.
        changed: the day it was last changed (UTC), where the file system knows.
    """

    path: str
    name: str
    changed: date | None


class Place:
    """An fsspec glob, with or without ``{date}``.

    Args:
        url: the glob as it stands in the settings.

    Raises:
        MissingExtra: the store's client is not installed.
        SourceError: no such protocol.
    """

    def __init__(self, url: str) -> None:
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        self.dated = DATE in url
        with _reaching(url):
            self._fs, self._pattern = file_system(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._fixed = _fixed_part(self._pattern)

    def find(self, day: date) -> list[Found]:
        """The files of ``day`` by name, or all files if the path has no ``{date}``.

        Raises:
            SourceError: nothing can be there: see ``ChunkSource.read``.
        """
        return [self._found(path, info) for path, info in sorted(self.listing(day).items())]

    def listing(self, day: date) -> dict[str, dict[str, Any]]:
        """The files of ``day`` by path, and what the file system says of each.

        Raises:
            SourceError: as ``find``.
        """
        pattern = self._pattern.replace(DATE, day.isoformat())
        with _reaching(self.url):
            listing = self._glob(pattern)
        files = {path: info for path, info in listing.items() if info.get("type") != "directory"}
        if not files:
            self._explain_nothing(found_folder=bool(listing))
        return files

    @contextmanager
    def open(self, file: Found) -> Iterator[Handle]:
        """The file as it is, seekable."""
        with _reaching(file.path):
            handle = self._fs.open(file.path, "rb")
        with closing(Handle(handle, file.path)) as guarded:
            yield guarded

    def blocks(self, file: Found) -> Iterator[bytes]:
        """The file's content in blocks, unpacked.

        Raises:
            BadFile: the packed data is damaged or cut short; comes after what was whole.
            SourceError: it cannot be read.
        """
        with self.open(file) as handle:
            yield from _gunzipped(handle) if file.path.endswith(".gz") else _plain(handle)

    def _glob(self, pattern: str) -> dict[str, dict[str, Any]]:
        try:
            if not any(mark in pattern for mark in _MAGIC):
                return {pattern: self._fs.info(pattern)}
            if self._local:
                _require_listable(self._fixed, pattern.removeprefix(self._fixed))
            found: dict[str, dict[str, Any]] = self._fs.glob(pattern, detail=True)
        except FileNotFoundError:
            return {}
        return found

    def _explain_nothing(self, *, found_folder: bool) -> None:
        """An empty day is fine; a path that can never match anything is not."""
        if found_folder:
            raise SourceError(
                f"source.path {self.url!r} is a folder; name the files in it, "
                f"such as {self.url.rstrip('/')}/*.jsonl"
            )
        with _reaching(self.url):
            there = self._fs.exists(self._fixed) if self._fixed else True
        if not there:
            raise SourceError(
                f"source.path {self.url!r}: there is no {self._fixed!r}; "
                f"correct the path, or create the folder"
            )
        if not self.dated:
            raise SourceError(
                f"source.path {self.url!r} matches no file; correct the pattern, or write "
                f"{DATE} where the day stands in the names"
            )

    def _found(self, path: str, info: dict[str, Any]) -> Found:
        name = path.removeprefix(self._fixed).lstrip("/")
        return Found(path, name, _changed(info))


def _fixed_part(pattern: str) -> str:
    """The folder before anything that varies."""
    ends = [pattern.find(mark) for mark in (*_MAGIC, DATE) if mark in pattern]
    return pattern[: min(ends, default=len(pattern))].rpartition("/")[0]


def _require_listable(folder: str, pattern: str) -> None:
    """A local listing passes folders over that may not be listed; here that is an error."""

    def refuse(error: OSError) -> None:
        raise error

    depth = math.inf if "**" in pattern else pattern.count("/") - 1
    for current, below, _ in os.walk(folder, onerror=refuse):
        if current.count("/") - folder.count("/") >= depth:
            below.clear()


def _changed(info: dict[str, Any]) -> date | None:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        when = info.get(key)
        if isinstance(when, int | float):
            return datetime.fromtimestamp(when, tz=UTC).date()
        if isinstance(when, datetime):
            return (when if when.tzinfo is None else when.astimezone(UTC)).date()
    return None


@contextmanager
def _reaching(path: str) -> Iterator[None]:
    """What any file system raises becomes a SourceError that says what to do."""
    try:
        yield
    except FileNotFoundError as exc:
        raise SourceError(f"{path} is not there; correct source.path") from exc
    except PermissionError as exc:
        raise SourceError(f"{path} may not be read; give this user permission to read it") from exc
    except MissingExtra:
        raise
    except ImportError as exc:
        raise SourceError(
            f"{path} needs a package that is not installed ({exc}); install it"
        ) from exc
    except StorageError as exc:
        raise SourceError(f"source.path: {exc}") from exc
    except Exception as exc:
        raise SourceError(
            f"{path} cannot be reached ({type(exc).__name__}: {exc}); "
            f"check source.path, its protocol, and the credentials"
        ) from exc


def _plain(handle: Handle) -> Iterator[bytes]:
    while block := handle.read(_BLOCK_BYTES):
        yield block


class _Sips:
    """A file that never hands out much at once, and counts."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        sip = self._handle.read(min(size, _SIP_BYTES) if size > 0 else _SIP_BYTES)
        self.taken += len(sip)
        return sip

    def seek(self, offset: int, /) -> int:
        return self._handle.seek(offset)


def _gunzipped(handle: Handle) -> Iterator[bytes]:
    sips, size = _Sips(handle), 0
    packed = gzip.GzipFile(fileobj=sips, mode="rb")
    try:
        while block := packed.read1(_BLOCK_BYTES):
            size += len(block)
            if size > max(UNPACKED_BYTES, UNPACKED_TIMES * sips.taken):
                raise BadFile("unpacks_too_far")
            yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise BadFile("damaged_file", str(exc).encode()) from exc
