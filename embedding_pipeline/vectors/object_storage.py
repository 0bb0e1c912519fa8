"""Datasets in an object store: S3, Google Cloud Storage, or whatever else fsspec reaches.

Belongs here: the contract of ``storage`` by URLs. Does not belong here: clients, their
options and errors (``remote``).

An upload is streamed in parts of 16 MiB. S3 and Google make an object visible when its
upload is completed, in one step, so there the object is written under its own name. A
store of another kind gets it under a name beside, and then moves it. What a killed writer
leaves is no object yet; it is given up by later writers when it is a week old, which no
living upload is (Google forgets it by itself after that time).
"""

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final, cast

from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.remote import ATTEMPTS, StorageError, file_system, protocol_of, reaching
from embedding_pipeline.vectors.storage import Storage, StoredFile, contained, is_name

PART_BYTES: Final = 16 << 20
"""One part of an upload; with S3's 10,000 parts a file may have 156 GiB."""

_READ_AHEAD: Final = 1 << 20
_ABANDONED: Final = timedelta(days=7)
_AT_ONCE: Final = frozenset({"s3", "s3a", "gs", "gcs"})
_SUFFIX: Final = ".tmp"


class ObjectStorage(Storage):
    """Files below one URL.

    Args:
        url: such as ``s3://bucket/folder``.
        clock: tells the age of uploads.
        abandoned: age at which an unfinished upload has no writer any more.
        attempts: how often one call is made while the store does not answer.

    Raises:
        MissingExtra: the store's client is not installed.
        StorageError: there is no such protocol.
    """

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        *,
        abandoned: timedelta = _ABANDONED,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._clock = clock or SystemClock()
        self._url = url.rstrip("/")
        self._abandoned = abandoned
        self._fs, self._base = file_system(self._url, attempts)
        self._at_once = protocol_of(url) in _AT_ONCE

    def location(self, name: str = "") -> str:
        return f"{self._url}/{contained(name)}" if name else self._url

    def files(self, folder: str) -> list[StoredFile]:
        found = [info for info in self._listing(folder) if info["type"] == "file"]
        return [StoredFile(_last(info), int(info["size"])) for info in sorted(found, key=_last)]

    def folders(self, folder: str) -> list[str]:
        found = (_last(info) for info in self._listing(folder) if info["type"] == "directory")
        return sorted(name for name in found if is_name(name) and not name.startswith("."))

    def exists(self, name: str) -> bool:
        try:
            with reaching(self.location(name)):
                return bool(self._fs.info(self._path(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), reaching(self.location(name)):
            self._fs.rm_file(self._path(name))

    def discard(self, folder: str) -> None:
        """A store cannot move a folder away: its objects are deleted, a thousand in a call."""
        with suppress(FileNotFoundError), reaching(self.location(folder)):
            self._fs.rm(self._path(folder), recursive=True)

    def clear_discarded(self, folder: str) -> None:
        """Nothing is left: ``discard`` deletes, and begins anew where it stopped."""

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        where = self.location(name)
        with reaching(where):
            handle = self._fs.open(
                self._path(name), "rb", block_size=_READ_AHEAD, cache_type="readahead"
            )
            if isinstance(handle, io.BytesIO):  # fsspec's memory hands all readers one object
                handle = io.BytesIO(handle.getvalue())
        with handle:
            yield cast(IO[bytes], Guarded(handle, where))

    @contextmanager
    def replacing(self, name: str) -> Iterator[IO[bytes]]:
        where, path = self.location(name), self._path(name)
        self._give_up_old_uploads(path)
        folder, _, last = path.rpartition("/")
        target = path if self._at_once else f"{folder}/.{last}.{secrets.token_hex(8)}{_SUFFIX}"
        with reaching(where):
            if not self._at_once:
                self._fs.makedirs(folder, exist_ok=True)
            handle = self._fs.open(target, "wb", block_size=PART_BYTES)
        try:
            yield cast(IO[bytes], Guarded(handle, where))
            with reaching(where):
                handle.close()
                if target != path:
                    self._fs.mv(target, path)
        except BaseException:
            self._abandon(handle, target if target != path else None)
            raise

    def _abandon(self, handle: Any, beside: str | None) -> None:
        with suppress(FileNotFoundError, StorageError), reaching(self._url):
            handle.discard()
            if beside is not None:
                self._fs.rm_file(beside)
        with suppress(AttributeError):  # or its destructor would complete the upload
            handle.closed = True

    def _give_up_old_uploads(self, path: str) -> None:
        """End uploads into this folder whose writers are gone; only tidying, never in the way."""
        with suppress(FileNotFoundError, StorageError), reaching(self._url):
            if hasattr(self._fs, "call_s3"):
                self._abort_old_parts(path.rpartition("/")[0] + "/")
            elif not self._at_once:
                self._remove_old_files(path.rpartition("/")[0])

    def _abort_old_parts(self, folder: str) -> None:
        bucket, prefix, _ = self._fs.split_path(folder)
        found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for upload in found.get("Uploads") or ():
            if self._is_old(upload["Initiated"]):
                self._fs.call_s3(
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )

    def _remove_old_files(self, folder: str) -> None:
        for info in self._fs.ls(folder, detail=True):
            name = _last(info)
            if name.startswith(".") and name.endswith(_SUFFIX):
                changed = info.get("created") or self._fs.modified(info["name"])
                if self._is_old(changed):
                    self._fs.rm_file(info["name"])

    def _is_old(self, since: datetime) -> bool:
        aware = since if since.tzinfo else since.replace(tzinfo=UTC)
        return aware.timestamp() <= self._clock.now() - self._abandoned.total_seconds()

    def _path(self, name: str) -> str:
        return f"{self._base}/{contained(name)}"

    def _listing(self, folder: str) -> list[dict[str, Any]]:
        try:
            with reaching(self.location(folder)):
                found: list[dict[str, Any]] = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return [info for info in found if _last(info) and info["name"] != self._path(folder)]


class Guarded(io.RawIOBase):
    """An open object whose every failure says where, why and what to do."""

    def __init__(self, handle: Any, where: str) -> None:
        super().__init__()
        self._handle = handle
        self._where = where

    def read(self, size: int = -1, /) -> bytes:
        with reaching(self._where):
            return bytes(self._handle.read(size))

    def write(self, data: Any, /) -> int:
        with reaching(self._where):
            return int(self._handle.write(data))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._handle.seek(offset, whence))

    def tell(self) -> int:
        return int(self._handle.tell())

    def readable(self) -> bool:
        return bool(self._handle.readable())

    def writable(self) -> bool:
        return bool(self._handle.writable())

    def seekable(self) -> bool:
        return bool(self._handle.seekable())

    def flush(self) -> None:
        """Parts go when they are full; a part before its time would be too small for S3."""


def _last(info: dict[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]
