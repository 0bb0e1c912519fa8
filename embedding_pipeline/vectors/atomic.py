"""A file is replaced whole or not at all.

Belongs here: temporary names, fsync, the replacement, and sweeping up after writers
that were killed. Does not belong here: what is in the file.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".tmp"
_ABANDONED_SECONDS: Final = 24 * 3600.0
"""Age of a leftover on a file system without locks, where its writer cannot be asked."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target``.

    Until then readers see the old file, and on any exception it stays. The new file
    and its folder are fsynced, so it also survives a power cut. Of two writers at
    once the last one wins. What killed writers left in the folder is removed first.
    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _create(target)
    try:
        _sweep(target.parent, now=os.fstat(descriptor).st_mtime)
        yield temporary
        os.fsync(descriptor)
        temporary.replace(target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _sweep(folder: Path, now: float) -> None:
    """Remove the temporary files in ``folder`` whose writer is gone.

    A writer holds a lock on its file for as long as it lives, whatever kills it, so
    a live writer is never disturbed: not by age, and not by a process id used again.
    ``now`` is the file system's own time, which need not be this machine's.
    """
    left: list[Path] = []
    with suppress(OSError), os.scandir(folder) as found:  # of years: no path for each file
        left = [folder / one.name for one in found if _is_left(one.name)]
    for path in left:
        with suppress(OSError):  # taken by another sweeper, or not ours to remove
            _remove_if_abandoned(path, now)


def _is_left(name: str) -> bool:
    return name.startswith(".") and name.endswith(_SUFFIX)


def _remove_if_abandoned(path: Path, now: float) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _in_use(descriptor, now):
            path.unlink()
    finally:
        os.close(descriptor)


def _in_use(descriptor: int, now: float) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return now - os.fstat(descriptor).st_mtime < _ABANDONED_SECONDS
    return False


def _create(target: Path) -> tuple[Path, int]:
    """A new locked file. A sweeper may take it before the lock is on: then another."""
    while True:
        path = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks: age decides there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
