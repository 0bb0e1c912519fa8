"""Where datasets are kept: one contract, for a folder of this machine or an object store.

Belongs here: what a place can do. Does not belong here: how one does it
(``local_storage``, ``object_storage``), or what the files hold.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeAlias

from embedding_pipeline.remote import StorageError

Readable: TypeAlias = Path | IO[bytes]
"""What Arrow reads from, at random."""

Writable: TypeAlias = Path | IO[bytes]
"""What Arrow writes to, from the start to the end."""

_SPECIAL: Final = frozenset("/\\*?[]")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: its name within its folder, and its size in bytes."""

    name: str
    size: int


def contained(name: str) -> str:
    """``name``, when it can only name something below the place; "" is the place itself.

    Names are made of days and spaces, which are checked where they are made. This is the
    second lock on the same door: no name climbs, starts anew, or matches more than itself.

    Raises:
        StorageError: a part of it is no name: see ``is_name``.
    """
    if name and not all(map(is_name, name.split("/"))):
        raise StorageError(f"{name!r} names nothing below data_dir; nothing was read or written")
    return name


def is_name(part: str) -> bool:
    """Whether a file or folder may be called this: not empty, no way up, no pattern."""
    return part not in {"", ".", ".."} and part.isprintable() and not _SPECIAL & set(part)


class Storage(ABC):
    """Files by name: relative, with ``/`` between the parts.

    Every method is blocking. All raise OSError (``StorageError`` for an object store) when
    the place cannot be used.
    """

    @abstractmethod
    def location(self, name: str = "") -> str:
        """Where a file is, for people: an absolute path, or a URL."""

    @abstractmethod
    def files(self, folder: str) -> list[StoredFile]:
        """The files directly in ``folder``, by name; none where there is no such folder."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """The names of the folders directly in ``folder``, in order.

        Hidden ones are left out, and those that cannot be ours by their name (``is_name``).
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def discard(self, folder: str) -> None:
        """Give a folder up with all that is in it, as near to at once as the place can."""

    @abstractmethod
    def clear_discarded(self, folder: str) -> None:
        """Remove what crashes left of folders in ``folder`` that were given up."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Readable]:
        """A file for reading; never parts of two that replace each other.

        Raises FileNotFoundError when there is none.
        """

    @abstractmethod
    def replacing(self, name: str) -> AbstractContextManager[Writable]:
        """Yield what to write to; it takes the file's place whole when the block ends well.

        Until then readers find the old file, and after any exception or a killed process
        too. Of two writers at once the last one wins. What killed writers left is removed.
        """

    def write(self, name: str, content: bytes) -> None:
        """Make ``content`` the file."""
        with self.replacing(name) as sink:
            if isinstance(sink, Path):
                sink.write_bytes(content)
            else:
                sink.write(content)
